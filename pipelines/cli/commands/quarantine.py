"""``dr quarantine``: the rows that were put aside, and what to do about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.answer import Answer
from pipelines.cli.options import FolderOption, JsonOption

if TYPE_CHECKING:
    from pipelines.storage.quarantine import Aside

LONGEST_ROW = 300
"""Characters of a row on the console."""


def quarantine(
    workdir: FolderOption,
    reason: Annotated[str | None, typer.Option("--reason", metavar="R", help="Rows of this reason alone.")] = None,
    samples: Annotated[int, typer.Option("-n", min=0, metavar="N", help="Rows to show of each reason.")] = 5,
    interval: Annotated[
        str | None,
        typer.Option(
            "--interval", metavar="I", help="Rows of this ingested interval alone, by its label (T0/T1, or all)."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> Answer:
    """Rows that were put aside: how many for which reason, some of them, and the setting that mends it."""
    from pipelines.stages.ingest.reasons import REASONS
    from pipelines.stages.ingest.row_rules import FILTER_REASONS
    from pipelines.storage.files import Files
    from pipelines.storage.quarantine import read_ledger, read_quarantine

    folder = Files(workdir)
    aside = read_quarantine(folder, reason=reason, interval=interval, num_samples=samples)
    ledger = read_ledger(folder, interval)
    document = {
        **{name: ledger[name] for name in ("rows_in", "kept", "quarantined", "filtered")},
        "reasons": [
            {
                "reason": rows.reason,
                "of": rows.source,
                "count": rows.count,
                "meaning": REASONS.get(rows.reason),
                "samples": list(rows.samples),
            }
            for rows in aside
        ],
        "filtered_reasons": {
            name: {"count": count, "meaning": REASONS.get(name)}
            for name, count in sorted(ledger["reasons"].items())
            if name in FILTER_REASONS
        }
        if reason is None
        else {},
    }
    return Answer(document, "\n".join(lines(document, aside)))


def lines(document: dict[str, Any], aside: Sequence[Aside]) -> list[str]:
    """Return what people see of :func:`quarantine`."""
    counts = {source: sum(rows.count for rows in aside if rows.source == source) for source in ("log", "catalogue")}
    shown = [
        f"{document['rows_in']:,} rows in: {document['kept']:,} kept, {document['quarantined']:,} quarantined,"
        f" {document['filtered']:,} filtered"
    ]
    if not aside:
        shown.append("no row is in quarantine")
    for entry in document["reasons"]:
        shown += ["", f"{entry['reason']}: {entry['count']:,} rows of the {entry['of']}"]
        shown += [f"  {entry['meaning']}"] if entry["meaning"] else []
        for sample in entry["samples"]:
            shown.append(f"  {sample['source_file'] or '(file unknown)'}  {_row(sample['row'])}")
    if counts["catalogue"]:
        shown.insert(1, f"{counts['catalogue']:,} rows of the catalogue are in quarantine too")
    filtered = document["filtered_reasons"]
    if filtered:
        shown += ["", "filtered, not in quarantine:"]
        shown += [
            f"  {name}: {entry['count']:,} rows; {entry['meaning'] or ''}".rstrip("; ")
            for name, entry in filtered.items()
        ]
    return shown


def _row(row: Any) -> str:
    import json

    text = row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)
    return text if len(text) <= LONGEST_ROW else f"{text[:LONGEST_ROW]}…"
