"""``dr run``: all seeds, the release, the report; and the checks that stand before them."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import SparkSession

from dr_core.errors import ConfigError, DeepRetrievalError
from dr_core.learning.checkpoint import read_manifest
from dr_core.paths.health import measure_health
from dr_core.threads import one_thread
from pipelines.config.load import validate_config
from pipelines.config.run import RunConfig
from pipelines.evaluation.measure import measure
from pipelines.evaluation.measurement import Measurement, sweep_rows, with_rivals
from pipelines.flows.steps import DayOne, run_identity
from pipelines.report.build import report_data, summarize, write_report
from pipelines.serving.batch import retrieve_all
from pipelines.spark.session import spark_session
from pipelines.stages.ingest.interval import Interval
from pipelines.storage.lease import lease
from pipelines.storage.releases import Release, find_release, list_releases, live_release, publish
from pipelines.storage.run_record import Run
from pipelines.storage.workdir import Workdir

logger = logging.getLogger(__name__)
OWNED = ("tables", "models", "runs", "report", "raw", "seeds")


def run_day_one(
    config: RunConfig,
    workdir_uri: str,
    *,
    logs: str | None = None,
    catalogue: str | None = None,
    num_seeds: int = 1,
    fresh: bool = False,
    interval: Interval | None = None,
) -> dict[str, Any]:
    """Run day one and return ``summary.json`` as a document.

    With an interval, only the events of that span of time are learned. An unfinished run goes on where it stopped; a finished one is returned as it is. With a live release of another
    configuration in the folder, the new one becomes a candidate.

    Raises:
        ConfigError: the folder holds releases of another K, D, J or encoder and ``fresh`` was not asked for.
        GateRefused: a data or health gate refused the run.
        TryAgain: another run holds the folder.
    """
    workdir = Workdir(workdir_uri)
    workdir.filesystem.makedirs(workdir.path("runs"), exist_ok=True)
    with lease(workdir, "run"):
        if fresh:
            clear(workdir)
        with spark_session(f"dr run {config.name}", master=config.spark.master, conf=config.spark.conf) as spark:
            return _run(spark, config, workdir, logs, catalogue, num_seeds, interval)


def clear(workdir: Workdir) -> None:
    """Delete what a run wrote; the lease stays."""
    for name in OWNED:
        if name == "runs":
            stale = [
                path
                for path in workdir.filesystem.ls(workdir.path("runs"), detail=False)
                if not path.endswith(".lease")
            ]
            for path in stale:
                workdir.filesystem.rm(path, recursive=True)
        elif workdir.exists(name):
            workdir.filesystem.rm(workdir.path(name), recursive=True)


def _run(
    spark: SparkSession,
    config: RunConfig,
    workdir: Workdir,
    logs: str | None,
    catalogue: str | None,
    num_seeds: int,
    interval: Interval | None,
) -> dict[str, Any]:
    days = days_of(spark, config, workdir, logs, catalogue, num_seeds, interval)
    first = days[0]
    if first.run.finished and first.run.record.get("seeds") == num_seeds and workdir.exists("report", "summary.json"):
        logger.info("run %s is finished; --fresh runs it anew", first.run.run_id)
        return dict(json.loads(workdir.read_text("report", "summary.json")))
    refuse_other_structure(spark, workdir, first)
    first.run.record |= {
        "status": "running",
        "exit_code": None,
        "message": "",
        "config": config.model_dump(mode="json"),
        "logs": logs,
        "catalogue": catalogue,
        "seed": config.seed,
        "interval": interval and interval.label,
    }
    try:
        for day in days:
            if num_seeds > 1:
                logger.info("seed %d", day.seed)
            day.learn()
            day.run.stage("evaluate", lambda day=day: measure(day))  # type: ignore[misc]
        first.run.stage("publish", lambda: publish_release(first))
        first.run.stage("retrieve", lambda: recommend(first))
        summary = finish_report(days)
    except BaseException as error:
        first.run.fail(error)
        raise
    first.run.record["seeds"] = num_seeds
    first.run.finish("done", 0)
    return summary


def days_of(
    spark: SparkSession,
    config: RunConfig,
    workdir: Workdir,
    logs: str | None,
    catalogue: str | None,
    num_seeds: int,
    interval: Interval | None = None,
) -> list[DayOne]:
    """Return day one of every seed: the first in the work folder itself, the others below ``seeds/``."""
    days = []
    for number in range(num_seeds):
        seed = config.seed + number
        place = workdir if number == 0 else workdir.below("seeds", str(seed))
        run = Run(place, run_identity(config, logs, catalogue, seed, interval), config.identity())
        days.append(DayOne(spark, config, place, run, seed, logs, catalogue, interval))
    return days


def seeds_run(config: RunConfig, workdir: Workdir, logs: str | None, catalogue: str | None) -> int:
    """Return how many seeds day one was last run with in the work folder; 0 when it was not."""
    run = Run(workdir, run_identity(config, logs, catalogue, config.seed), config.identity())
    return int(run.record.get("seeds", 0))


def finish_report(days: list[DayOne]) -> dict[str, Any]:
    """Put the seeds together, with the rivals that were measured beside them, and write the report."""
    first = days[0]
    seeds = [with_rivals(day, Measurement.load(day.workdir, day.run.run_id)) for day in days]
    summary = summarize(first, seeds, first.release_id(first.config.em.rounds))
    write_report(first.workdir, summary, report_data(first, seeds[0]) | {"sweep": sweep_rows(days)})
    return dict(json.loads(first.workdir.read_text("report", "summary.json")))


def evaluate_release(workdir_uri: str, release_id: str | None) -> dict[str, Any]:
    """Measure a release again and write the report again."""
    workdir = Workdir(workdir_uri)
    with lease(workdir, "run"), spark_session("dr evaluate") as spark:
        release = find_release(spark, workdir, release_id)
        day = day_of(spark, workdir, release)
        with one_thread():
            measure(day)
        return finish_report([day])


def day_of(spark: SparkSession, workdir: Workdir, release: Release) -> DayOne:
    """Return the run that made a release, from its record."""
    run_id = release.release_id.rsplit("-", 1)[0]
    record = json.loads(workdir.read_text("runs", f"{run_id}.json"))
    config = validate_config(record["config"], f"runs/{run_id}.json")
    run = Run(workdir, run_id, config.identity())
    return DayOne(spark, config, workdir, run, record["seed"], logs=record["logs"], catalogue=record["catalogue"])


def refuse_other_structure(spark: SparkSession, workdir: Workdir, day: DayOne) -> None:
    """Refuse to put a structure of another shape beside the live one."""
    live = live_release(spark, workdir)
    if live is None or any(row.release_id.startswith(day.run.run_id) for row in list_releases(spark, workdir)):
        return
    before = json.loads(workdir.read_text("runs", f"{live.release_id.rsplit('-', 1)[0]}.json"))["config"]
    now = day.config.model_dump(mode="json")
    changed = [
        f"{section}.{key}: {before[section][key]!r} -> {now[section][key]!r}"
        for section, keys in (
            ("paths", ("num_nodes", "num_layers", "paths_per_item")),
            ("encoder", tuple(now["encoder"])),
        )
        for key in keys
        if before[section][key] != now[section][key]
    ]
    if changed:
        raise ConfigError(
            f"{workdir.uri} holds release {live.release_id} of another structure ({'; '.join(changed)}): use --fresh to"
            " start anew, or another --workdir"
        )


def publish_release(day: DayOne) -> dict[str, Any]:
    release_id = day.release_id(day.config.em.rounds)
    folder = day.workdir.path("models", release_id)
    manifest = read_manifest(day.workdir.filesystem, folder)
    if manifest is None:
        raise DeepRetrievalError(f"{folder} holds no finished model")
    data = day.result("preprocess")
    health = measure_health(day.workdir.read_array("models", release_id, "item_paths.npy"), day.choice.space)
    day.workdir.write_array(day.counts, "models", release_id, "counts.npy")
    learned = [day.interval.label] if day.interval else ["all"]
    gates = {
        "health": vars(health),
        "alpha": day.result(f"assign_{day.config.em.rounds}")["alpha"],
        "learned": learned,
        "seconds": round(sum(stage["seconds"] for stage in day.run.record["stages"]), 1),
    }
    serving = {"beam": day.result("evaluate")["beam"], "history_length": day.config.samples.history_length}
    day.workdir.write_text(json.dumps({"release_id": release_id, **serving}), "models", release_id, "serving.json")
    release = publish(
        day.spark,
        day.workdir,
        Release(
            release_id=release_id,
            status="live",
            interval_start=data["interval_start"],
            interval_end=data["interval_end"],
            parent_release=None,
            model_uri=folder,
            model_sha256=manifest["sha256"]["model.safetensors"],
            K=day.choice.space.num_nodes,
            D=day.choice.space.num_layers,
            J=day.config.paths.paths_per_item,
            num_items=day.num_items,
            config_hash=day.config.identity(),
            gates=json.dumps(gates),
            created_at=datetime.now(UTC).replace(tzinfo=None),
        ),
    )
    logger.info("  release %s is %s", release.release_id, release.status)
    return {"rows_in": 1, "rows_out": 1, "status": release.status}


def recommend(day: DayOne) -> dict[str, Any]:
    release_id = day.release_id(day.config.em.rounds)
    return retrieve_all(
        day.spark,
        day.workdir,
        release_id=release_id,
        k=day.config.evaluation.k[0],
        beam=int(day.result("evaluate")["beam"]),
        max_length=day.config.samples.history_length,
        filter_history=day.config.evaluation.filter_history,
    )
