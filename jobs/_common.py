"""What all jobs share: the arguments, one recorded stage of day one, one JSON line on stdout, the exit code.

The JSON line is the last on stdout. (Under spark-submit, Spark joins a program's stderr to its stdout.)

A job run again does its work again and replaces its record: the same inputs give the same tables, so doing it twice
changes nothing. (``dr run``, in contrast, goes on after the last stage that is recorded.) All jobs of one run find each
other by the run id, which the same ``--config``, ``--set``, ``--logs``, ``--catalogue``, ``--seed``, ``--start`` and
``--end`` always give; or name it with ``--run-id``.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dr_core.errors import ConfigError, TryAgain
from pipelines.cli.console import explain, results_only, start_logging

if TYPE_CHECKING:
    from pipelines.flows.steps import DayOne
    from pipelines.storage.run_record import Run

EPILOG = "exit codes: 0 done, 1 bug, 2 bad configuration or arguments, 3 refused by a gate, 75 try again"


@dataclass(frozen=True)
class Step:
    """A stage by the name it has in the run's record, and its work, which returns ``rows_in``, ``rows_out`` and more."""

    name: str
    work: Callable[[], dict[str, Any]]


Steps = Callable[["DayOne", argparse.Namespace], Sequence[Step]]


def run_job(
    name: str, description: str | None, steps: Steps, argv: Sequence[str] | None, *, rounds: Sequence[str] | None = None
) -> int:
    """Parse the arguments, do a job's steps (the first gives the JSON line its name and figures), return the exit code.

    Args:
        name: of the job, as in ``jobs/<name>.py``.
        description: for ``--help``.
        steps: given the run and the arguments, says what is to be done.
        argv: command-line arguments; None for the process' own.
        rounds: words that ``--round`` takes beside 1 … T, or None for a job without rounds.
    """
    arguments = build_parser(name, description, rounds).parse_args(argv)
    start_logging()
    line: dict[str, Any] = {"job": name, "run_id": arguments.run_id, "stage": None, "exit_code": 0}
    started = time.monotonic()
    with results_only():
        try:
            _do(name, steps, arguments, line)
        except (Exception, KeyboardInterrupt) as error:
            line["exit_code"] = explain(name, error)
            line["error"] = str(error) or type(error).__name__
    line["seconds"] = round(time.monotonic() - started, 3)
    print(json.dumps(line, ensure_ascii=False), flush=True)
    return int(line["exit_code"])


def build_parser(name: str, description: str | None, rounds: Sequence[str] | None) -> argparse.ArgumentParser:
    """Return the parser of a job."""
    parser = argparse.ArgumentParser(
        prog=name, description=description, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, metavar="C", help="YAML file")
    parser.add_argument("--workdir", required=True, metavar="W", help="work folder, a path or URI")
    parser.add_argument("--logs", metavar="P", help="the logs, in place of dataset.path")
    parser.add_argument("--catalogue", metavar="P", help="the catalogue, in place of dataset.catalogue")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=V", help="override one key; may be repeated")
    parser.add_argument("--seed", type=int, metavar="N", help="root of all randomness, in place of the configured one")
    parser.add_argument("--start", metavar="T0", help="ingest events from this ISO date or moment on (UTC)")
    parser.add_argument("--end", metavar="T1", help="… and before this one")
    parser.add_argument("--run-id", metavar="R", help="name of the run (default: follows from the other arguments)")
    if rounds is not None:
        words = "".join(f", or {word}" for word in rounds)
        parser.add_argument("--round", required=True, metavar="t", help=f"M-step round, 1 … em.rounds{words}")
    parser.set_defaults(words=tuple(rounds or ()))
    return parser


def _do(name: str, steps: Steps, arguments: argparse.Namespace, line: dict[str, Any]) -> None:
    """Load the config, take the lease, do the steps under the run's verdict and fill the JSON line."""
    from pipelines.flows.day_one import refuse_other_structure
    from pipelines.flows.steps import DayOne, run_identity
    from pipelines.spark.session import spark_session
    from pipelines.stages.ingest.interval import Interval
    from pipelines.storage.lease import lease
    from pipelines.storage.run_record import Run
    from pipelines.storage.workdir import Workdir

    workdir = Workdir(arguments.workdir)
    try:
        config = _configure(arguments)
    except ConfigError as error:
        if arguments.run_id is not None:
            # The verdict must be readable where the exit code is lost; a folder in use keeps the record of its user.
            key = job_key(name, arguments)
            with suppress(ConfigError, TryAgain), lease(workdir, "run"), Run(workdir, arguments.run_id, "").job(key):
                raise error
        raise
    interval = None if arguments.start is None else Interval.parse(arguments.start, arguments.end)
    line["run_id"] = run_id = arguments.run_id or run_identity(
        config, arguments.logs, arguments.catalogue, config.seed, interval
    )
    with lease(workdir, "run"):
        run = Run(workdir, run_id, config.identity())
        _refuse_other_config(run, config.identity())
        run.record |= {
            "config": config.model_dump(mode="json"),
            "logs": arguments.logs,
            "catalogue": arguments.catalogue,
            "seed": config.seed,
            "config_hash": config.identity(),
        }
        day = DayOne(None, config, workdir, run, config.seed, arguments.logs, arguments.catalogue, interval)  # type: ignore[arg-type]
        first, *others = steps(day, arguments)
        line |= {"stage": first.name, "rows_in": None, "rows_out": None}
        with run.job(job_key(name, arguments), is_last=name == "report"):
            _require_earlier(run, first.name, config.em.rounds)
            with spark_session(f"{name} {run_id}", master=config.spark.master, conf=config.spark.conf) as day.spark:
                if first.name in ("preprocess", "publish"):
                    refuse_other_structure(day.spark, workdir, day)
                result = first.work() if first.name == "report" else run.stage(first.name, first.work, redo=True)
                for step in others:
                    run.stage(step.name, step.work, redo=True)
        line |= {key: value for key, value in result.items() if isinstance(value, str | int | float | None)}


def _configure(arguments: argparse.Namespace) -> Any:
    """Return the configuration after checking what does not need it; ``arguments.round`` becomes a number or a word."""
    from pipelines.config.load import load_config

    run_id = arguments.run_id
    if run_id is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", run_id):
        arguments.run_id = None
        raise ConfigError(f"--run-id {run_id}: letters, digits, '.', '_' and '-' are allowed")
    if (arguments.start is None) != (arguments.end is None):
        raise ConfigError("--start and --end belong together")
    seed = [] if arguments.seed is None else [f"seed={arguments.seed}"]
    config = load_config(arguments.config, [*arguments.set, *seed])
    if getattr(arguments, "round", None) is not None:
        arguments.round = _round(arguments.round, arguments.words, config.em.rounds)
    return config


def job_key(name: str, arguments: argparse.Namespace) -> str:
    """Return the name of a job's verdict in the record: ``preprocess``, ``assign_paths_2``, ``train_model_final``."""
    number = getattr(arguments, "round", None)
    return name if number is None else f"{name}_{number}"


def stage_order(rounds: int) -> list[tuple[str, str]]:
    """Return every stage of day one in order, each with the job that does it."""
    order = [
        ("preprocess", "preprocess"),
        ("samples", "samples"),
        ("choose", "samples"),
        ("warm_up", "train_model --round warm_up"),
        ("initialize", "initialize_paths"),
        ("targets", "mix_targets"),
    ]
    for t in range(1, rounds + 1):
        order += [
            (f"e_step_{t}", f"train_model --round {t}"),
            (f"scores_{t}", f"accumulate_scores --round {t}"),
            (f"assign_{t}", f"assign_paths --round {t}"),
        ]
    order += [
        ("e_step_final", "train_model --round final"),
        ("index", "build_index"),
        ("evaluate", "evaluate"),
        ("publish", "publish"),
        ("retrieve", "retrieve_batch"),
        ("report", "report"),
    ]
    return order


def _require_earlier(run: Run, name: str, rounds: int) -> None:
    done = {stage["name"] for stage in run.record["stages"]}
    for stage, job in stage_order(rounds):
        if stage == name:
            return
        if stage not in done:
            raise ConfigError(f"stage {stage} of run {run.run_id} has not been done: run the job {job} first")


def _round(text: str, words: tuple[str, ...], rounds: int) -> int | str:
    if text in words:
        return text
    if not text.isdigit() or not 1 <= int(text) <= rounds:
        allowed = ", ".join(["1" if rounds == 1 else f"1 … {rounds} (em.rounds)", *words])
        raise ConfigError(f"--round {text}: allowed are {allowed}")
    return int(text)


def _refuse_other_config(run: Run, identity: str) -> None:
    known = run.record["config_hash"]
    if known and known != identity and run.record["stages"]:
        raise ConfigError(
            f"run {run.run_id} was begun with another configuration: give this one another --run-id (or none), or go back"
            " to the configuration in runs/" + f"{run.run_id}.json"
        )
