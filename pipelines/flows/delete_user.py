"""The removal of one user's rows, wherever they stand."""

from __future__ import annotations

import json
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from pipelines.flows.retention import vacuum
from pipelines.stages.ingest.preprocess import SETTLED
from pipelines.storage.lease import lease
from pipelines.storage.samples_format import SAMPLE_TABLES
from pipelines.storage.workdir import Workdir

USER_TABLES = ("interactions", "user_histories", "evaluation_users", "evaluation_histories", "recommendations")


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
