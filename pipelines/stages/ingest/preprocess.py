"""From raw logs to clean tables: items, interactions, user histories, quarantine, and the users held out for
evaluation."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from delta.tables import DeltaTable
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dr_core.errors import ConfigError, DeepRetrievalError, InputError
from pipelines.datasets.interactions import DatasetConfig, read_catalogue, read_logs, resolve
from pipelines.datasets.paths import literal
from pipelines.datasets.rawframe import reading
from pipelines.stages.ingest.catalogue import clean_catalogue, match_catalogue, update_items
from pipelines.stages.ingest.gate import Evidence, after_interval, check_gate
from pipelines.stages.ingest.histories import extend_histories, rebuild_histories
from pipelines.stages.ingest.interval import Interval
from pipelines.stages.ingest.needs import all_needs_told
from pipelines.stages.ingest.reasons import REASONS
from pipelines.stages.ingest.row_rules import FILTER_REASONS, PreprocessConfig, own_status, settle
from pipelines.stages.ingest.seen import SEEN_REASONS, write_seen_items
from pipelines.stages.ingest.split import SplitConfig, draw_roles, evaluation_histories, extend_roles
from pipelines.storage.schemas import SCHEMAS
from pipelines.storage.workdir import Workdir, small_frame

logger = logging.getLogger(__name__)
WHOLE_LOG = "all"
SETTLED = ("raw", "settled")
"""Folder below W of the rows that an ingest is working on; one that was killed leaves it for the next to replace."""
__all__ = ["Interval", "PreprocessConfig", "PreprocessSummary", "SplitConfig", "preprocess"]


@dataclass(frozen=True)
class PreprocessSummary:
    """What became of the rows of one interval. ``rows_in`` = ``kept`` + ``quarantined`` + ``filtered``."""

    rows_in: int
    kept: int
    quarantined: int
    filtered: int
    reasons: dict[str, int] = field(default_factory=dict)
    """Rows by quarantine or filter reason."""
    catalogue_reasons: dict[str, int] = field(default_factory=dict)
    """Quarantined rows of the catalogue by reason; not part of the sum."""
    catalogue_known: int | None = None
    """Items with a kept event that the catalogue lists; None without a catalogue."""
    catalogue_known_share: float | None = None
    """The same as a share of ``items``."""
    warnings: list[str] = field(default_factory=list)
    """What was let pass and should be looked at, a sentence each."""
    users: int = 0
    """Users with a kept event in this interval."""
    items: int = 0
    """Items with a kept event in this interval."""
    catalogue_items: int = 0
    """Rows of the items table (V)."""
    train_users: int = 0
    """Users with a kept event that are not held out."""
    test_users: int = 0
    """Held-out users of each role with a kept event in this interval."""
    validation_users: int = 0
    unused_users: int = 0
    late: int = 0
    """Kept events older than the interval that brought them."""
    interval_start: str | None = None
    """First and end moment (ISO, end exclusive): the interval asked for, else that of the kept events; None without a
    time."""
    interval_end: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as plain data."""
        return asdict(self)


def preprocess(
    spark: SparkSession,
    workdir: Workdir,
    dataset_config: DatasetConfig,
    config: PreprocessConfig,
    split_config: SplitConfig,
    *,
    history_length: int,
    run_id: str,
    interval: Interval | None = None,
    logs: str | None = None,
    catalogue: str | None = None,
    seed: int = 0,
) -> PreprocessSummary:
    """Ingest a log into the work folder's tables.

    Without an interval the whole log replaces interactions, seen items, histories, quarantine and the split (item ids stay). With
    one, only the rows that came with that interval are replaced: doing it again changes nothing, doing it for a later
    interval adds a day. An event older than its interval is taken when it is late and new, and filtered when an earlier
    interval brought it (:class:`PreprocessConfig`). Held-out users are drawn with the interval that is ingested first;
    later, new users below the same hash thresholds join them. An interval that begins before the first adds its events
    and changes nobody's role. What became of every interval stands in the ``intervals`` table.

    Everything is checked before anything but the quarantine table is written.

    Args:
        spark: the session.
        workdir: the work folder.
        dataset_config: where the logs are and what their columns mean.
        config: what makes a row an event.
        split_config: the evaluation protocol.
        history_length: L, events that ``user_histories`` keeps of a user.
        run_id: the run, named in errors.
        interval: event times to ingest; None for the whole log.
        logs: overrides the configured path of the log.
        catalogue: overrides the configured path of the catalogue.
        seed: seed of the split.

    Returns:
        Counts; the tables items, interactions, seen_items, user_histories, quarantine, evaluation_users and
        evaluation_histories are written.

    Raises:
        InputError: the log is missing, empty, without order or lacks a column, an interval is asked of a log without a
            time, or the catalogue knows none of the log's items; nothing is written.
        ConfigError: more held-out users are asked for than there are.
        GateRefused: too many rows are bad or none is left; only the quarantine table is written.
        DeepRetrievalError: rows in, kept, quarantined and filtered do not add up.
    """
    dataset = resolve(dataset_config, logs=logs, catalogue=catalogue, scratch=workdir.path("raw"))
    with all_needs_told(dataset, config, split_config):
        raw = read_logs(spark, dataset)
    if interval is not None and not dataset.has_time:
        raise InputError(f"the log {dataset.path} has an order only, no time: it cannot be ingested by interval")
    state = _State.of(spark, workdir, interval)
    status = own_status(
        config,
        has_time=dataset.has_time,
        has_order=dataset.columns.order is not None,
        interval=interval,
        is_first=state.is_first,
    )
    examined = raw.withColumn("status", status)
    candidates = examined.where(F.col("status").isNull()).drop("status")
    settled = settle(candidates, config, has_time=dataset.has_time, is_first=state.is_first)
    if interval is not None and workdir.has_table(spark, "interactions"):
        settled = _mark_redelivered(spark, workdir, settled, interval, config)
    # Not persisted: Spark drops a cached frame when a Delta table that it was made of is written, as items and interactions
    # are below, and would read and settle the log anew for everything that comes after.
    scratch = workdir.path(*SETTLED)
    with reading(str(dataset.path), "log"):
        own_fates = _count_by_status(examined)
        settled.write.mode("overwrite").parquet(scratch)
    settled = spark.read.parquet(literal(scratch))
    kept = settled.where(F.col("status").isNull())
    users = (
        kept.groupBy("user")
        .agg(F.count(F.lit(1)).alias("num_events"), F.max(F.col("split").eqNullSafe(1)).alias("is_later"))
        .persist(StorageLevel.MEMORY_AND_DISK)
    )
    try:
        settled_fates = _count_by_status(settled)
        counts = _count(own_fates, settled_fates)
        warnings = _late_in_the_day(examined, counts, interval)
        raw_items = read_catalogue(spark, dataset)
        clean, bad_items = clean_catalogue(raw_items) if raw_items is not None else (None, None)
        match = None
        if clean is not None:
            match = match_catalogue(spark, workdir, kept, clean, str(dataset.catalogue), config.min_catalogue_share)
        bad_rows = [] if counts.quarantined == 0 else _bad_rows(examined, settled)
        catalogue_reasons = {}
        if bad_items is not None:
            catalogue_reasons = {row["reason"]: row["count"] for row in bad_items.groupBy("reason").count().collect()}
            bad_rows += [bad_items] if catalogue_reasons else []
        label = interval.label if interval else WHOLE_LOG
        _write_quarantine(spark, workdir, bad_rows, label, is_whole=interval is None)
        evidence = Evidence(examined, settled, dataset, config)
        check_gate(counts.reasons, counts.rows_in, counts.kept, evidence, run_id, after="".join(warnings))
        roles = _roles(spark, workdir, users, split_config, state, interval, seed)
        per_role = _count_roles(users, roles)
        update_items(spark, workdir, kept, clean)
        _write_interactions(spark, workdir, kept, config, label, interval)
        filtered = [
            rows for rows, fates in ((examined, own_fates), (settled, settled_fates)) if {*SEEN_REASONS} & {*fates}
        ]
        write_seen_items(spark, workdir, filtered, label, is_whole=interval is None)
        _write_split(spark, workdir, roles, split_config, state, interval)
        if interval is not None and state.is_latest:
            extend_histories(spark, workdir, label, history_length)
        else:
            rebuild_histories(spark, workdir, history_length)
        summary = _summarize(spark, workdir, counts, kept, per_role, interval, dataset.has_time)
        if unknown := catalogue_reasons.get("catalogue_unknown_active"):
            warnings.append(f"{unknown} rows of the catalogue are left out: {REASONS['catalogue_unknown_active']}")
        summary = replace(
            summary,
            catalogue_reasons=catalogue_reasons,
            catalogue_known=None if match is None else match.known,
            catalogue_known_share=None if match is None else match.share,
            warnings=warnings,
        )
        for warning in warnings:
            logger.warning("  %s", warning)
        _write_ledger(spark, workdir, summary, run_id, label, is_whole=interval is None, is_first=state.is_first)
        return summary
    finally:
        users.unpersist()
        workdir.filesystem.rm(scratch, recursive=True)


@dataclass(frozen=True)
class _State:
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
    def of(cls, spark: SparkSession, workdir: Workdir, interval: Interval | None) -> _State:
        if interval is None or not workdir.has_table(spark, "interactions"):
            return cls(is_first=True, is_older=False, is_latest=False, known_users=None)
        table = workdir.read(spark, "interactions")
        if not table.where(F.col("event_time").isNull()).isEmpty():
            raise InputError(f"{workdir.uri} was built from a log without times: it cannot be extended by interval")
        first = _first_interval(spark, workdir)
        if first is None or first[0] == interval.label:
            return cls(is_first=True, is_older=False, is_latest=False, known_users=None)
        is_latest = table.where(
            (F.col("event_time") >= F.lit(interval.start)) | (F.col("source_interval") == interval.label)
        ).isEmpty()
        extendable = is_latest and workdir.has_table(spark, "user_histories")
        others = table.where(F.col("source_interval") != interval.label)
        known = workdir.read(spark, "user_histories") if extendable else others
        return cls(
            is_first=False,
            is_older=interval.start < first[1],
            is_latest=extendable,
            known_users=known.select("user").distinct(),
        )


def _first_interval(spark: SparkSession, workdir: Workdir) -> tuple[str, datetime] | None:
    """Return label and start of the interval that was ingested first; None where none was ingested to its end.

    Rows of an older version do not say which it was: there it is the whole log, else the earliest.
    """
    if not workdir.has_table(spark, "intervals"):
        return None
    ledger = workdir.read(spark, "intervals").where("interval_start IS NOT NULL")
    marked = F.col("is_first") if "is_first" in ledger.columns else F.lit(None).cast("boolean")
    row = ledger.orderBy(
        F.coalesce(marked, F.lit(False)).desc(),
        (F.col("source_interval") == WHOLE_LOG).desc(),
        "interval_start",
    ).select("source_interval", F.unix_seconds("interval_start").alias("start")).first()  # fmt: skip
    return row and (row["source_interval"], datetime.fromtimestamp(row["start"], UTC))


@dataclass(frozen=True)
class _Counts:
    rows_in: int
    kept: int
    reasons: dict[str, int]

    @property
    def quarantined(self) -> int:
        return sum(count for reason, count in self.reasons.items() if reason not in FILTER_REASONS)

    @property
    def filtered(self) -> int:
        return sum(count for reason, count in self.reasons.items() if reason in FILTER_REASONS)


def _count_by_status(rows: DataFrame) -> dict[str | None, int]:
    return {row["status"]: row["count"] for row in rows.groupBy("status").count().collect()}


def _count(own: dict[str | None, int], settled: dict[str | None, int]) -> _Counts:
    """Count rows by their fate; candidates among the rows read and rows settled are counted apart and must agree."""
    by_own = {status: count for status, count in own.items() if status is not None}
    by_status = {status: count for status, count in settled.items() if status is not None}
    num_candidates, num_settled = own.get(None, 0), sum(settled.values())
    if num_candidates != num_settled:
        raise DeepRetrievalError(
            f"{num_candidates} rows are candidates, but {num_settled} were settled: did the log change meanwhile?"
        )
    kept = settled.get(None, 0)
    counts = _Counts(rows_in=num_candidates + sum(by_own.values()), kept=kept, reasons=by_own | by_status)
    if counts.rows_in != counts.kept + counts.quarantined + counts.filtered:
        raise DeepRetrievalError(f"rows in do not equal kept + quarantined + filtered: {counts}")
    return counts


def _late_in_the_day(examined: DataFrame, counts: _Counts, interval: Interval | None) -> list[str]:
    """Return what is to be said of events within a day after the interval's end."""
    count = counts.reasons.get("after_interval", 0)
    if interval is None or count == 0:
        return []
    of_them = examined.where(F.col("status") == "after_interval")
    last = of_them.agg(F.unix_seconds(F.max("event_time"))).first()
    return [after_interval(count, datetime.fromtimestamp(last[0], UTC), interval)] if last else []


def _bad_rows(examined: DataFrame, settled: DataFrame) -> list[DataFrame]:
    """Return the quarantined rows of the log: reason, row (JSON), source_file, and user as far as the row tells."""
    as_json = F.to_json("raw_row", {"ignoreNullFields": "false"})
    bad = examined.where(F.col("status").isNotNull() & ~F.col("status").isin(*FILTER_REASONS))
    duplicates = settled.where(F.col("status") == "duplicate_row")
    return [
        bad.select(F.col("status").alias("reason"), as_json.alias("row"), "source_file", "user"),
        duplicates.select(F.col("status").alias("reason"), "row", "source_file", "user"),
    ]


def _write_quarantine(
    spark: SparkSession, workdir: Workdir, bad_rows: list[DataFrame], label: str, *, is_whole: bool
) -> None:
    """Replace the quarantined rows of this interval, or all of them; rows of a catalogue have no user."""
    where = None if is_whole else f"source_interval = '{label}'"
    if not bad_rows and workdir.has_table(spark, "quarantine"):
        workdir.check_lease()
        DeltaTable.forPath(spark, workdir.table("quarantine")).delete(where)
        return
    rows = small_frame(spark, [], dict.fromkeys(("reason", "row", "source_file", "user"), "string"))
    for part in bad_rows:
        rows = rows.unionByName(part, allowMissingColumns=True)
    frame = rows.select("reason", "row", "source_file", F.lit(label).alias("source_interval"), "user")
    workdir.write(frame, "quarantine", replace_where=where)


def _write_interactions(
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


def _mark_redelivered(
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


def _write_ledger(
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


def _roles(
    spark: SparkSession,
    workdir: Workdir,
    users: DataFrame,
    config: SplitConfig,
    state: _State,
    interval: Interval | None,
    seed: int,
) -> DataFrame:
    """Return user, role of the held-out users: those so far, and those that this interval brings.

    Raises:
        ConfigError: fewer users than asked for can be held out.
    """
    has_roles = interval is not None and workdir.has_table(spark, "evaluation_users")
    old = workdir.read(spark, "evaluation_users") if has_roles else None
    if state.known_users is None or old is None:
        roles = draw_roles(users, config, seed=seed)
        if old is not None:
            roles = roles.unionByName(old.join(users.select("user"), on="user", how="left_anti"))
        return roles
    if state.is_older:
        return old
    new = users.join(state.known_users, on="user", how="left_anti").join(old.select("user"), on="user", how="left_anti")
    return old.unionByName(extend_roles(new, old, config, seed=seed))


def _count_roles(users: DataFrame, roles: DataFrame) -> dict[str, int]:
    """Return the users of the interval by role, ``train`` being those that have none.

    Raises:
        ConfigError: nobody is left to train on.
    """
    joined = users.join(F.broadcast(roles), on="user", how="left").groupBy("role").count()
    per_role = {row["role"] or "train": row["count"] for row in joined.collect()}
    if not per_role.get("train"):
        raise ConfigError("every user is held out (split.num_test, split.num_validation): none is left to train on")
    return per_role


def _write_split(
    spark: SparkSession,
    workdir: Workdir,
    roles: DataFrame,
    config: SplitConfig,
    state: _State,
    interval: Interval | None,
) -> None:
    """Write the held-out users; with the first interval, cut their events into question and answer."""
    if state.is_older:
        return
    workdir.write(roles.select(*SCHEMAS["evaluation_users"]), "evaluation_users")
    if not state.is_first:
        return
    roles = workdir.read(spark, "evaluation_users")
    events = workdir.read(spark, "interactions")
    if interval is not None:
        events = events.where(F.col("source_interval") == interval.label)
    workdir.write(evaluation_histories(events, roles, config), "evaluation_histories")


def _summarize(
    spark: SparkSession,
    workdir: Workdir,
    counts: _Counts,
    kept: DataFrame,
    per_role: dict[str, int],
    interval: Interval | None,
    has_time: bool,
) -> PreprocessSummary:
    totals = kept.agg(
        F.count_distinct("item").alias("items"),
        F.unix_seconds(F.min("event_time")).alias("first"),
        F.unix_seconds(F.max("event_time")).alias("last"),
        F.count_if(F.col("event_time") < F.lit(interval.start) if interval else F.lit(False)).alias("late"),
    ).first()
    if totals is None:
        raise DeepRetrievalError("an aggregate returned no row")
    span = interval
    if span is None and has_time:
        span = Interval(*(datetime.fromtimestamp(second, UTC) for second in (totals["first"], totals["last"] + 1)))
    start, end = span.label.split("/") if span else (None, None)
    return PreprocessSummary(
        rows_in=counts.rows_in,
        kept=counts.kept,
        quarantined=counts.quarantined,
        filtered=counts.filtered,
        reasons=counts.reasons,
        users=sum(per_role.values()),
        items=totals["items"],
        late=totals["late"],
        catalogue_items=workdir.read(spark, "items").count(),
        train_users=per_role["train"],
        test_users=per_role.get("test", 0),
        validation_users=per_role.get("validation", 0),
        unused_users=per_role.get("unused", 0),
        interval_start=start,
        interval_end=end,
    )
