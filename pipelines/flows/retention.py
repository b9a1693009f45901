"""Housekeeping: retention of releases, and VACUUM."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from dr_core.errors import InputError
from dr_core.learning.checkpoint import MANIFEST
from pipelines.config.run import RunConfig
from pipelines.storage.faults import reach
from pipelines.storage.lease import LEASE_SECONDS, lease
from pipelines.storage.releases import Release, list_releases
from pipelines.storage.run_record import Run, run_records
from pipelines.storage.samples_format import SAMPLE_TABLES
from pipelines.storage.schemas import PARTITIONS
from pipelines.storage.workdir import Workdir

logger = logging.getLogger(__name__)
SMALL_FILES = ("item_paths.npy", "counts.npy", "metrics.jsonl")
"""Files of a version that `dr evaluate`, `dr compare` and `dr sweep` read after its model is gone."""
RELEASE_TABLES = tuple(name for name, columns in PARTITIONS.items() if columns == ("release_id",))


def kept_releases(rows: list[Release], keep: int) -> list[Release]:
    """Return the releases retention keeps: the live one, its parent, and the newest until there are ``keep`` more."""
    live = next((row for row in rows if row.status == "live"), None)
    pinned = {live.release_id, live.parent_release} if live else set()
    standing = sorted((row for row in rows if row.status != "deleted"), key=lambda row: row.created_at, reverse=True)
    others = [row for row in standing if row.release_id not in pinned][:keep]
    return [row for row in standing if row.release_id in pinned or row in others]


def maintain(
    spark: SparkSession, workdir: Workdir, config: RunConfig, *, vacuum_hours: float | None = 168.0
) -> dict[str, Any]:
    """Delete the tables' rows and the models of releases that are not kept, then VACUUM.

    The row of a deleted release stays in ``releases`` with status ``deleted``, so that what its successors learned
    remains known. Of the versions between releases, rows and models go as well; of the runs of kept releases the small
    files stay that measuring reads (``SMALL_FILES``). Nothing of a kept release is touched: each owns its partitions,
    and VACUUM removes only files that no present row lies in. Nothing is touched of a run that has not ended, nor of
    one that failed less than a lease ago. One that failed earlier and loses its models begins anew when it is taken up.
    The samples stay.

    Args:
        vacuum_hours: files deleted longer ago are removed; None leaves all.

    Returns:
        kept, deleted (release ids), models_removed and models_reduced (version ids).

    Raises:
        TryAgain: a run or refresh holds the folder.
        InputError: there is no release yet, or a run's record cannot be read.
    """
    with lease(workdir, "run"):
        rows = list_releases(workdir)
        if not rows:
            raise InputError(f"{workdir.uri} has no release to maintain: `dr run` makes the first")
        records = run_records(workdir)
        unfinished = [record for record in records if is_unfinished(record)]
        parents = {record.get(key) for record in unfinished for key in ("parent", "base")}
        kept = kept_releases(rows, config.refresh.keep_releases)
        names = {
            row.release_id for row in rows if row in kept or (row.release_id in parents and row.status != "deleted")
        }
        busy = {str(record["run_id"]) for record in unfinished}
        gone = [row.release_id for row in rows if row.release_id not in names and row.status != "deleted"]
        gone = [name for name in gone if run_of(name) not in busy]
        if gone:
            # First the word, then the deed: a release that is being deleted can no longer be promoted.
            workdir.check_lease()
            DeltaTable.forPath(spark, workdir.table("releases")).update(
                F.col("release_id").isin(gone), {"status": F.lit("deleted")}
            )
        is_kept = F.col("release_id").isin(*names) | F.regexp_replace("release_id", "-[^-]*$", "").isin(*busy)
        for table in RELEASE_TABLES:
            if workdir.has_table(spark, table):
                workdir.check_lease()
                reach(f"delete:{table}:before")
                DeltaTable.forPath(spark, workdir.table(table)).delete(~is_kept)
        _forget_stages(workdir, [record for record in records if record["status"] == "failed"], names, busy)
        deleted = {row.release_id for row in rows} - names
        removed, reduced = _remove_models(workdir, names, deleted, busy)
        if vacuum_hours is not None:
            vacuum(spark, workdir, vacuum_hours)
    logger.info("  %d releases kept, %d deleted, %d model folders removed", len(names), len(gone), len(removed))
    return {"kept": sorted(names), "deleted": gone, "models_removed": removed, "models_reduced": reduced}


def run_of(version_id: str) -> str:
    """Return the run that made a version: ``demo-1a2b`` of ``demo-1a2b-2`` and of ``demo-1a2b-warm``."""
    return version_id.rsplit("-", 1)[0]


def is_unfinished(record: dict[str, Any]) -> bool:
    """Tell whether a run may go on from what it has made: it has not ended, or it failed less than a lease ago."""
    if record.get("status") == "running":
        return True
    if record.get("status") != "failed" or "saved_at" not in record:
        return False
    age = datetime.now(UTC) - datetime.fromisoformat(record["saved_at"])
    return age.total_seconds() < LEASE_SECONDS


def _forget_stages(workdir: Workdir, failed: list[dict[str, Any]], names: set[str], busy: set[str]) -> None:
    """Let failed runs whose models are about to go begin anew."""
    spared = busy | {run_of(name) for name in names}
    losing = {run_of(version) for version in workdir.names("models")} - spared
    for record in failed:
        if record["run_id"] in losing and record.get("stages"):
            run = Run.load(workdir, record["run_id"])
            run.record["stages"] = []
            run.save()


def _remove_models(workdir: Workdir, names: set[str], deleted: set[str], busy: set[str]) -> tuple[list[str], list[str]]:
    """Remove the model folders of no kept release and of no unfinished run; return those removed and those reduced.

    Of the runs of kept releases the warmed-up model stays, and the small files of every round.
    """
    runs = {run_of(name) for name in names}
    removed, reduced = [], []
    for version in workdir.names("models"):
        run = run_of(version)
        if version in names or run in busy or (run in runs and version.endswith("-warm")):
            continue
        if run not in runs or version in deleted:
            workdir.remove("models", version)
            removed.append(version)
            continue
        big = [name for name in workdir.names("models", version) if name not in SMALL_FILES]
        for name in sorted(big, key=lambda name: name != MANIFEST):  # a model without its manifest is none
            workdir.remove("models", version, name)
        if big:
            reduced.append(version)
    return removed, reduced


def vacuum(spark: SparkSession, workdir: Workdir, hours: float) -> None:
    """Remove files that have been out of every table for some hours."""
    check = "spark.databricks.delta.retentionDurationCheck.enabled"
    before = spark.conf.get(check, "true")
    spark.conf.set(check, "false")
    try:
        for name in workdir.names("tables"):
            if name not in SAMPLE_TABLES and workdir.has_table(spark, name):
                workdir.check_lease()
                reach("vacuum:before")
                DeltaTable.forPath(spark, workdir.table(name)).vacuum(hours)
                reach("vacuum:after")
    finally:
        spark.conf.set(check, str(before))
