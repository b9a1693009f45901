"""The ``intervals`` table: what became of the rows of every interval, and which one came first."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from pyspark.sql import SparkSession

from pipelines.stages.ingest.summary import PreprocessSummary
from pipelines.storage.delta_reader import read_rows
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


def first_interval(workdir: Workdir) -> tuple[str, datetime] | None:
    """Return label and start of the interval that was ingested first; None where none was ingested to its end.

    Rows of an older version do not say which it was: there it is the whole log, else the earliest.
    """
    rows = read_rows(workdir.table("intervals"), "WHERE interval_start IS NOT NULL")
    if not rows:
        return None
    row = min(
        rows,
        key=lambda row: (not row.get("is_first"), row["source_interval"] != WHOLE_LOG, row["interval_start"]),
    )
    return row["source_interval"], row["interval_start"].replace(tzinfo=UTC)
