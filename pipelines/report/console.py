"""The results as plain text, for the terminal after a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.report import formats, tables
from pipelines.report.summary import Summary, parse_summary
from pipelines.report.tables import View


def trim_console_table(summary: Summary | Mapping[str, Any]) -> str:
    """Return the results at the first k, brute force first, then the health and structure lines; fractions in percent.

    Raises:
        InputError: the summary is malformed.
    """
    checked = parse_summary(summary)
    found = tables.views(checked)
    blocks = [_block(checked, view) for view in found if view.k == found[0].k]
    lines = [line for line in (_health_line(checked), _structure_line(checked)) if line]
    return "\n\n".join([*blocks, "\n".join(lines)] if lines else blocks)


def _block(summary: Summary, view: View) -> str:
    heads = {
        "precision": f"P@{view.k}",
        "recall": f"R@{view.k}",
        "overlap": "overlap",
        "candidate_recall": "cand.recall",
        "candidates": "candidates",
        "beam": "beam",
        "microseconds": "µs",
    }
    rows = tables.result_rows(summary, view)
    lines = [("", *heads.values()), *((row.method, *(row.cells[name] for name in heads)) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads) + 1)]
    users = max((row.users or 0 for row in summary.results if view.holds(row)), default=0)
    about = [view.title, f"{formats.count(users)} test users" if users else "", "fractions in %"]
    if summary.seeds > 1:
        about.append(f"mean of {summary.seeds} seeds")
    text = [", ".join(part for part in about if part)]
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        text.append("  ".join([line[0].ljust(widths[0]), *cells]).rstrip())
    return "\n".join(text)


def _health_line(summary: Summary) -> str:
    health = summary.health
    parts = [
        (health.occupied_paths, "{} paths occupied", formats.count),
        (health.largest_path, "largest {}", formats.count),
        (health.mean_path, "mean {}", formats.count),
        (health.gini, "gini {}", formats.plain),
        (health.normalized_entropy, "entropy {}", formats.plain),
        (health.items_without_path, "{} items without a path", formats.count),
    ]
    shown = [text.format(format_figure(value)) for value, text, format_figure in parts if value is not None]
    return f"health     {', '.join(shown)}" if shown else ""


def _short(value: float | str) -> str:
    """Return a figure, or a choice without the reason for it."""
    return value.split(":")[0] if isinstance(value, str) else formats.plain(value)


def _structure_line(summary: Summary) -> str:
    structure = dict(summary.structure)
    nodes = structure.pop("nodes")
    if not summary.structure.is_even:
        structure["K"] = formats.layers(nodes)
    shown = [f"{name}={_short(value)}" for name, value in structure.items() if value is not None]
    return f"structure  {'  '.join(shown)}" if shown else ""
