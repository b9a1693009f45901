"""Row rules: which raw rows are quarantined, which are filtered, and what a kept event is.

A row's fate is decided once, in this order: what a row shows on its own (quarantined because it is bad, then filtered
because it is not wanted), then what only its user's other rows show (a duplicate, a repeated pair, too few events),
else it is kept. Rows settled by the first part are never shuffled.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from dr_core.config import Config
from pipelines.datasets.rawframe import FILE_ORDER
from pipelines.stages.ingest.interval import Interval, as_utc

MEASURES = Literal["rating", "label", "weight"]
FILTER_REASONS = ("outside_interval", "not_positive", "redelivered", "repeated_pair", "too_few_events")
AFTER = timedelta(days=1)
"""How far after its interval an event is taken for one of a day that was cut at another midnight."""
_EVENT_ORDER = ("event_time", "event_order", *FILE_ORDER)


class AllEvents(Config):
    """Every valid row is a positive."""

    kind: Literal["all"] = "all"
    """Name of the rule."""


class Threshold(Config):
    """Rows whose number reaches a threshold are positives."""

    kind: Literal["threshold"]
    """Name of the rule."""
    column: MEASURES = "rating"
    """Which mapped column of the log to compare."""
    at_least: float
    """Smallest value of a positive, in the column's own unit (stars, seconds)."""


class Flag(Config):
    """Rows whose flag is set (true, yes, 1) are positives. Any other number or word than a yes or a no is
    quarantined: stars and counts need a threshold."""

    kind: Literal["flag"]
    """Name of the rule."""
    column: MEASURES = "label"
    """Which mapped column of the log holds the flag."""


class ConstantWeight(Config):
    """Every event weighs the same."""

    kind: Literal["constant"] = "constant"
    """Name of the rule."""
    value: float = Field(default=1.0, gt=0)
    """Weight w of each event."""


class ColumnWeight(Config):
    """An event weighs what a column says, clipped."""

    kind: Literal["column"]
    """Name of the rule."""
    column: MEASURES = "weight"
    """Which mapped column of the log to take."""
    minimum: float = Field(default=0.0, ge=0)
    """Smaller values are raised to this, in the column's unit."""
    maximum: float = Field(default=1_000.0, gt=0)
    """Larger values are lowered to this, so that one event cannot outweigh a day."""


Positive = Annotated[AllEvents | Threshold | Flag, Field(discriminator="kind")]
Weight = Annotated[ConstantWeight | ColumnWeight, Field(discriminator="kind")]


class PreprocessConfig(Config):
    """What makes a row an event, and how much bad data is too much."""

    positive: Positive = AllEvents()
    """Which rows are positives; the others are filtered as ``not_positive``."""
    weight: Weight = ConstantWeight()
    """Training weight of an event."""
    min_events: int = Field(default=1, ge=1)
    """Users with fewer kept events are filtered when the work folder's first interval is ingested; later days keep
    every event, since a day is too short to judge a user by."""
    repeated_pairs: Literal["keep", "first", "last"] = "keep"
    """What remains of several events of one user with one item: all, the first, or the last."""
    duplicate_rows: Literal["quarantine", "keep"] = "quarantine"
    """What to do with a row that repeats another in every column; only logs with a time can tell."""
    max_quarantine_share: float = Field(default=0.05, ge=0, le=1)
    """Share of the rows that may be quarantined; above it the run is refused."""
    min_catalogue_share: float = Field(default=0.05, ge=0, le=1)
    """Share of the log's items that the catalogue must know, or of the catalogue's items that the log must know; below
    both, the two write their ids differently and the run is refused. Counts from 20 items on each side."""
    max_id_length: int = Field(default=256, ge=1)
    """Longest user or item id, in characters."""
    min_time: datetime | None = datetime(1990, 1, 1, tzinfo=UTC)
    """Events before it are quarantined as ``early_time``; catches a time of 0 for "none", and a ``time_unit`` that is
    too small. None: no bound."""
    max_time: datetime = datetime(2100, 1, 1, tzinfo=UTC)
    """Events at or after it are quarantined as ``future_time``, whatever the interval; catches a ``time_unit`` that is
    too large."""
    late_days: float = Field(default=3.0, ge=0)
    """Events up to this long before an interval are taken when they arrive with it (late events); those that are in the
    tables already are filtered as ``redelivered``; older ones are quarantined as ``too_late``, or, in a cumulative log,
    filtered as ``outside_interval``. Not for the first interval."""
    cumulative: bool = False
    """Whether the log given with an interval also holds other days, which are then filtered as ``outside_interval``."""
    partition_unit: Literal["day", "month", "year"] = "day"
    """Width of an ``event_date`` partition. Logs that span many years make thousands of small files with ``day``."""

    @model_validator(mode="after")
    def _check_times(self) -> PreprocessConfig:
        if self.min_time and as_utc(self.min_time) >= as_utc(self.max_time):
            raise ValueError(f"min_time {self.min_time} must lie before max_time {self.max_time}")
        return self


def own_status(
    config: PreprocessConfig, *, has_time: bool, has_order: bool, interval: Interval | None, is_first: bool
) -> Column:
    """Return what a raw row shows on its own: a quarantine reason, ``outside_interval``, ``not_positive``, or null (a
    candidate)."""
    event_time, user, item = F.col("event_time"), F.col("user"), F.col("item")
    end = as_utc(config.max_time)
    is_outside, is_too_late, is_after = F.lit(False), F.lit(False), F.lit(False)
    if interval is not None:
        earliest = interval.start if is_first else interval.start - timedelta(days=config.late_days)
        if config.cumulative or is_first:
            is_outside = event_time < F.lit(earliest)
        else:
            is_too_late = event_time < F.lit(earliest)
        if config.cumulative:
            is_outside = is_outside | (event_time >= F.lit(interval.end))
        else:
            end = min(end, interval.end + AFTER)
            is_after = event_time >= F.lit(interval.end)
    rules: list[tuple[str, Column]] = [
        ("undecodable_text", F.col("is_undecodable")),
        ("malformed_row", F.col("is_malformed")),
        ("null_user", user.isNull()),
        ("null_item", item.isNull()),
        ("inexact_id", F.col("is_inexact")),
        ("oversized_id", (F.length(user) > config.max_id_length) | (F.length(item) > config.max_id_length)),
    ]
    if has_time:
        rules += [
            ("null_time", F.col("raw_time").isNull()),
            ("unparsable_time", event_time.isNull()),
            ("negative_time", F.unix_micros(event_time) < 0),
            ("early_time", event_time < F.lit(as_utc(config.min_time)) if config.min_time else F.lit(False)),
            ("future_time", event_time >= F.lit(end)),
            ("after_interval", is_after),
            ("too_late", is_too_late),
        ]
    elif has_order:
        rules.append(("null_order", F.col("event_order").isNull()))
    if not isinstance(config.positive, AllEvents):
        column = config.positive.column
        is_invalid = _is_not_a_number(column)
        if isinstance(config.positive, Flag):
            is_invalid = is_invalid | ~F.col(column).isin(0, 1)
        rules.append((f"invalid_{column}", is_invalid))
    if isinstance(config.weight, ColumnWeight):
        rules.append(("invalid_weight", _is_not_a_number(config.weight.column)))
        rules.append(("negative_weight", F.col(config.weight.column) < 0))
    rules += [("outside_interval", is_outside), ("not_positive", ~_is_positive(config))]
    status = F.lit(None).cast("string")
    for name, applies in reversed(rules):
        status = F.when(applies, F.lit(name)).otherwise(status)
    return status


def event_weight(config: PreprocessConfig) -> Column:
    """Return the training weight of a row (float)."""
    rule = config.weight
    if isinstance(rule, ConstantWeight):
        return F.lit(rule.value).cast("float")
    clipped = F.least(F.greatest(F.col(rule.column), F.lit(rule.minimum)), F.lit(rule.maximum))
    return clipped.cast("float")


def _is_positive(config: PreprocessConfig) -> Column:
    rule = config.positive
    if isinstance(rule, Threshold):
        return F.col(rule.column) >= rule.at_least
    if isinstance(rule, Flag):
        return F.col(rule.column) == 1
    return F.lit(True)


def settle(candidates: DataFrame, config: PreprocessConfig, *, has_time: bool, is_first: bool) -> DataFrame:
    """Decide the fate of the rows that are candidates on their own.

    Args:
        candidates: raw rows whose :func:`own_status` is null.
        config: the rules.
        has_time: whether events have a time.
        is_first: whether ``min_events`` applies.

    Returns:
        One row a candidate: user, item, event_time, event_order (position among the user's kept events, from 0, by
        time, then order, then file order), weight, split, status (null = kept, ``duplicate_row``, ``repeated_pair`` or
        ``too_few_events``), row (JSON) and source_file (both of duplicates only). Hash-partitioned by user: every
        window below reuses that one shuffle.
    """
    finds_duplicates = has_time and config.duplicate_rows == "quarantine"
    row_hash = F.xxhash64("raw_row") if finds_duplicates else F.lit(None)
    rows = candidates.withColumn("row_hash", row_hash).drop("raw_row").repartition("user")
    status = F.lit(None).cast("string")
    if finds_duplicates:
        same_row = Window.partitionBy("user", "item", "row_hash").orderBy(*FILE_ORDER)
        status = F.when(F.row_number().over(same_row) > 1, F.lit("duplicate_row"))
    rows = rows.withColumn("status", status)
    is_open = F.col("status").isNull()
    if config.repeated_pairs != "keep":
        columns = [F.col(name) for name in _EVENT_ORDER]
        order = columns if config.repeated_pairs == "first" else [column.desc() for column in columns]
        same_pair = Window.partitionBy("user", "item", "status").orderBy(*order)
        is_repeated = is_open & (F.row_number().over(same_pair) > 1)
        rows = rows.withColumn("status", F.when(is_repeated, F.lit("repeated_pair")).otherwise(F.col("status")))
    same_user = Window.partitionBy("user", "status")
    rows = rows.withColumn("position", F.row_number().over(same_user.orderBy(*_EVENT_ORDER)) - 1)
    if is_first and config.min_events > 1:
        is_short = is_open & (F.count(F.lit(1)).over(same_user) < config.min_events)
        rows = rows.withColumn("status", F.when(is_short, F.lit("too_few_events")).otherwise(F.col("status")))
    as_json = F.to_json(
        F.struct("user", "item", "raw_time", "event_order", "rating", "label", "weight", "split"),
        {"ignoreNullFields": "false"},
    )
    return rows.select(
        "user",
        "item",
        "event_time",
        F.col("position").cast("bigint").alias("event_order"),
        event_weight(config).alias("weight"),
        "split",
        "status",
        F.when(F.col("status") == "duplicate_row", as_json).alias("row"),
        F.when(F.col("status") == "duplicate_row", F.col("source_file")).alias("source_file"),
    )


def _is_not_a_number(name: str) -> Column:
    column = F.col(name)
    return column.isNull() | F.isnan(column) | (F.abs(column) == float("inf"))
