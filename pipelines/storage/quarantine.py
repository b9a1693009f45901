"""Rows that were put aside: how many for which reason, and some of them. Read without a JVM."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from dr_core.errors import InputError
from pipelines.storage import delta_reader
from pipelines.storage.files import Files

CATALOGUE = "catalogue_"
"""What the reasons of a catalogue's rows begin with."""


@dataclass(frozen=True)
class Aside:
    """The rows of one reason.

    Attributes:
        reason: why.
        count: how many rows.
        samples: some of them, each with ``row`` (as it was read), ``source_file`` and ``source_interval``.
    """

    reason: str
    count: int
    samples: tuple[dict[str, Any], ...]

    @property
    def source(self) -> str:
        """What the rows are of: ``log`` or ``catalogue``."""
        return "catalogue" if self.reason.startswith(CATALOGUE) else "log"


def read_quarantine(
    folder: Files, *, reason: str | None = None, interval: str | None = None, num_samples: int = 5
) -> list[Aside]:
    """Return the quarantined rows by reason, the most frequent first.

    Args:
        folder: W.
        reason: this one alone.
        interval: rows that came with this interval alone, by the label that the table has (or ``all``).
        num_samples: rows to show of each reason.

    Raises:
        InputError: nothing was ingested yet, or no row has that reason or interval.
    """
    table = folder.path("tables", "quarantine")
    chosen = ""
    if interval is not None:
        known = _counts(table, "source_interval")
        if interval not in known:
            raise InputError(f"no quarantined row in {folder.uri} came with interval {interval}; {_listed(known)}")
        chosen = f" AND source_interval = '{interval}'"
    counts = _counts(table, "reason", chosen)
    if reason is not None:
        if reason not in counts:
            raise InputError(f"no quarantined row in {folder.uri} has the reason {reason}; {_listed(counts)}")
        counts = {reason: counts[reason]}
    return [
        Aside(name, count, _samples(table, f"WHERE reason = '{name}'{chosen}", num_samples))
        for name, count in sorted(counts.items(), key=lambda found: (-found[1], found[0]))
    ]


def read_ledger(folder: Files, interval: str | None = None) -> dict[str, Any]:
    """Return rows_in, kept, quarantined and filtered of what was ingested, with ``reasons`` (rows by reason), summed over
    the intervals or of one of them."""
    rows = delta_reader.read_rows(folder.path("tables", "intervals"))
    rows = [row for row in rows if interval in (None, row["source_interval"])]
    totals: dict[str, Any] = {
        name: sum(row[name] for row in rows) for name in ("rows_in", "kept", "quarantined", "filtered")
    }
    reasons: dict[str, int] = {}
    for row in rows:
        for name, count in json.loads(row["reasons"]).items():
            reasons[name] = reasons.get(name, 0) + count
    return totals | {"reasons": reasons}


def _counts(table: str, column: str, chosen: str = "") -> dict[str, int]:
    found = delta_reader.read_columns(
        table, [column, "count(*) AS count"], f"WHERE {column} IS NOT NULL{chosen} GROUP BY {column}"
    )
    return dict(zip(found[column].to_pylist(), found["count"].to_pylist(), strict=True))


def _samples(table: str, where: str, count: int) -> tuple[dict[str, Any], ...]:
    if count == 0:
        return ()
    rows = delta_reader.read_rows(table, f"{where} ORDER BY source_interval, source_file, row LIMIT {count}")
    return tuple(
        {
            "row": _parsed(row["row"]),
            "source_file": _plain_path(row["source_file"]),
            "source_interval": row["source_interval"],
        }
        for row in rows
    )


def _parsed(text: str | None) -> Any:
    try:
        return json.loads(text or "null")
    except ValueError:
        return text


def _plain_path(uri: str | None) -> str | None:
    return unquote(uri.removeprefix("file://")) if uri and uri.startswith("file:") else uri


def _listed(counts: dict[str, int]) -> str:
    return (
        "there are " + ", ".join(f"{name} ({count})" for name, count in sorted(counts.items())) if counts else "none is"
    )
