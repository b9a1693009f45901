"""The ``user_histories`` table: each user's last items, extended day by day."""

from __future__ import annotations

from delta.tables import DeltaTable
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from pipelines.storage.faults import reach
from pipelines.storage.workdir import Workdir


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


def extend_histories(spark: SparkSession, workdir: Workdir, label: str, length: int) -> None:
    """Merge the events that an interval brought into the histories of their users; late ones take their place in time.

    Only right when nothing of that interval or later is in the table yet.
    """
    events = workdir.read(spark, "interactions").where(F.col("source_interval") == label)
    old = workdir.read(spark, "user_histories").select(
        "user", F.col("item_ids").alias("old_items"), F.col("event_times").alias("old_times")
    )
    joined = last_events(events, length).join(old, on="user", how="left")

    def as_events(age: int, items: str, times: str) -> Column:
        """Structs that sort by time, then old before new, then by their place."""
        zipped = F.transform(
            F.arrays_zip(F.col(times).alias("time"), F.col(items).alias("item")),
            lambda event, place: F.struct(
                event["time"].alias("time"), F.lit(age).alias("age"), place.alias("place"), event["item"].alias("item")
            ),
        )
        return zipped

    new_events = as_events(1, "item_ids", "event_times")
    both = F.when(F.col("old_items").isNull(), new_events).otherwise(
        F.sort_array(F.concat(as_events(0, "old_items", "old_times"), new_events))
    )
    kept = joined.withColumn("events", both)
    last = F.slice("events", F.greatest(F.size("events") - length, F.lit(0)) + 1, length)
    new = kept.withColumn("events", last).select(
        "user", F.col("events.item").alias("item_ids"), F.col("events.time").alias("event_times")
    )
    workdir.check_lease()
    reach("write:user_histories:before")
    (
        DeltaTable.forPath(spark, workdir.table("user_histories"))
        .alias("old")
        .merge(new.alias("new"), "old.user = new.user")
        .whenMatchedUpdateAll()
        .whenNotMatchedInsertAll()
        .execute()
    )
    reach("write:user_histories:after")
