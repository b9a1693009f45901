"""The ``user_histories`` table: each user's last items, extended day by day."""

from __future__ import annotations

from delta.tables import DeltaTable
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from pipelines.stages.interval import Interval
from pipelines.tables import Workdir


def last_events(interactions: DataFrame, length: int) -> DataFrame:
    """Return each user's last events, oldest first: user, item_ids array<int>, event_times array<timestamp> (at most
    ``length``)."""
    newest_first = Window.partitionBy("user").orderBy(F.desc("event_time"), F.desc("event_order"))
    return (
        interactions.withColumn("age", F.row_number().over(newest_first))
        .where(F.col("age") <= length)
        .groupBy("user")
        .agg(F.sort_array(F.collect_list(F.struct("event_time", "event_order", "item_id"))).alias("events"))
        .select("user", F.col("events.item_id").alias("item_ids"), F.col("events.event_time").alias("event_times"))
    )


def rebuild_histories(spark: SparkSession, workdir: Workdir, length: int) -> None:
    """Write the table from all interactions."""
    workdir.write(last_events(workdir.read(spark, "interactions"), length), "user_histories")


def extend_histories(spark: SparkSession, workdir: Workdir, interval: Interval, length: int) -> None:
    """Append an interval's events to the histories of their users; only right when nothing of it or later is in the
    table yet."""
    events = workdir.read(spark, "interactions").where(interval.contains(F.col("event_time")))
    old = workdir.read(spark, "user_histories").select(
        "user", F.col("item_ids").alias("old_items"), F.col("event_times").alias("old_times")
    )
    joined = last_events(events, length).join(old, on="user", how="left")

    def appended(old_name: str, new_name: str) -> Column:
        both = F.concat(F.coalesce(F.col(old_name), F.slice(new_name, 1, 0)), F.col(new_name))
        return F.slice(both, F.greatest(F.size(both) - length, F.lit(0)) + 1, length)

    new = joined.select(
        "user",
        appended("old_items", "item_ids").alias("item_ids"),
        appended("old_times", "event_times").alias("event_times"),
    )
    (
        DeltaTable.forPath(spark, workdir.table("user_histories"))
        .alias("old")
        .merge(new.alias("new"), "old.user = new.user")
        .whenMatchedUpdateAll()
        .whenNotMatchedInsertAll()
        .execute()
    )
