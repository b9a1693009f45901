"""The data gate: how many rows may be bad, and what the rows themselves say of the cause."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from dr_core.errors import GateRefused
from pipelines.datasets.interactions import DatasetConfig
from pipelines.stages.ingest.interval import Interval, as_utc
from pipelines.stages.ingest.reasons import REASONS, TIME_REASONS, ZONE_ADVICE
from pipelines.stages.ingest.row_rules import FILTER_REASONS, Flag, PreprocessConfig
from pipelines.stages.ingest.time_advice import advise_time

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SAMPLED_ROWS = 200


@dataclass(frozen=True)
class Evidence:
    """What an advice is drawn from.

    Attributes:
        examined: all rows of the log with their ``status``.
        settled: the candidates of :func:`pipelines.stages.ingest.row_rules.settle`.
        dataset: the resolved dataset.
        config: the row rules.
    """

    examined: DataFrame
    settled: DataFrame
    dataset: DatasetConfig
    config: PreprocessConfig

    def advise(self, reason: str) -> str:
        """Return what a reason means and the setting that mends it, as far as the rows show it."""
        advice = REASONS.get(reason, "see the rows in quarantine")
        if reason in TIME_REASONS:
            bounds = as_utc(self.config.min_time or EPOCH), as_utc(self.config.max_time)
            return advise_time(self._times(reason), self.dataset.times, *bounds) or advice
        if reason == "duplicate_row" and self._has_dates_only():
            return f"the log has dates only, so several events of a day look alike; {advice}"
        positive = self.config.positive
        if isinstance(positive, Flag) and reason == f"invalid_{positive.column}":
            name = getattr(self.dataset.columns, positive.column)
            return (
                f"column '{name}' is taken as a flag, which is true/false, yes/no or 1/0; of stars or counts set"
                f" dataset.columns.rating={name} and"
                " preprocess.positive={kind: threshold, column: rating, at_least: …}"
            )
        return advice

    def _times(self, reason: str) -> list[str]:
        """Return some of the times that were refused, as they stand in the file."""
        rows = self.examined.where(F.col("status") == reason).select("raw_time")
        return [row[0] for row in rows.limit(_SAMPLED_ROWS).collect() if row[0] is not None]

    def _has_dates_only(self) -> bool:
        """Tell whether all events lie at one time of day, or two where the clock is changed."""
        time_of_day = F.pmod(F.unix_micros("event_time"), F.lit(86_400_000_000))
        return self.settled.select(time_of_day).distinct().limit(3).count() < 3


def check_gate(
    reasons: dict[str, int], rows_in: int, kept: int, evidence: Evidence, run_id: str, *, after: str = ""
) -> None:
    """Refuse an ingest with too many bad rows, or without any event.

    Args:
        reasons: rows by the reason why they are not kept.
        rows_in: rows of the log.
        kept: events.
        evidence: what the advice is drawn from.
        run_id: named in the message.
        after: what :func:`after_interval` says.

    Raises:
        GateRefused: with the counts by reason and what mends the leading one.
    """
    by_reason = ", ".join(f"{name} {count}" for name, count in sorted(reasons.items())) or "none"
    bad = {name: count for name, count in reasons.items() if name not in FILTER_REASONS}
    share = sum(bad.values()) / rows_in
    limit = evidence.config.max_quarantine_share
    if share <= limit and kept > 0:
        return
    leading = max(sorted(bad if share > limit else reasons), key=reasons.__getitem__)
    advice = after if leading == "after_interval" else evidence.advise(leading)
    if share > limit:
        raise GateRefused(
            f"run {run_id}: {share:.1%} of {rows_in} rows are bad, more than preprocess.max_quarantine_share ="
            f" {limit:.1%} (by reason: {by_reason}): {advice}; `dr quarantine` shows the rows"
        )
    raise GateRefused(f"run {run_id}: none of {rows_in} rows is a kept event (by reason: {by_reason}): {advice}")


def after_interval(count: int, last: datetime, interval: Interval) -> str:
    """Return what to say of events within a day after an interval: how many, up to when, and which zone would hold them.

    Args:
        count: how many.
        last: the latest of them.
        interval: the interval.
    """
    hours = math.floor((last - interval.end).total_seconds() / 3600) + 1
    offset = f" (as if days ended at midnight of UTC-{hours:02d}:00)" if hours <= 12 else ""
    return (
        f"{count} rows are of the day after the interval's end {interval.end:%Y-%m-%dT%H:%M:%SZ}, up to"
        f" {last:%Y-%m-%dT%H:%M:%SZ}{offset}: {ZONE_ADVICE}"
    )
