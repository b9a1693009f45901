"""The ``items`` table: dense, append-only integer ids for item keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from delta.tables import DeltaTable
from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.datasets.rawframe import FILE_ORDER
from pipelines.storage.schemas import SCHEMAS
from pipelines.storage.workdir import Workdir, small_frame

_DETAILS = ("title", "category", "creator")


def clean_catalogue(raw: DataFrame) -> tuple[DataFrame, DataFrame]:
    """Split a raw catalogue into one row an item (the first in file order) and the rows that cannot be used.

    Returns:
        item, title, category, creator, active, first_seen; and reason (``catalogue_null_item``,
        ``catalogue_malformed_row``, ``catalogue_undecodable_text``, ``catalogue_duplicate_item``), row as JSON, source_file.
    """
    position = F.struct(*FILE_ORDER)
    is_nameless = F.col("item").isNull() | (F.trim("item") == "")
    reason = (
        F.when(F.col("is_undecodable"), F.lit("catalogue_undecodable_text"))
        .when(F.col("is_malformed"), F.lit("catalogue_malformed_row"))
        .when(is_nameless, F.lit("catalogue_null_item"))
    )
    rows = raw.withColumn("position", position).withColumn("reason", reason)
    usable = rows.where(F.col("reason").isNull())
    first = usable.groupBy("item").agg(F.min("position").alias("position"))
    items = usable.join(first, on=["item", "position"], how="left_semi")
    repeats = usable.join(first, on=["item", "position"], how="left_anti").withColumn(
        "reason", F.lit("catalogue_duplicate_item")
    )
    bad = rows.where(F.col("reason").isNotNull()).unionByName(repeats)
    as_json = F.to_json("raw_row", {"ignoreNullFields": "false"})
    return (
        items.select("item", *_DETAILS, "active", "first_seen"),
        bad.select("reason", as_json.alias("row"), "source_file"),
    )


def update_items(spark: SparkSession, workdir: Workdir, kept: DataFrame, catalogue: DataFrame | None) -> None:
    """Give ids to new items and take over what the catalogue says of old ones.

    New keys (with a kept event, or in the catalogue) are sorted and numbered from the first free id; ids never
    change. An old item that the catalogue does not list stays as it is. Nothing is written when nothing is new.

    Args:
        spark: the session.
        workdir: the work folder.
        kept: kept events: item (key), event_time.
        catalogue: a clean catalogue, or None.
    """
    seen = kept.groupBy("item").agg(F.min("event_time").alias("first_event"))
    if catalogue is None:
        known = seen.select(
            "item", *(F.lit(None).cast("string").alias(name) for name in _DETAILS), F.lit(True).alias("active"),
            F.col("first_event").alias("first_seen"),
        )  # fmt: skip
    else:
        known = seen.join(catalogue, on="item", how="full_outer").select(
            "item",
            *_DETAILS,
            F.coalesce("active", F.lit(True)).alias("active"),
            F.coalesce("first_seen", "first_event").alias("first_seen"),
        )
    if not workdir.has_table(spark, "items"):
        with number_densely(known.withColumnRenamed("item", "item_key"), "item_key", "item_id", first_id=0) as rows:
            workdir.write(rows.select(*SCHEMAS["items"]), "items")
        return
    items = workdir.read(spark, "items")
    first_id = items.agg(F.coalesce(F.max("item_id"), F.lit(-1))).first()[0] + 1  # type: ignore[index]
    new = known.withColumnRenamed("item", "item_key").join(items.select("item_key"), on="item_key", how="left_anti")
    if not new.isEmpty():
        with number_densely(new, "item_key", "item_id", first_id=first_id) as rows:
            columns = (rows[name].cast(kind).alias(name) for name, kind in SCHEMAS["items"].items())
            workdir.append(rows.select(*columns), "items")
    if catalogue is not None:
        _merge_catalogue(spark, workdir, catalogue)


@contextmanager
def number_densely(frame: DataFrame, key: str, name: str, *, first_id: int) -> Iterator[DataFrame]:
    """Number rows first_id, first_id + 1 … in the order of a unique key, without bringing them to one place.

    The rows are range-sorted; each partition's count gives the next one's offset. The sorted frame is persisted while
    the context lasts, so that partition bounds (found by sampling) cannot change between the count and the numbering.
    """
    numbered = (
        frame.orderBy(key)
        .withColumn("__position", F.monotonically_increasing_id())
        .persist(StorageLevel.MEMORY_AND_DISK)
    )
    partition = F.shiftright("__position", 33)
    try:
        offsets: list[tuple[int, int]] = []
        for row in sorted(numbered.groupBy(partition.alias("partition")).count().collect()):
            offsets.append((row["partition"], first_id))
            first_id += row["count"]
        offset = small_frame(frame.sparkSession, offsets, {"__partition": "bigint", "__offset": "bigint"})
        yield numbered.join(F.broadcast(offset), on=partition == F.col("__partition"), how="inner").select(
            *frame.columns, (F.col("__offset") + F.col("__position").bitwiseAND(F.lit((1 << 33) - 1))).alias(name)
        )
    finally:
        numbered.unpersist()


def _merge_catalogue(spark: SparkSession, workdir: Workdir, catalogue: DataFrame) -> None:
    table = DeltaTable.forPath(spark, workdir.table("items"))
    names = (*_DETAILS, "active")
    update: dict[str, str | Column] = {name: F.coalesce(F.col(f"new.{name}"), F.col(f"old.{name}")) for name in names}
    is_changed = F.lit(False)
    for name in names:
        is_changed = is_changed | ~F.col(f"old.{name}").eqNullSafe(update[name])
    workdir.check_lease()
    (
        table.alias("old")
        .merge(catalogue.alias("new"), "old.item_key = new.item")
        .whenMatchedUpdate(condition=is_changed, set=update)
        .execute()
    )
