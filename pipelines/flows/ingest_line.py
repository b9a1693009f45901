"""What became of the rows of a log, in one line for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.stages.ingest.row_rules import FILTER_REASONS


def ingest_line(summary: Mapping[str, Any]) -> str:
    """Return how many rows came in and where they went, by reason.

    Args:
        summary: a :class:`pipelines.stages.ingest.preprocess.PreprocessSummary` as plain data.
    """
    by_fate: dict[str, list[str]] = {"quarantined": [], "filtered": []}
    for reason, count in sorted(summary["reasons"].items(), key=lambda found: (-found[1], found[0])):
        by_fate["filtered" if reason in FILTER_REASONS else "quarantined"].append(f"{reason} {count:,}")
    parts = [f"{summary['rows_in']:,} rows in", f"{summary['kept']:,} kept"]
    for fate, reasons in by_fate.items():
        parts.append(f"{summary[fate]:,} {fate}" + (f" ({', '.join(reasons)})" if reasons else ""))
    line = ", ".join(parts)
    known = summary.get("catalogue_known")
    if known is not None:
        line += f"; catalogue knows {known:,} of {summary['items']:,} items"
    aside = summary.get("catalogue_reasons") or {}
    if aside:
        named = ", ".join(f"{reason} {count:,}" for reason, count in sorted(aside.items()))
        line += f"; {sum(aside.values()):,} rows of the catalogue quarantined ({named})"
    return line
