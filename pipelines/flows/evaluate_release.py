"""``dr evaluate``: measure a release again, whichever flow made it."""

from __future__ import annotations

import logging
from typing import Any

from pyspark.sql import SparkSession

from dr_core.threads import one_thread
from pipelines.config.load import recorded_config
from pipelines.evaluation.learned_run import LearnedRun
from pipelines.evaluation.measure import measure
from pipelines.flows.refreshed_run import RefreshedRun, seed_of
from pipelines.report.build import REPORT, build_report
from pipelines.spark.session import spark_session
from pipelines.stages.ingest.interval import Interval
from pipelines.storage.lease import lease
from pipelines.storage.releases import Release, find_release
from pipelines.storage.run_record import Run
from pipelines.storage.workdir import Workdir

logger = logging.getLogger(__name__)


def evaluate_release(workdir_uri: str, release_id: str | None) -> dict[str, Any]:
    """Measure a release again on its test users and write its report again; return its summary.

    Of day one's release every seed is measured that it was run with, and ``report/`` is written again. That of a refresh
    has a report of its own, ``report/<release>/``.

    Args:
        workdir_uri: W.
        release_id: of the release; None for the live one.

    Raises:
        InputError: there is no such release, or what it was made from is gone.
        TryAgain: another run holds the folder.
    """
    workdir = Workdir(workdir_uri)
    with lease(workdir, "run"), spark_session("dr evaluate") as spark:
        release = find_release(workdir, release_id)
        runs = runs_of(spark, workdir, release)
        for run in runs:
            with one_thread():
                measure(run)
        folder = (*REPORT, release.release_id) if isinstance(runs[0], RefreshedRun) else REPORT
        return build_report(runs, folder=folder)


def runs_of(spark: SparkSession, workdir: Workdir, release: Release) -> list[LearnedRun]:
    """Return the run that made a release, from its record: every seed of day one, or the one refresh."""
    run_id = release.release_id.rsplit("-", 1)[0]
    first = _run_of(spark, workdir, run_id)
    if isinstance(first, RefreshedRun):
        return [first]
    runs = [first]
    for number, name in enumerate(first.run.record.get("seed_runs", [])[1:], start=1):
        runs.append(_run_of(spark, workdir.below("seeds", str(first.seed + number)), name))
    return runs


def _run_of(spark: SparkSession, workdir: Workdir, run_id: str) -> LearnedRun:
    run = Run(workdir, run_id, "")
    config = recorded_config(run.record, workdir.path("runs", f"{run_id}.json"))
    given = (run.record.get("logs"), run.record.get("catalogue"), run.record.get("interval"))
    if "parent" in run.record:
        seed = seed_of(config.seed, Interval.from_label(run.record["interval"]))
        return RefreshedRun(spark, config, workdir, run, seed, *given)
    return LearnedRun(spark, config, workdir, run, run.record["seed"], *given)
