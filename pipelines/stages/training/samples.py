"""The training samples (x_i, y_i, w_i): padded histories, the positions whose state is x, later items as y, and their
weights.

This one table feeds the E-step, the scores s[v, c] and N_v. Arrays have fixed lengths and no nulls, as Petastorm's
batch reader needs. A user's events 0 … n-1 (oldest first) become

* R = min(max_rows, ceil(m / L)) rows, where m events may be targets; row r ends before event e_r, the e_r evenly spaced
  up to n-1, and its history is the up to L events before e_r;
* positions: up to P of the states since the previous row's end, spread evenly from a hashed start;
* targets: T of the events after the position (never the position's own or earlier ones), spread evenly from a hashed
  start, so that each later event is drawn with the same probability T / (number of later events) and none twice; all
  of them where T suffice.

Every draw is a hash of (seed, user, row, slot), so rows do not depend on partitions or retries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from dr_core.errors import DeepRetrievalError, GateRefused
from dr_core.learning.samples import SamplesConfig
from pipelines.datasets.paths import literal
from pipelines.spark.partitions import partition_keys
from pipelines.stages.ingest.catalogue import number_densely
from pipelines.stages.ingest.split import training_interactions, user_hash
from pipelines.storage.workdir import Workdir

PAD = -1
_GROUPS_MULTIPLE = 4


@dataclass(frozen=True)
class SamplesSummary:
    """What was written."""

    rows: int
    users: int
    positions: int
    """States x in all rows."""
    targets: int
    """Pairs (x, y) in all rows."""
    num_row_groups: int
    min_group_rows: int
    max_group_rows: int

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as plain data."""
        return asdict(self)


def samples(
    spark: SparkSession,
    workdir: Workdir,
    config: SamplesConfig,
    *,
    history_length: int,
    seed: int,
    labels: Sequence[str] | None = None,
    replay_share: float = 0.0,
    name: str = "samples",
) -> SamplesSummary:
    """Write ``tables/<name>`` (Parquet) from the interactions of users that are not held out.

    Columns: user string, row int, block int (hash of the user), history array<int> [L] (oldest first from the left,
    then -1), length int, positions array<int> [P] (ascending t: the state after history[0..t]; then -1), targets
    array<int> [P * T] (row-major; -1 pads), weights array<float> [P * T] (the target event's; 0 for pads),
    context_categorical array<int> [1] and context_numeric array<float> [1] (zeros; reserved for features of the
    user). Rows are ordered by (block, hash); file k holds the k-th of equal shares (sizes differ by one row at most).

    Args:
        spark: the session.
        workdir: the work folder, preprocessed.
        config: how to cut.
        history_length: L, items of history in a row; longer histories are cut into several rows.
        seed: seed of the draws and of the order of rows.
        labels: learn only the events that these intervals brought; what their users did before (of user_histories) is
            context. None: all events.
        replay_share: rows of other training users' histories to add, as a share of the rows learnt; they are marked
            ``is_replay`` and weigh 1 an event.
        name: folder below ``tables``.

    Raises:
        GateRefused: fewer rows than row groups, that is, no training user to speak of.
        InputError: the work folder has not been preprocessed.
    """
    histories = _learnt_histories(spark, workdir, config, labels)
    rows = sample_rows(histories, config, history_length=history_length, seed=seed)
    if labels is not None:
        rows = rows.withColumn("is_replay", F.lit(False))
        if replay_share > 0:
            replayed = _replayed_histories(spark, workdir, labels, replay_share, seed)
            rows = rows.unionByName(
                sample_rows(replayed, config, history_length=history_length, seed=seed).withColumn(
                    "is_replay", F.lit(True)
                )
            )
    rows = rows.persist(StorageLevel.MEMORY_AND_DISK)
    try:
        totals = rows.agg(
            F.count(F.lit(1)).alias("rows"),
            F.count_distinct("user").alias("users"),
            F.coalesce(F.sum(_num_filled("positions")), F.lit(0)).alias("positions"),
            F.coalesce(F.sum(_num_filled("targets")), F.lit(0)).alias("targets"),
        ).first()
        if totals is None or totals["rows"] < _GROUPS_MULTIPLE:
            raise GateRefused(
                f"only {totals['rows'] if totals else 0} training rows in {workdir.uri}: too few users have two events"
                " or more; lower preprocess.min_events or hold out fewer users"
            )
        num_groups = _GROUPS_MULTIPLE * -(-totals["rows"] // (_GROUPS_MULTIPLE * config.rows_per_group))
        group_rows = write_row_groups(spark, workdir, name, rows, totals["rows"], num_groups, seed)
    finally:
        rows.unpersist()
    return SamplesSummary(
        rows=totals["rows"],
        users=totals["users"],
        positions=totals["positions"],
        targets=totals["targets"],
        num_row_groups=num_groups,
        min_group_rows=min(group_rows),
        max_group_rows=max(group_rows),
    )


def sample_rows(histories: DataFrame, config: SamplesConfig, *, history_length: int, seed: int) -> DataFrame:
    """Cut histories into rows of the samples table (see :func:`samples` for the columns).

    Args:
        histories: user, items array<int>, weights array<float> (oldest first), first_target int (index of the first
            event that may be a target, at least 1).
        config: how to cut.
        history_length: L.
        seed: seed of the draws.
    """
    length, num_positions, num_targets = history_length, config.positions, config.targets
    n, first_target = F.size("items"), F.col("first_target")
    learnable = n - first_target
    num_rows = F.least(F.lit(config.max_rows), F.ceil(learnable / F.lit(length))).cast("int")
    base = first_target - 1

    def end_of(row: Column) -> Column:
        return (base + F.floor(learnable * row / F.col("num_rows"))).cast("int")

    row = F.col("row")
    rows = (
        histories.where(learnable > 0)
        .withColumn("num_rows", num_rows)
        .withColumn("row", F.explode(F.sequence(F.lit(0), F.col("num_rows") - 1)))
        .withColumn("end", end_of(row + 1))
        .withColumn("begin", F.greatest(F.col("end") - length, F.lit(0)))
        .withColumn("first_state", F.greatest(F.col("begin"), end_of(row)))
    )

    def draw(kind: str, *slots: Column) -> Column:
        return F.xxhash64(F.lit(seed).cast("bigint"), F.lit(kind), F.col("user"), row, *slots)

    num_states = F.col("end") - F.col("first_state")
    states = F.transform(
        _spread(num_states, num_positions, draw("position")), lambda offset: F.col("first_state") + offset
    )
    rows = rows.withColumn("states", states)

    def later_events(state: Column) -> Column:
        num_later = n - 1 - state
        if config.target_mode == "next":
            offsets = F.sequence(F.lit(0), F.least(num_later, F.lit(num_targets)) - 1)
        else:
            offsets = _spread(num_later, num_targets, draw("target", state))
        chosen = F.transform(offsets, lambda offset: (state + 1 + offset).cast("int"))
        return _padded(chosen, num_targets, F.lit(PAD))

    rows = rows.withColumn(
        "events", _padded(F.flatten(F.transform("states", later_events)), num_positions * num_targets, F.lit(PAD))
    )
    return rows.select(
        "user",
        row.cast("int").alias("row"),
        F.pmod(F.xxhash64("user"), F.lit(config.num_blocks)).cast("int").alias("block"),
        _padded(F.slice("items", F.col("begin") + 1, F.col("end") - F.col("begin")), length, F.lit(PAD)).alias(
            "history"
        ),
        (F.col("end") - F.col("begin")).cast("int").alias("length"),
        _padded(
            F.transform("states", lambda state: (state - F.col("begin")).cast("int")), num_positions, F.lit(PAD)
        ).alias("positions"),
        F.transform("events", lambda event: F.when(event < 0, F.lit(PAD)).otherwise(F.get("items", event))).alias(
            "targets"
        ),
        F.transform(
            "events", lambda event: F.when(event < 0, F.lit(0.0).cast("float")).otherwise(F.get("weights", event))
        ).alias("weights"),
        F.array(F.lit(0)).alias("context_categorical"),
        F.array(F.lit(0.0).cast("float")).alias("context_numeric"),
    )


def _spread(available: Column, wanted: int, hashed: Column) -> Column:
    """Return up to ``wanted`` distinct ascending offsets below ``available``, each offset equally likely (systematic
    sampling).

    With a start h uniform in [0, available), offset k is (k * available + h) // wanted: consecutive ones are at least
    one apart when available >= wanted, and over all h every offset comes up exactly ``wanted`` times. All offsets when
    available < wanted.
    """
    start = F.pmod(hashed, available)
    slots = F.sequence(F.lit(0), F.least(available, F.lit(wanted)) - 1)
    drawn = F.transform(slots, lambda slot: F.floor((slot * available + start) / F.lit(wanted)).cast("int"))
    return F.when(available <= wanted, slots).otherwise(drawn)


def _padded(array: Column, length: int, filler: Column) -> Column:
    return F.slice(F.concat(array, F.array_repeat(filler, length)), 1, length)


def _num_filled(name: str) -> Column:
    return F.size(F.filter(name, lambda value: value >= 0))


def _learnt_histories(
    spark: SparkSession, workdir: Workdir, config: SamplesConfig, labels: Sequence[str] | None
) -> DataFrame:
    """Return user, items, weights and first_target of the users to learn from, each in order of time."""
    events = training_interactions(spark, workdir)
    if labels is not None:
        events = events.where(F.col("source_interval").isin(*labels))
    newest_first = Window.partitionBy("user").orderBy(F.desc("event_time"), F.desc("event_order"))
    learnt = (
        events.withColumn("age", F.row_number().over(newest_first))
        .where(F.col("age") <= config.max_events)
        .groupBy("user")
        .agg(F.sort_array(F.collect_list(F.struct("event_time", "event_order", "item_id", "weight"))).alias("events"))
        .select(
            "user",
            F.col("events.item_id").alias("items"),
            F.col("events.weight").alias("weights"),
            F.get("events.event_time", F.lit(0)).alias("first_time"),
        )
    )
    if labels is None:
        return learnt.select("user", "items", "weights", F.lit(1).alias("first_target"))
    return _with_context(learnt, workdir.read(spark, "user_histories"))


def _with_context(learnt: DataFrame, histories: DataFrame) -> DataFrame:
    """Put what users did before their first learnt event (their kept histories) in front of it."""
    known = histories.select("user", F.arrays_zip("item_ids", "event_times").alias("known"))
    joined = learnt.join(known, on="user", how="left")
    before = F.filter("known", lambda event: event["event_times"] < F.col("first_time"))
    old_items = F.coalesce(F.transform(before, lambda event: event["item_ids"]), F.slice("items", 1, 0))
    old_weights = F.transform(old_items, lambda _: F.lit(0.0).cast("float"))
    joined = joined.withColumn("old_items", old_items).withColumn("old_weights", old_weights)
    return joined.select(
        "user",
        F.concat("old_items", "items").alias("items"),
        F.concat("old_weights", "weights").alias("weights"),
        F.greatest(F.size("old_items"), F.lit(1)).alias("first_target"),
    )


def _replayed_histories(
    spark: SparkSession, workdir: Workdir, labels: Sequence[str], share: float, seed: int
) -> DataFrame:
    """Return kept histories of training users who have no learnt event, drawn by hash: ``share`` times as many users as
    are learnt."""
    held_out = workdir.read(spark, "evaluation_users").select("user")
    events = workdir.read(spark, "interactions").where(F.col("source_interval").isin(*labels))
    learnt = events.select("user").distinct()
    histories = workdir.read(spark, "user_histories")
    wanted = share * learnt.count() / max(histories.count(), 1)
    drawn = F.pmod(F.xxhash64(F.lit(seed), F.lit("replay"), "user"), F.lit(1 << 20)) < F.lit(int(wanted * (1 << 20)))
    return (
        histories.where(drawn & (F.size("item_ids") >= 2))
        .join(held_out, on="user", how="left_anti")
        .join(learnt, on="user", how="left_anti")
        .select(
            "user",
            F.col("item_ids").alias("items"),
            F.transform("item_ids", lambda _: F.lit(1.0).cast("float")).alias("weights"),
            F.lit(1).alias("first_target"),
        )
    )


def write_row_groups(
    spark: SparkSession, workdir: Workdir, name: str, rows: DataFrame, num_rows: int, num_groups: int, seed: int
) -> list[int]:
    """Write row k of the (block, hash) order to file k * num_groups // num_rows of ``tables/<name>``; return the files' row counts."""
    uri = workdir.table(name)
    workdir.check_lease()
    ordered = rows.withColumn("key", F.struct("block", user_hash(seed).alias("hash"), "user", "row"))
    keys = F.broadcast(partition_keys(spark, num_groups).withColumnRenamed("partition", "group"))
    with number_densely(ordered, "key", "rank", first_id=0) as numbered:
        (
            numbered.rows.withColumn("group", F.floor(F.col("rank") * num_groups / num_rows).cast("int"))
            .join(keys, on="group", how="inner")
            .repartition(num_groups, "partition_key")
            .sortWithinPartitions("rank")
            .select(*rows.columns)
            .write.mode("overwrite")
            .option("parquet.block.size", str(1 << 30))
            .parquet(uri)
        )
    counts = spark.read.parquet(literal(uri)).groupBy(F.col("_metadata.file_path")).count().collect()
    if len(counts) != num_groups or sum(row["count"] for row in counts) != num_rows:
        raise DeepRetrievalError(f"{uri} has {len(counts)} files, not {num_groups}, or not {num_rows} rows")
    return [row["count"] for row in counts]
