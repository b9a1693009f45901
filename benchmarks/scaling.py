"""Draws how costs grow from the kept lines of ``benchmarks/results``: ``python -m benchmarks.scaling docs/scale.svg``.

Three panels: seconds of three M-step sweeps against items, what a fixed recall takes as the catalogue grows, and the seconds of
one EM round against the number of users.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.record import RESULTS
from benchmarks.whole_run import ROUND


def lines(pattern: str) -> list[dict[str, Any]]:
    """Return the kept lines of the files that match."""
    files = sorted(RESULTS.glob(pattern))
    if not files:
        raise SystemExit(f"benchmarks/results has no {pattern}: measure it first, with python -m benchmarks.record")
    return [json.loads(path.read_text())["line"] for path in files]


def leave_room(axes: Axes, factor: float) -> None:
    """Put the legend above everything drawn."""
    axes.set_ylim(top=axes.get_ylim()[1] * factor)
    axes.legend(frameon=False, loc="upper left", ncols=2 if factor < 2 else 1)


def draw_sweeps(axes: Axes) -> None:
    """Draw seconds against items, and the line of proportional growth."""
    for pattern, style, label in (("mstep_items_*[0-9].json", "o-", "streamed"), ("mstep*_spark.json", "s", "Spark")):
        rows = sorted((line["items"] / 1e6, line["seconds"]) for line in lines(pattern))
        axes.plot([x for x, _ in rows], [y for _, y in rows], style, label=label)
        if pattern.endswith("[0-9].json"):
            (first, seconds), (last, _) = rows[0], rows[-1]
            axes.plot([first, last], [seconds, seconds * last / first], ":", color="0.4", label="proportional")
    axes.set(xscale="log", yscale="log", xlabel="million items", ylabel="seconds", title="M-step, 3 sweeps, 2 cores")
    axes.legend(frameon=False)


def draw_growth(axes: Axes) -> None:
    """Draw the beam and the candidates that reach the recall, against the size of the catalogue."""
    line = lines("retrieval_growth*.json")[-1]
    rows = [row for row in line["rows"] if row["beam"]]
    items = [row["items"] for row in rows]
    axes.plot(items, [row["candidates"] for row in rows], "o-", label="candidates")
    axes.plot(items, [row["beam"] for row in rows], "s--", label="beam")
    axes.plot(items, [row["microseconds_block"] for row in rows], "^:", label="microseconds a user")
    title = f"recall of the exact top 200 ≥ {line['at_recall']}"
    axes.set(xscale="log", yscale="log", xlabel="items", title=title)
    leave_room(axes, 20)


def draw_rounds(axes: Axes) -> None:
    """Draw the stages of one EM round, one bar a size."""
    by_size = {row["users"]: row for line in lines("whole_run*.json") for row in line["rows"]}
    rows = [by_size[users] for users in sorted(by_size)]
    names = [f"{row['users'] / 1000:.0f} k" for row in rows]
    below = [0.0] * len(names)
    for stage, shade in zip(ROUND, ("0.25", "0.5", "0.7", "0.85"), strict=True):
        heights = [row["seconds"][stage] for row in rows]
        axes.bar(names, heights, 0.6, bottom=below, color=shade, label=stage)
        below = [low + height for low, height in zip(below, heights, strict=True)]
    axes.set(xlabel="users", ylabel="seconds", title="one EM round, 2 cores")
    leave_room(axes, 1.3)


def main() -> None:
    """Draw the three panels into one SVG file."""
    figure = Figure(figsize=(11.0, 3.6), layout="constrained")
    for draw, axes in zip((draw_sweeps, draw_growth, draw_rounds), figure.subplots(1, 3), strict=True):
        draw(axes)
    figure.savefig(sys.argv[1])


if __name__ == "__main__":
    main()
