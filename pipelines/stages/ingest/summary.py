"""What became of the rows of an ingest, counted."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pyspark.sql import DataFrame

from dr_core.errors import DeepRetrievalError
from pipelines.stages.ingest.row_rules import FILTER_REASONS


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


@dataclass(frozen=True)
class Counts:
    """Rows of an ingest, and why those are not kept that are not."""

    rows_in: int
    kept: int
    reasons: dict[str, int]

    @property
    def quarantined(self) -> int:
        """Rows that are bad."""
        return sum(count for reason, count in self.reasons.items() if reason not in FILTER_REASONS)

    @property
    def filtered(self) -> int:
        """Rows that are not wanted."""
        return sum(count for reason, count in self.reasons.items() if reason in FILTER_REASONS)


def count_by_status(rows: DataFrame) -> dict[str | None, int]:
    """Return the rows of each status; None is that of kept rows and of candidates."""
    return {row["status"]: row["count"] for row in rows.groupBy("status").count().collect()}


def add_up(own: dict[str | None, int], settled: dict[str | None, int]) -> Counts:
    """Count rows by their fate; candidates among the rows read and rows settled are counted apart and must agree.

    Args:
        own: rows by what they show on their own.
        settled: candidates by what only the user's other rows show.

    Raises:
        DeepRetrievalError: the counts do not agree, or do not add up.
    """
    by_own = {status: count for status, count in own.items() if status is not None}
    by_status = {status: count for status, count in settled.items() if status is not None}
    num_candidates, num_settled = own.get(None, 0), sum(settled.values())
    if num_candidates != num_settled:
        raise DeepRetrievalError(
            f"{num_candidates} rows are candidates, but {num_settled} were settled: did the log change meanwhile?"
        )
    kept = settled.get(None, 0)
    counts = Counts(rows_in=num_candidates + sum(by_own.values()), kept=kept, reasons=by_own | by_status)
    if counts.rows_in != counts.kept + counts.quarantined + counts.filtered:
        raise DeepRetrievalError(f"rows in do not equal kept + quarantined + filtered: {counts}")
    return counts
