"""From raw logs to clean tables: items, interactions, user histories, quarantine, and the users held out for
evaluation."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dr_core.errors import DeepRetrievalError, InputError
from pipelines.datasets.interactions import DatasetConfig, read_catalogue, read_logs, resolve
from pipelines.datasets.paths import literal
from pipelines.datasets.rawframe import reading
from pipelines.stages.ingest.catalogue import clean_catalogue, match_catalogue, update_items
from pipelines.stages.ingest.events import mark_redelivered, write_interactions
from pipelines.stages.ingest.gate import Evidence, after_interval, check_gate
from pipelines.stages.ingest.histories import extend_histories, rebuild_histories
from pipelines.stages.ingest.interval import Interval
from pipelines.stages.ingest.ledger import WHOLE_LOG, write_ledger
from pipelines.stages.ingest.needs import all_needs_told
from pipelines.stages.ingest.quarantine import bad_rows, write_quarantine
from pipelines.stages.ingest.reasons import REASONS
from pipelines.stages.ingest.roles import count_roles, held_out_roles, write_split
from pipelines.stages.ingest.row_rules import PreprocessConfig, own_status, settle
from pipelines.stages.ingest.seen import SEEN_REASONS, write_seen_items
from pipelines.stages.ingest.split import SplitConfig
from pipelines.stages.ingest.state import IngestState
from pipelines.stages.ingest.summary import Counts, PreprocessSummary, add_up, count_by_status
from pipelines.storage.workdir import Workdir

logger = logging.getLogger(__name__)
SETTLED = ("raw", "settled")
"""Folder below W of the rows that an ingest is working on; one that was killed leaves it for the next to replace."""


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
    state = IngestState.of(spark, workdir, interval)
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
        settled = mark_redelivered(spark, workdir, settled, interval, config)
    # Not persisted: Spark drops a cached frame when a Delta table that it was made of is written, as items and interactions
    # are below, and would read and settle the log anew for everything that comes after.
    scratch = workdir.path(*SETTLED)
    with reading(str(dataset.path), "log"):
        own_fates = count_by_status(examined)
        settled.write.mode("overwrite").parquet(scratch)
    settled = spark.read.parquet(literal(scratch))
    kept = settled.where(F.col("status").isNull())
    users = (
        kept.groupBy("user")
        .agg(F.count(F.lit(1)).alias("num_events"), F.max(F.col("split").eqNullSafe(1)).alias("is_later"))
        .persist(StorageLevel.MEMORY_AND_DISK)
    )
    try:
        settled_fates = count_by_status(settled)
        counts = add_up(own_fates, settled_fates)
        warnings = _late_in_the_day(examined, counts, interval)
        raw_items = read_catalogue(spark, dataset)
        clean, bad_items = clean_catalogue(raw_items) if raw_items is not None else (None, None)
        match = None
        if clean is not None:
            match = match_catalogue(spark, workdir, kept, clean, str(dataset.catalogue), config.min_catalogue_share)
        bad = [] if counts.quarantined == 0 else bad_rows(examined, settled)
        catalogue_reasons = {}
        if bad_items is not None:
            catalogue_reasons = {row["reason"]: row["count"] for row in bad_items.groupBy("reason").count().collect()}
            bad += [bad_items] if catalogue_reasons else []
        label = interval.label if interval else WHOLE_LOG
        write_quarantine(spark, workdir, bad, label, is_whole=interval is None)
        evidence = Evidence(examined, settled, dataset, config)
        check_gate(counts.reasons, counts.rows_in, counts.kept, evidence, run_id, after="".join(warnings))
        roles = held_out_roles(spark, workdir, users, split_config, state, interval, seed)
        per_role, num_new = count_roles(users, roles)
        num_items = update_items(spark, workdir, kept, clean)
        write_interactions(spark, workdir, kept, config, label, interval)
        filtered = [
            rows for rows, fates in ((examined, own_fates), (settled, settled_fates)) if {*SEEN_REASONS} & {*fates}
        ]
        write_seen_items(spark, workdir, filtered, label, is_whole=interval is None)
        write_split(spark, workdir, roles, num_new, split_config, state, interval)
        if interval is not None and state.is_latest:
            extend_histories(spark, workdir, label, history_length)
        else:
            rebuild_histories(spark, workdir, history_length)
        summary = _summarize(counts, kept, per_role, num_items, interval, dataset.has_time)
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
        write_ledger(spark, workdir, summary, run_id, label, is_whole=interval is None, is_first=state.is_first)
        return summary
    finally:
        users.unpersist()
        workdir.filesystem.rm(scratch, recursive=True)


def _late_in_the_day(examined: DataFrame, counts: Counts, interval: Interval | None) -> list[str]:
    """Return what is to be said of events within a day after the interval's end."""
    count = counts.reasons.get("after_interval", 0)
    if interval is None or count == 0:
        return []
    of_them = examined.where(F.col("status") == "after_interval")
    last = of_them.agg(F.unix_seconds(F.max("event_time"))).first()
    return [after_interval(count, datetime.fromtimestamp(last[0], UTC), interval)] if last else []


def _summarize(
    counts: Counts,
    kept: DataFrame,
    per_role: Counter[str],
    num_items: int,
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
        users=per_role.total(),
        items=totals["items"],
        catalogue_items=num_items,
        late=totals["late"],
        train_users=per_role["train"],
        test_users=per_role["test"],
        validation_users=per_role["validation"],
        unused_users=per_role["unused"],
        interval_start=start,
        interval_end=end,
    )
