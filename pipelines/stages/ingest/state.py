"""What a work folder holds before an interval is ingested."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dr_core.errors import InputError
from pipelines.stages.ingest.interval import Interval
from pipelines.stages.ingest.ledger import first_interval
from pipelines.storage.workdir import Workdir


@dataclass(frozen=True)
class IngestState:
    """What the work folder held before this interval."""

    is_first: bool
    """This is the interval that was ingested first: users are judged by ``min_events`` and the split is drawn."""
    is_older: bool
    """The interval begins before the first: it changes nobody's role."""
    is_latest: bool
    """Nothing of this interval or later has been ingested: histories can be extended instead of rebuilt."""
    known_users: DataFrame | None
    """Users with an event from another interval; None when it is the first."""

    @classmethod
    def of(cls, spark: SparkSession, workdir: Workdir, interval: Interval | None) -> IngestState:
        if interval is None or not workdir.has_table(spark, "interactions"):
            return cls(is_first=True, is_older=False, is_latest=False, known_users=None)
        table = workdir.read(spark, "interactions")
        is_timeless = F.col("event_time").isNull()
        is_later = (F.col("event_time") >= F.lit(interval.start)) | (F.col("source_interval") == interval.label)
        found = table.where(is_timeless | is_later).agg(F.bool_or(is_timeless), F.count(F.lit(1))).first()
        has_timeless, num_found = found or (None, 0)
        if has_timeless:
            raise InputError(f"{workdir.uri} was built from a log without times: it cannot be extended by interval")
        first = first_interval(workdir)
        if first is None or first[0] == interval.label:
            return cls(is_first=True, is_older=False, is_latest=False, known_users=None)
        extendable = num_found == 0 and workdir.has_table(spark, "user_histories")
        others = table.where(F.col("source_interval") != interval.label)
        known = workdir.read(spark, "user_histories") if extendable else others
        return cls(
            is_first=False,
            is_older=interval.start < first[1],
            is_latest=extendable,
            known_users=known.select("user").distinct(),
        )
