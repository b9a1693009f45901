"""Housekeeping: retention of releases, VACUUM, and the removal of one user's rows."""

from __future__ import annotations

import json
import logging
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from dr_core.errors import InputError
from dr_core.faults import reach
from pipelines.config.run import RunConfig
from pipelines.stages.ingest.preprocess import SETTLED
from pipelines.storage.lease import lease
from pipelines.storage.releases import Release, list_releases
from pipelines.storage.schemas import PARTITIONS
from pipelines.storage.workdir import Workdir

logger = logging.getLogger(__name__)
RELEASE_TABLES = tuple(name for name, columns in PARTITIONS.items() if columns == ("release_id",))
SAMPLE_TABLES = ("samples", "mixed_samples", "refresh_samples", "refresh_mixed_samples")
USER_TABLES = ("interactions", "user_histories", "evaluation_users", "evaluation_histories", "recommendations")


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
        rows = list_releases(spark, workdir)
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


def delete_user(spark: SparkSession, workdir: Workdir, user: str, *, vacuum_now: bool = False) -> dict[str, int]:
    """Remove one user's rows from interactions, histories, roles, samples, quarantine and recommendations; all that a killed
    ingest left half done goes.

    Sums over many users (scores, N_v) and models are not changed: they forget with the next full run. Files that held
    the rows go with the next VACUUM, or at once with ``vacuum_now`` (readers of old table versions then fail).

    Returns:
        Rows removed by table.

    Raises:
        TryAgain: a run or refresh holds the folder.
    """
    removed = {}
    with lease(workdir, "run"):
        for table in USER_TABLES:
            if workdir.has_table(spark, table):
                removed[table] = _delete(spark, workdir, table, F.col("user") == user)
        if workdir.has_table(spark, "quarantine"):
            key = _user_column(workdir)
            removed["quarantine"] = _delete(
                spark, workdir, "quarantine", F.get_json_object("row", f"$['{key}']") == user
            )
        if workdir.exists(*SETTLED):
            workdir.filesystem.rm(workdir.path(*SETTLED), recursive=True)
        for table in SAMPLE_TABLES:
            if workdir.exists("tables", table):
                removed[table] = _delete_from_files(spark, workdir, table, user)
        if vacuum_now:
            vacuum(spark, workdir, 0.0)
    return removed


def _delete(spark: SparkSession, workdir: Workdir, table: str, condition: Any) -> int:
    rows = workdir.read(spark, table).where(condition).count()
    if rows:
        DeltaTable.forPath(spark, workdir.table(table)).delete(condition)
    return rows


def _delete_from_files(spark: SparkSession, workdir: Workdir, table: str, user: str) -> int:
    """Rewrite the Parquet files that hold the user's rows, one by one and each in one step."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    removed = 0
    for path in sorted(workdir.filesystem.glob(f"{workdir.table(table)}/**/*.parquet")):
        with workdir.filesystem.open(path, "rb") as file:
            rows = pq.read_table(file)
        kept = rows.filter(pc.not_equal(rows.column("user"), user))
        if kept.num_rows == rows.num_rows:
            continue
        removed += rows.num_rows - kept.num_rows
        folder, name = str(path).rsplit("/", 1)
        hidden, checksum = f"{folder}/.{name}.tmp", f"{folder}/.{name}.crc"
        with workdir.filesystem.open(hidden, "wb") as file:
            pq.write_table(kept, file, compression="zstd", row_group_size=max(kept.num_rows, 1))
        if workdir.filesystem.exists(checksum):  # Hadoop's, of the old file: with it Spark refuses the new one
            workdir.filesystem.rm(checksum)
        workdir.filesystem.mv(hidden, path)
    return removed


def _user_column(workdir: Workdir) -> str:
    """Return the raw log's name of the user column, from the newest run's configuration."""
    records = [
        json.loads(workdir.filesystem.cat_file(path))
        for path in workdir.filesystem.glob(workdir.path("runs", "*.json"))
    ]
    columns = [record["config"]["dataset"]["columns"]["user"] for record in records if "config" in record]
    return str(columns[-1]) if columns else "user"
