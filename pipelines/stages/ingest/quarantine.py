"""The ``quarantine`` table: every row that is bad, with the reason."""

from __future__ import annotations

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.stages.ingest.row_rules import FILTER_REASONS
from pipelines.storage.workdir import Workdir, small_frame


def bad_rows(examined: DataFrame, settled: DataFrame) -> list[DataFrame]:
    """Return the quarantined rows of the log: reason, row (JSON), source_file, and user as far as the row tells."""
    as_json = F.to_json("raw_row", {"ignoreNullFields": "false"})
    bad = examined.where(F.col("status").isNotNull() & ~F.col("status").isin(*FILTER_REASONS))
    duplicates = settled.where(F.col("status") == "duplicate_row")
    return [
        bad.select(F.col("status").alias("reason"), as_json.alias("row"), "source_file", "user"),
        duplicates.select(F.col("status").alias("reason"), "row", "source_file", "user"),
    ]


def write_quarantine(
    spark: SparkSession, workdir: Workdir, bad_rows: list[DataFrame], label: str, *, is_whole: bool
) -> None:
    """Replace the quarantined rows of this interval, or all of them; rows of a catalogue have no user."""
    where = None if is_whole else f"source_interval = '{label}'"
    if not bad_rows and workdir.has_table(spark, "quarantine"):
        workdir.check_lease()
        DeltaTable.forPath(spark, workdir.table("quarantine")).delete(where)
        return
    rows = small_frame(spark, [], dict.fromkeys(("reason", "row", "source_file", "user"), "string"))
    for part in bad_rows:
        rows = rows.unionByName(part, allowMissingColumns=True)
    frame = rows.select("reason", "row", "source_file", F.lit(label).alias("source_interval"), "user")
    workdir.write(frame, "quarantine", replace_where=where)
