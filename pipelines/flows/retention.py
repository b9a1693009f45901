"""Housekeeping: retention of releases, VACUUM, and the removal of one user's rows."""

from __future__ import annotations

import logging
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from dr_core.errors import InputError
from dr_core.faults import reach
from pipelines.config.run import RunConfig
from pipelines.storage.lease import lease
from pipelines.storage.releases import Release, list_releases
from pipelines.storage.samples_format import SAMPLE_TABLES
from pipelines.storage.schemas import PARTITIONS
from pipelines.storage.workdir import Workdir

logger = logging.getLogger(__name__)
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
    remains known. Rows of rounds between releases go as well. Nothing of a kept release is touched: each owns its
    partitions, and VACUUM removes only files that no present row lies in.

    Args:
        vacuum_hours: files deleted longer ago are removed; None leaves all.

    Returns:
        kept, deleted (release ids) and models_removed.

    Raises:
        TryAgain: a run or refresh holds the folder.
    """
    with lease(workdir, "run"):
        rows = list_releases(workdir)
        if not rows:
            raise InputError(f"{workdir.uri} has no release to maintain: `dr run` makes the first")
        kept = kept_releases(rows, config.refresh.keep_releases)
        names = {row.release_id for row in kept}
        quoted = ", ".join(f"'{name}'" for name in sorted(names))
        gone = [row.release_id for row in rows if row.release_id not in names and row.status != "deleted"]
        if gone:
            # First the word, then the deed: a release that is being deleted can no longer be promoted.
            DeltaTable.forPath(spark, workdir.table("releases")).update(
                F.col("release_id").isin(gone), {"status": F.lit("deleted")}
            )
        for table in RELEASE_TABLES:
            if workdir.has_table(spark, table):
                reach(f"delete:{table}:before")
                DeltaTable.forPath(spark, workdir.table(table)).delete(f"release_id NOT IN ({quoted})")
        removed = _remove_models(workdir, kept)
        if vacuum_hours is not None:
            vacuum(spark, workdir, vacuum_hours)
    logger.info("  %d releases kept, %d deleted, %d model folders removed", len(kept), len(gone), len(removed))
    return {"kept": sorted(names), "deleted": gone, "models_removed": removed}


def _remove_models(workdir: Workdir, kept: list[Release]) -> list[str]:
    """Remove model folders of no kept release; the warmed-up model of a kept full run stays with it."""
    names = {row.release_id for row in kept} | {f"{row.release_id.rsplit('-', 1)[0]}-warm" for row in kept}
    removed = []
    for folder in workdir.filesystem.ls(workdir.path("models"), detail=False):
        name = str(folder).rstrip("/").rsplit("/", 1)[-1]
        if name not in names:
            workdir.filesystem.rm(str(folder), recursive=True)
            removed.append(name)
    return sorted(removed)


def vacuum(spark: SparkSession, workdir: Workdir, hours: float) -> None:
    """Remove files that have been out of every table for some hours."""
    check = "spark.databricks.delta.retentionDurationCheck.enabled"
    before = spark.conf.get(check, "true")
    spark.conf.set(check, "false")
    try:
        for folder in workdir.filesystem.ls(workdir.path("tables"), detail=False):
            name = str(folder).rstrip("/").rsplit("/", 1)[-1]
            if name not in SAMPLE_TABLES and workdir.has_table(spark, name):
                reach("vacuum:before")
                DeltaTable.forPath(spark, workdir.table(name)).vacuum(hours)
                reach("vacuum:after")
    finally:
        spark.conf.set(check, str(before))
