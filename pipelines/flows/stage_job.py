"""One job of day one: its stages done again, under the run's verdict.

A job that is run again does its work again and replaces its record: the same inputs give the same tables, so doing it twice
changes nothing. (``dr run``, in contrast, goes on after the last stage that is recorded.) All jobs of one run find each
other by the run id, which the same configuration, log, catalogue, seed and interval always give.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from dr_core.errors import ConfigError, TryAgain
from pipelines.config.run import RunConfig
from pipelines.evaluation.learned_run import LearnedRun
from pipelines.flows import plan
from pipelines.flows.day_one import (
    Source,
    begin,
    begin_anew_where_changed,
    identities,
    refuse_other_structure,
    run_identity,
)
from pipelines.flows.sources import Sources
from pipelines.flows.steps import DAY_ONE
from pipelines.report.build import build_report
from pipelines.spark.session import spark_session
from pipelines.storage.lease import lease
from pipelines.storage.run_record import Run
from pipelines.storage.workdir import Workdir

JOBS = tuple(dict.fromkeys(stage.job for stage in plan.day_one(1)))
"""The jobs of day one, in order."""


def job_key(job: str, number: int | str | None) -> str:
    """Return the name of a job's verdict in the record: ``preprocess``, ``assign_paths_2``, ``train_model_final``."""
    return job if number is None else f"{job}_{number}"


def record_refusal(key: str, workdir_uri: str, run_id: str, error: ConfigError) -> None:
    """Leave a configuration's error as a job's verdict. A folder in use keeps the record of its user.

    Args:
        key: of the verdict.
        workdir_uri, run_id: of the record.
        error: why the job does not begin.
    """
    workdir = Workdir(workdir_uri)
    with suppress(ConfigError, TryAgain), lease(workdir, "run"), Run(workdir, run_id, "").job(key):
        raise error


def stages_of(job: str, number: str | None, rounds: int) -> list[plan.Stage]:
    """Return the stages that a job does.

    Args:
        job: file name in ``jobs/``.
        number: what ``--round`` says, or None for a job without rounds.
        rounds: T.

    Raises:
        ConfigError: the job has no such round; the message names those it has.
    """
    own = [stage for stage in plan.day_one(rounds) if stage.job == job]
    chosen = [stage for stage in own if number is None or str(stage.round) == number]
    if not chosen:
        numbers = [stage.round for stage in own if isinstance(stage.round, int)]
        words = [str(stage.round) for stage in own if isinstance(stage.round, str)]
        span = "1" if len(numbers) == 1 else f"1 … {len(numbers)} (em.rounds)"
        raise ConfigError(f"--round {number}: allowed are {', '.join([span, *words])}")
    return chosen


def run_job(
    job: str,
    config: RunConfig,
    workdir_uri: str,
    source: Source,
    *,
    number: str | None = None,
    run_id: str | None = None,
    rounds: int | None = None,
) -> dict[str, Any]:
    """Do a job's stages and return the figures of its JSON line, those of its first stage.

    Args:
        job: file name in ``jobs/``.
        config, workdir_uri, source: of the run.
        number: what ``--round`` says.
        run_id: of the record; by default it follows from the other arguments.
        rounds: EM rounds that the caller has planned for, if it has.

    Raises:
        ConfigError: an earlier stage has not been done, or the run was begun with another configuration.
        InputError: the first job finds a log that has changed since the run made a release.
        TryAgain: another run holds the folder.
    """
    workdir = Workdir(workdir_uri)
    run_id = run_id or run_identity(config, source, config.seed)
    with lease(workdir, "run"):
        record = Run(workdir, run_id, config.identity())
        _refuse_other_config(record, config)
        label = source.interval and source.interval.label
        run = LearnedRun(None, config, workdir, record, config.seed, source.logs, source.catalogue, label)  # type: ignore[arg-type]
        with record.job(job_key(job, number), is_last=job == plan.day_one(1)[-1].job):
            begin(run)
            if rounds is not None and rounds != config.em.rounds:
                raise ConfigError(
                    f"--rounds {rounds}: the caller has planned {rounds} EM rounds, the configuration has"
                    f" em.rounds={config.em.rounds}: make them equal"
                )
            stages = stages_of(job, number, config.em.rounds)
            if job == JOBS[0]:
                begin_anew_where_changed([run], Sources.of(config.dataset, run.logs, run.catalogue))
            done = [stage["name"] for stage in record.record["stages"]]
            plan.require_earlier(plan.day_one(config.em.rounds), stages[0].name, done, run_id)
            with spark_session(f"{job} {run_id}", master=config.spark.master, conf=config.spark.conf) as spark:
                run = replace(run, spark=spark)
                results = [_do(run, stage) for stage in stages]
    return {"run_id": run_id, "stage": stages[0].name, "rows_in": None, "rows_out": None, **results[0]}


def _do(run: LearnedRun, stage: plan.Stage) -> dict[str, Any]:
    if stage.name in ("preprocess", "publish"):
        refuse_other_structure(run)
    if stage.name == "report":
        run.run.record |= {"seeds": 1, "seed_runs": [run.run.run_id]}
        results = len(build_report([run])["results"])
        return {"rows_in": results, "rows_out": results, "report": run.workdir.path("report", "index.html")}
    known = identities(run)[stage.name]
    return run.run.stage(stage.name, partial(DAY_ONE[stage.step], run, stage), redo=True, identity=known)


def _refuse_other_config(run: Run, config: RunConfig) -> None:
    known = run.record["config_hash"]
    if known and known != config.identity() and run.record["stages"]:
        raise ConfigError(
            f"run {run.run_id} was begun with another configuration: give this one another --run-id (or none), or go back"
            f" to the configuration in runs/{run.run_id}.json"
        )
