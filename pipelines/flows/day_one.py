"""``dr run``: day one of every seed, from logs to a live release and a report."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from pyspark.sql import SparkSession

from dr_core.errors import ConfigError, InputError
from pipelines.config.load import recorded_config
from pipelines.config.run import RunConfig
from pipelines.evaluation.learned_run import LearnedRun
from pipelines.flows import plan
from pipelines.flows.fresh import drop_previous, refuse_unreadable, set_aside
from pipelines.flows.sources import KEY, Sources, overwritten, state_of
from pipelines.flows.steps import DAY_ONE
from pipelines.report.build import build_report
from pipelines.spark.session import spark_session
from pipelines.stages.ingest.interval import Interval
from pipelines.stages.ingest.ledger import WHOLE_LOG
from pipelines.storage.lease import lease
from pipelines.storage.releases import has_release, list_releases
from pipelines.storage.run_record import Run
from pipelines.storage.workdir import Workdir

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Where a run's events come from, as it was asked for.

    Attributes:
        logs, catalogue: in the place of the configured paths, or None.
        interval: the only events to learn, or None for all.
    """

    logs: str | None = None
    catalogue: str | None = None
    interval: Interval | None = None

    def text(self) -> str:
        """Return what tells one source from another."""
        return f"{self.logs}:{self.catalogue}" + (f":{self.interval.label}" if self.interval else "")


def run_identity(config: RunConfig, source: Source, seed: int) -> str:
    """Return the run id that the same inputs always give; what is only served or measured does not change it."""
    text = f"{config.identity()}:{source.text()}:{seed}"
    return f"{config.name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def run_day_one(
    config: RunConfig,
    workdir_uri: str,
    *,
    logs: str | None = None,
    catalogue: str | None = None,
    num_seeds: int = 1,
    fresh: bool = False,
    interval: Interval | None = None,
    from_stage: str | None = None,
    only: str | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Run day one and return ``summary.json`` as a document (of a dry run: what would be done).

    An unfinished run goes on where it stopped; a finished one is returned as it is. A stage whose settings have changed is
    done anew, and so is what depends on it. A run whose log or catalogue has changed begins anew, unless it has made a
    release. With a live release of another configuration in the folder, the new one becomes a candidate.

    Args:
        config: of the run.
        workdir_uri: W.
        logs, catalogue: in the place of the configured paths.
        num_seeds: repetitions, each with its own seed; the first one's release goes live.
        fresh: start anew, in the place of what the folder holds.
        interval: the only events to learn; None for all.
        from_stage: do this stage and all later ones again.
        only: do this stage alone, again.
        dry_run: do nothing; return the stages and what would become of each.

    Raises:
        ConfigError: the folder holds releases of another K, D, J or encoder and ``fresh`` was not asked for, or there is
            no such stage.
        InputError: the log has changed since the run read it, and the run has made a release.
        GateRefused: a data or health gate refused the run.
        TryAgain: another run holds the folder.
    """
    source, stages = Source(logs, catalogue, interval), plan.day_one(config.em.rounds)
    for option, name in (("--from", from_stage), ("--only", only)):
        if name is not None:
            plan.find_stage(stages, name, option)
    if dry_run:
        return preview(config, Workdir(workdir_uri), source, from_stage, only, fresh=fresh)
    with open_runs(f"dr run {config.name}", config, workdir_uri, source, num_seeds, fresh=fresh) as runs:
        return run_stages(runs, from_stage=from_stage, only=only)


@contextmanager
def open_runs(
    name: str, config: RunConfig, workdir_uri: str, source: Source, num_seeds: int, *, fresh: bool = False
) -> Iterator[list[LearnedRun]]:
    """Hold a work folder and a Spark session for day one of every seed.

    Args:
        name: of the Spark application.
        config, workdir_uri, source, num_seeds: of the run.
        fresh: set aside what the folder holds, once the log has turned out readable.

    Yields:
        One run a seed: the first in the work folder itself, the others below ``seeds/``.

    Raises:
        InputError: the log has changed since the run read it, and the run has made a release.
    """
    workdir = Workdir(workdir_uri)
    workdir.filesystem.makedirs(workdir.path("runs"), exist_ok=True)
    with lease(workdir, "run"):
        if not fresh:
            refuse_changed(seed_run(None, config, workdir, source, 0))
        with spark_session(name, master=config.spark.master, conf=config.spark.conf) as spark:
            if fresh:
                refuse_unreadable(spark, config, workdir, source.logs, source.catalogue)
                set_aside(spark, workdir)
            yield [seed_run(spark, config, workdir, source, number) for number in range(num_seeds)]


def seed_run(
    spark: SparkSession | None, config: RunConfig, workdir: Workdir, source: Source, number: int
) -> LearnedRun:
    """Return day one of one seed."""
    seed = config.seed + number
    place = workdir if number == 0 else workdir.below("seeds", str(seed))
    run = Run(place, run_identity(config, source, seed), config.identity())
    label = source.interval and source.interval.label
    return LearnedRun(spark, config, place, run, seed, source.logs, source.catalogue, label)  # type: ignore[arg-type]


def seeds_run(config: RunConfig, workdir: Workdir, source: Source) -> int:
    """Return how many seeds day one was last run with in the work folder; 0 when it was not."""
    return int(Run(workdir, run_identity(config, source, config.seed), config.identity()).record.get("seeds", 0))


def identities(run: LearnedRun) -> dict[str, str]:
    """Return what each stage of a run depends on."""
    inputs = f"{run.logs}:{run.catalogue}:{run.interval}:{run.seed}"
    return plan.identities(plan.day_one(run.config.em.rounds), run.config.model_dump(mode="json"), inputs)


def begin(run: LearnedRun) -> None:
    """Note in the record what a run was asked for."""
    run.run.record |= {
        "status": "running",
        "exit_code": None,
        "message": "",
        "config_hash": run.config.identity(),
        "config": run.config.model_dump(mode="json"),
        "logs": run.logs,
        "catalogue": run.catalogue,
        "seed": run.seed,
        "interval": run.interval,
    }


def run_stages(runs: Sequence[LearnedRun], *, from_stage: str | None = None, only: str | None = None) -> dict[str, Any]:
    """Do the stages of every seed that are not done yet; publish the first, then measure all; return ``summary.json``.

    Args:
        runs: from :func:`open_runs`.
        from_stage, only: see :func:`run_day_one`.
    """
    first = runs[0]
    stages = plan.day_one(first.config.em.rounds)
    sources = Sources.of(first.config.dataset, first.logs, first.catalogue)
    begin_anew_where_changed(runs, sources, only=only)
    if only is None and from_stage is None and is_finished(runs):
        logger.info("%s: what it found is shown again; --fresh runs it anew", state_of(first.run))
        return dict(json.loads(first.workdir.read_text("report", "summary.json")))
    begin_anew_where_overwritten(runs, only=only)
    if "saved_at" in first.run.record:
        logger.info("%s: it %s", state_of(first.run), "goes on" if first.run.record["stages"] else "begins anew")
    refuse_other_structure(first)
    redone = {stage.name for stage in _chosen(stages, from_stage, only)}
    if only is not None:
        done = [stage["name"] for stage in first.run.record["stages"]]
        plan.require_earlier(stages, only, done, first.run.run_id)
    was_finished = first.run.finished
    begin(first)
    try:
        for run in runs:
            if run is not first:
                logger.info("seed %d", run.seed)
                begin(run)
            known = identities(run)
            for stage in stages:
                if stage.name == "report" or (only is not None and stage.name != only):
                    continue
                if run is first or stage.step not in ("publish", "retrieve"):
                    work = partial(DAY_ONE[stage.step], run, stage)
                    run.run.stage(stage.name, work, identity=known[stage.name], redo=stage.name in redone)
            if run is not first:
                run.run.save()
        if only not in (None, "report"):
            first.run.finish("done" if was_finished else "running", 0)
            return dict(first.run.record)
        summary = build_report(runs)
    except BaseException as error:
        first.run.fail(error)
        raise
    first.run.record |= {"seeds": len(runs), "seed_runs": [run.run.run_id for run in runs]}
    first.run.finish("done", 0)
    drop_previous(first.workdir)
    return summary


def refuse_changed(run: LearnedRun) -> None:
    """Refuse a run that has made a release and whose log has changed since.

    Raises:
        InputError: says what has changed, and the ways on.
    """
    change = Sources.of(run.config.dataset, run.logs, run.catalogue).change_since(run.run.record)
    if change and has_release(run.workdir, run.run.run_id):
        raise InputError(refusal_of(run.run, change))


def begin_anew_where_changed(runs: Sequence[LearnedRun], sources: Sources, *, only: str | None = None) -> None:
    """Forget what was done with a log that has changed since, and note what the runs read now.

    Args:
        runs: one a seed.
        sources: the log and the catalogue as they are now.
        only: the one stage that is to be done, if any.

    Raises:
        InputError: the first run has made a release, which would be overwritten; or ``only`` is a later stage.
    """
    changes = [sources.change_since(run.run.record) for run in runs]
    _begin_anew(runs, changes, only)
    for run, change in zip(runs, changes, strict=True):
        record = run.run.record
        if sources.found and record["stages"] and KEY not in record:
            logger.info("run %s does not remember what its log was: taken to be unchanged", run.run.run_id)
        elif KEY in record and "log" not in sources.found:
            logger.info("the log of run %s is no longer there: taken to be unchanged", run.run.run_id)
        if sources.found and (change or KEY not in record):
            sources.note(record)
            if change or record["stages"]:
                run.run.save()


def begin_anew_where_overwritten(runs: Sequence[LearnedRun], *, only: str | None = None) -> None:
    """Forget what was done with rows that another run has replaced since; arguments and errors as above."""
    changes = [overwritten(run.workdir, run.run, str(run.interval or WHOLE_LOG)) for run in runs]
    _begin_anew(runs, changes, only)


def _begin_anew(runs: Sequence[LearnedRun], changes: Sequence[str | None], only: str | None) -> None:
    first, change = runs[0], next(filter(None, changes), None)
    if change and has_release(first.workdir, first.run.run_id):
        raise InputError(refusal_of(first.run, change))
    if change and only not in (None, plan.day_one(1)[0].name):
        raise InputError(
            f"{state_of(first.run)}, but {change}: leave out --only {only}, every stage is to be done anew"
        )
    for run, words in zip(runs, changes, strict=True):
        if words:
            logger.info("%s: run %s begins anew", words, run.run.run_id)
            run.run.forget_stages()
            run.run.save()


def refusal_of(run: Run, change: str) -> str:
    """Return why a run that has made a release is not done anew, and the ways on."""
    ended = run.record.get("ended_at") or run.record.get("saved_at", "")
    return (
        f"{change}, since run {run.run_id} made its release ({ended}): `dr run --fresh` learns it anew, `dr refresh` adds"
        " days to what was learned, another --workdir keeps both"
    )


def is_finished(runs: Sequence[LearnedRun]) -> bool:
    """Tell whether every stage of every seed is done with today's settings, and the report that is there is of them."""
    first = runs[0]
    if not first.run.finished or first.run.record.get("seeds") != len(runs) or any(_pending(run) for run in runs):
        return False
    if not first.workdir.exists("report", "summary.json"):
        return False
    return bool(json.loads(first.workdir.read_text("report", "summary.json")).get("run_id") == first.run.run_id)


def _pending(run: LearnedRun) -> list[str]:
    """Return the recorded stages that are not done, or were done with other settings."""
    wanted = identities(run)
    done = {stage["name"]: stage.get("identity") for stage in run.run.record["stages"]}
    skipped = {"report"} if run.seed == run.config.seed else {"report", "publish", "retrieve"}
    return [
        name for name in wanted if name not in skipped and (name not in done or done[name] not in (None, wanted[name]))
    ]


def _chosen(stages: Sequence[plan.Stage], from_stage: str | None, only: str | None) -> list[plan.Stage]:
    if only is not None:
        return [stage for stage in stages if stage.name == only]
    names = [stage.name for stage in stages]
    return list(stages[names.index(from_stage) :]) if from_stage is not None else []


def preview(
    config: RunConfig,
    workdir: Workdir,
    source: Source,
    from_stage: str | None = None,
    only: str | None = None,
    *,
    fresh: bool = False,
) -> dict[str, Any]:
    """Return the first seed's stages, each with what a run would do: ``run`` it or ``skip`` it, and why.

    ``state`` says how far the run has come, ``change`` what of its log has changed since (or is None), and ``refusal`` why
    nothing would be done (or is None).
    """
    run = seed_run(None, config, workdir, source, 0)
    stages = plan.day_one(config.em.rounds)
    change = None if fresh else Sources.of(config.dataset, run.logs, run.catalogue).change_since(run.run.record)
    refusal = refusal_of(run.run, change) if change and has_release(run.workdir, run.run.run_id) else None
    redone = {stage.name for stage in (stages if fresh else _chosen(stages, from_stage, only))}
    pending, done = set(_pending(run)), {stage["name"] for stage in run.run.record["stages"]}
    if change:
        pending |= {stage.name for stage in stages}
    rows = []
    for stage in stages:
        is_run = stage.name in redone or (only is None and (stage.name in pending or stage.name == "report"))
        if stage.name in redone:
            reason = "a fresh start" if fresh else "asked for"
        elif change:
            reason = "the log changed"
        elif stage.name == "report" and is_run:
            reason = "drawn by every run"
        elif stage.name in done:
            reason = "its settings changed" if is_run else "done before"
        else:
            reason = "not done yet" if is_run else "not asked for"
        if refusal:
            is_run, reason = False, "the log changed"
        rows.append({
            "name": stage.name,
            "action": "run" if is_run else "skip",
            "reason": reason,
            "job": plan.command(stage),
            "reads": list(stage.reads),
            "writes": list(stage.writes),
        })  # fmt: skip
    return {
        "run_id": run.run.run_id,
        "workdir": workdir.uri,
        "state": state_of(run.run),
        "change": change,
        "refusal": refusal,
        "stages": rows,
    }


def refuse_other_structure(run: LearnedRun) -> None:
    """Refuse to put a structure of another shape beside the live one.

    Raises:
        ConfigError: K, D, J or the encoder differ from the live release's.
    """
    releases = list_releases(run.workdir)
    live = next((release for release in releases if release.status == "live"), None)
    if live is None or any(release.release_id.startswith(f"{run.run.run_id}-") for release in releases):
        return
    name = f"{live.release_id.rsplit('-', 1)[0]}.json"
    before = recorded_config(json.loads(run.workdir.read_text("runs", name)), f"runs/{name}").model_dump(mode="json")
    now = run.config.model_dump(mode="json")
    keys = [
        *(("paths", key) for key in ("nodes", "num_nodes", "num_layers", "paths_per_item")),
        *(("encoder", key) for key in now["encoder"]),
    ]
    changed = [
        f"{section}.{key}: {before[section][key]!r} -> {now[section][key]!r}"
        for section, key in keys
        if before[section][key] != now[section][key]
    ]
    if changed:
        raise ConfigError(
            f"{run.workdir.uri} holds release {live.release_id} of another structure ({'; '.join(changed)}): use --fresh to"
            " start anew, or another --workdir"
        )
