"""The ``interactions`` table: kept events, and which of them another interval brought."""

from __future__ import annotations

from datetime import timedelta

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.stages.ingest.interval import Interval
from pipelines.stages.ingest.row_rules import PreprocessConfig
from pipelines.storage.workdir import Workdir


def write_interactions(
    spark: SparkSession,
    workdir: Workdir,
    kept: DataFrame,
    config: PreprocessConfig,
    label: str,
    interval: Interval | None,
) -> None:
    items = workdir.read(spark, "items").select("item_id", F.col("item_key").alias("item"))
    day = F.coalesce(
        F.date_trunc(config.partition_unit, F.col("event_time")).cast("date"), F.lit("1970-01-01").cast("date")
    )
    rows = (
        kept.join(items, on="item", how="inner")
        .withColumn("event_date", day)
        .hint("rebalance", "event_date")
        .sortWithinPartitions("event_date", "user", "event_order")
        .select(
            "user",
            "item_id",
            "event_time",
            "event_order",
            "weight",
            F.lit(label).alias("source_interval"),
            "event_date",
        )
    )
    workdir.write(rows, "interactions", replace_where=f"source_interval = '{label}'" if interval else None)


def mark_redelivered(
    spark: SparkSession, workdir: Workdir, settled: DataFrame, interval: Interval, config: PreprocessConfig
) -> DataFrame:
    """Give kept events that another interval brought (same user, item and time) the status ``redelivered``."""
    earliest = interval.start - timedelta(days=config.late_days)
    items = workdir.read(spark, "items").select("item_id", F.col("item_key").alias("item"))
    known = (
        workdir.read(spark, "interactions")
        .where(F.col("source_interval") != interval.label)
        .where((F.col("event_time") >= F.lit(earliest)) & (F.col("event_time") < F.lit(interval.end)))
        .where(F.col("event_date") >= F.date_trunc(config.partition_unit, F.lit(earliest)).cast("date"))
        .join(items, on="item_id", how="inner")
        .select("user", "item", "event_time", F.lit(True).alias("is_known"))
        .distinct()
    )
    is_redelivered = F.col("status").isNull() & F.col("is_known")
    return (
        settled.join(known, on=["user", "item", "event_time"], how="left")
        .withColumn("status", F.when(is_redelivered, F.lit("redelivered")).otherwise(F.col("status")))
        .select(*settled.columns)
    )
