"""The ``seen_items`` table: what users met beside their kept events, however little they liked it."""

from __future__ import annotations

from collections.abc import Iterable

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.stages.ingest.row_rules import FILTER_REASONS
from pipelines.storage.workdir import Workdir

SEEN_REASONS = tuple(reason for reason in FILTER_REASONS if reason != "outside_interval")
"""Filter reasons of rows that show that a user has seen an item."""


def write_seen_items(
    spark: SparkSession, workdir: Workdir, rows: Iterable[DataFrame], label: str, *, is_whole: bool
) -> None:
    """Replace the distinct pairs of an interval's filtered rows, or all of the table.

    Args:
        spark: the session.
        workdir: the work folder.
        rows: frames of user, item (key) and status, of which those with a status of :data:`SEEN_REASONS` count; none
            where no row was filtered.
        label: the interval.
        is_whole: whether the rows take the place of every interval's.
    """
    where = None if is_whole else f"source_interval = '{label}'"
    parts = [frame.where(F.col("status").isin(*SEEN_REASONS)).select("user", "item") for frame in rows]
    if not parts:
        if workdir.has_table(spark, "seen_items"):
            workdir.check_lease()
            DeltaTable.forPath(spark, workdir.table("seen_items")).delete(where)
        return
    pairs = parts[0]
    for part in parts[1:]:
        pairs = pairs.unionByName(part)
    distinct = pairs.repartition("user").distinct().sortWithinPartitions("user", "item")
    frame = distinct.select("user", F.col("item").alias("item_key"), F.lit(label).alias("source_interval"))
    workdir.write(frame, "seen_items", replace_where=where)


def seen_by_user(spark: SparkSession, workdir: Workdir) -> DataFrame:
    """Return user, seen (array<int>): the distinct ids of all items in a user's log, kept events or not.

    An item that never had a kept event has no id and can never be recommended.
    """
    seen = workdir.read(spark, "interactions").select("user", "item_id")
    if workdir.has_table(spark, "seen_items"):
        items = workdir.read(spark, "items").select("item_id", "item_key")
        others = workdir.read(spark, "seen_items").join(items, on="item_key", how="inner")
        seen = seen.unionByName(others.select("user", "item_id"))
    return seen.groupBy("user").agg(F.collect_set("item_id").alias("seen"))
