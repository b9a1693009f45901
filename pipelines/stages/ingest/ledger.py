"""The ``intervals`` table: what became of the rows of every interval, and which one came first."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from pipelines.stages.ingest.summary import PreprocessSummary
from pipelines.storage.schemas import SCHEMAS
from pipelines.storage.workdir import Workdir, small_frame

WHOLE_LOG = "all"
"""Stands for the interval where a log is ingested without one."""


def write_ledger(
    spark: SparkSession,
    workdir: Workdir,
    summary: PreprocessSummary,
    run_id: str,
    label: str,
    *,
    is_whole: bool,
    is_first: bool,
) -> None:
    """Note what became of the interval's rows."""
    start, end = (
        moment and datetime.fromisoformat(moment) for moment in (summary.interval_start, summary.interval_end)
    )
    row = (
        label, start, end, run_id, summary.rows_in, summary.kept, summary.quarantined, summary.filtered,
        summary.late, summary.reasons.get("redelivered", 0), json.dumps(summary.reasons, sort_keys=True),
        is_first,
    )  # fmt: skip
    frame = small_frame(spark, [row], SCHEMAS["intervals"])
    workdir.write(frame, "intervals", replace_where=None if is_whole else f"source_interval = '{label}'")


def first_interval(spark: SparkSession, workdir: Workdir) -> tuple[str, datetime] | None:
    """Return label and start of the interval that was ingested first; None where none was ingested to its end.

    Rows of an older version do not say which it was: there it is the whole log, else the earliest.
    """
    if not workdir.has_table(spark, "intervals"):
        return None
    ledger = workdir.read(spark, "intervals").where("interval_start IS NOT NULL")
    marked = F.col("is_first") if "is_first" in ledger.columns else F.lit(None).cast("boolean")
    row = ledger.orderBy(
        F.coalesce(marked, F.lit(False)).desc(),
        (F.col("source_interval") == WHOLE_LOG).desc(),
        "interval_start",
    ).select("source_interval", F.unix_seconds("interval_start").alias("start")).first()  # fmt: skip
    return row and (row["source_interval"], datetime.fromtimestamp(row["start"], UTC))
