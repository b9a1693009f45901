"""The ``items`` table: dense, append-only integer ids for item keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from delta.tables import DeltaTable
from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from dr_core.errors import InputError
from pipelines.datasets.rawframe import FILE_ORDER
from pipelines.storage.schemas import SCHEMAS
from pipelines.storage.workdir import Workdir, small_frame

_DETAILS = ("title", "category", "creator")
_FEWEST_TO_TELL = 20


def clean_catalogue(raw: DataFrame) -> tuple[DataFrame, DataFrame]:
    """Split a raw catalogue into one row an item (the first in file order) and the rows that cannot be used.

    Returns:
        item, title, category, creator, active, first_seen; and reason (``catalogue_undecodable_text``,
        ``catalogue_malformed_row``, ``catalogue_null_item``, ``catalogue_inexact_id``, ``catalogue_unknown_active``,
        ``catalogue_duplicate_item``), row as JSON, source_file.
    """
    position = F.struct(*FILE_ORDER)
    reason = (
        F.when(F.col("is_undecodable"), F.lit("catalogue_undecodable_text"))
        .when(F.col("is_malformed"), F.lit("catalogue_malformed_row"))
        .when(F.col("item").isNull(), F.lit("catalogue_null_item"))
        .when(F.col("is_inexact"), F.lit("catalogue_inexact_id"))
        .when(F.col("active").isNull() & F.col("raw_active").isNotNull(), F.lit("catalogue_unknown_active"))
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


@dataclass(frozen=True)
class CatalogueMatch:
    """How far log and catalogue speak of the same items.

    Attributes:
        log_items: items with a kept event.
        known: of these, how many the catalogue lists.
        catalogue_items: items that the catalogue lists.
        found: of these, how many have a kept event or are in the ``items`` table.
    """

    log_items: int
    known: int
    catalogue_items: int
    found: int

    @property
    def share(self) -> float:
        """Share of the log's items that the catalogue lists."""
        return self.known / max(self.log_items, 1)

    def is_mismatch(self, min_share: float) -> bool:
        """Tell whether (almost) none of either side's items is one of the other's, with enough of them to tell."""
        has_enough = min(self.log_items, self.catalogue_items) >= _FEWEST_TO_TELL
        return has_enough and max(self.share, self.found / max(self.catalogue_items, 1)) < min_share


def match_catalogue(
    spark: SparkSession, workdir: Workdir, kept: DataFrame, catalogue: DataFrame, path: str, min_share: float
) -> CatalogueMatch:
    """Count the items that a log's kept events and a clean catalogue have in common.

    Raises:
        InputError: (almost) none, with some keys of both.
    """
    logged = kept.select("item").distinct().withColumn("is_logged", F.lit(True))
    listed = catalogue.select("item", F.lit(True).alias("is_listed"))
    both = logged.join(listed, on="item", how="full_outer").withColumn("is_old", F.col("is_logged"))
    if workdir.has_table(spark, "items"):
        old = workdir.read(spark, "items").select(F.col("item_key").alias("item"), F.lit(True).alias("is_old"))
        both = both.drop("is_old").join(old, on="item", how="left")
    is_logged, is_listed = F.col("is_logged").isNotNull(), F.col("is_listed").isNotNull()
    counts = both.agg(
        F.count_if(is_logged),
        F.count_if(is_logged & is_listed),
        F.count_if(is_listed),
        F.count_if(is_listed & (is_logged | F.col("is_old").isNotNull())),
    ).first()
    match = CatalogueMatch(*(counts or ()))
    if match.is_mismatch(min_share):
        in_log, in_catalogue = (
            ", ".join(f"'{row[0]}'" for row in side.select("item").orderBy("item").limit(3).collect())
            for side in (logged, listed)
        )
        raise InputError(
            f"the catalogue {path} knows {match.known} of the log's {match.log_items} items: the log has items such as"
            f" {in_log}, the catalogue {in_catalogue}; map the columns that hold the same ids (dataset.columns.item,"
            " dataset.catalogue_columns.item), write them alike (leading zeros need text), or set"
            " preprocess.min_catalogue_share=0 if that is right"
        )
    return match


def update_items(spark: SparkSession, workdir: Workdir, kept: DataFrame, catalogue: DataFrame | None) -> int:
    """Give ids to new items and take over what the catalogue says of old ones.

    New keys (with a kept event, or in the catalogue) are sorted and numbered from the first free id; ids never
    change. An old item that the catalogue does not list stays as it is. Nothing is written when nothing is new.

    Args:
        spark: the session.
        workdir: the work folder.
        kept: kept events: item (key), event_time.
        catalogue: a clean catalogue, or None.

    Returns:
        V, the rows of the table.
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
        with number_densely(known.withColumnRenamed("item", "item_key"), "item_key", "item_id", first_id=0) as numbered:
            workdir.write(numbered.rows.select(*SCHEMAS["items"]), "items")
        return numbered.end
    items = workdir.read(spark, "items")
    first_id = items.agg(F.coalesce(F.max("item_id"), F.lit(-1))).first()[0] + 1  # type: ignore[index]
    new = known.withColumnRenamed("item", "item_key").join(items.select("item_key"), on="item_key", how="left_anti")
    with number_densely(new, "item_key", "item_id", first_id=first_id) as numbered:
        if numbered.end > first_id:
            columns = (numbered.rows[name].cast(kind).alias(name) for name, kind in SCHEMAS["items"].items())
            workdir.append(numbered.rows.select(*columns), "items")
    if catalogue is not None:
        _merge_catalogue(spark, workdir, catalogue)
    return numbered.end


class Numbered(NamedTuple):
    """Rows with dense numbers."""

    rows: DataFrame
    end: int
    """The first number that is free."""


@contextmanager
def number_densely(frame: DataFrame, key: str, name: str, *, first_id: int) -> Iterator[Numbered]:
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
        rows = numbered.join(F.broadcast(offset), on=partition == F.col("__partition"), how="inner").select(
            *frame.columns, (F.col("__offset") + F.col("__position").bitwiseAND(F.lit((1 << 33) - 1))).alias(name)
        )
        yield Numbered(rows, first_id)
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
