"""Draws the stages of day one and of a refresh from the plan: ``python -m benchmarks.plan_picture`` writes docs/*.svg."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.flows import plan

COLUMNS, WIDTH, HEIGHT, GAP, LANE = 6, 118, 34, 26, 50
ROW = 2 * LANE + 30
NOTES = {
    "ingest": "the interval, once",
    "samples": "histories, cut",
    "e_step": "Torch, warm",
    "targets": "from softmax",
    "scores": "merged, decayed",
    "assign": "M-step",
    "e_step_final": "on new paths",
    "index": "paths to items",
    "gates": "figures, verdicts",
    "publish": "live, or refused",
    "retrieve": "recommendations",
    "preprocess": "logs to tables",
    "count": "events of items",
    "warm_up": "encoder, softmax",
    "choose": "how many paths",
    "initialize": "first paths",
    "e_step_1": "Torch, paths fixed",
    "scores_1": "s[v, c]",
    "assign_1": "M-step",
    "serving": "price or beam",
    "evaluate": "beside controls",
    "report": "page, summary",
}


def depths(tasks: dict[str, Any]) -> dict[str, int]:
    """Return how many tasks come before each, along the longest way."""
    found: dict[str, int] = {}
    while len(found) < len(tasks):
        for name, task in tasks.items():
            if all(before in found for before in task["after"]):
                found[name] = max((found[before] + 1 for before in task["after"]), default=0)
    return found


def places(tasks: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Return the left upper corner of every box: a line of depths that turns to the next row at its end."""
    taken: dict[int, int] = {}
    corners = {}
    for name, depth in depths(tasks).items():
        row, column = divmod(depth, COLUMNS)
        lane = taken.get(depth, 0)
        taken[depth] = lane + 1
        corners[name] = (10.0 + column * (WIDTH + GAP), 12.0 + row * ROW + lane * (HEIGHT + LANE - 20))
    return corners


def arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    """Return the path from a box to the next one."""
    x0, y0, x1, y1 = start[0] + WIDTH, start[1] + HEIGHT / 2, end[0], end[1] + HEIGHT / 2
    if x1 > x0:
        middle = (x0 + x1) / 2
        line = f"M{x0} {y0} H{middle} V{y1} H{x1 - 2}"
    else:
        between = start[1] + HEIGHT + (end[1] - start[1] - HEIGHT) / 2 + 12
        line = f"M{x0 - WIDTH / 2} {start[1] + HEIGHT + 20} V{between} H{x1 + WIDTH / 2} V{end[1] - 2}"
    return f'<path d="{line}" fill="none" stroke="#666" marker-end="url(#tip)"/>'


def draw(tasks: dict[str, Any]) -> str:
    """Return the picture as SVG."""
    corners = places(tasks)
    width = max(x for x, _ in corners.values()) + WIDTH + 10
    height = max(y for _, y in corners.values()) + HEIGHT + 26
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}"'
        ' font-family="sans-serif" font-size="12" text-anchor="middle">',
        '<defs><marker id="tip" markerWidth="7" markerHeight="7" refX="5" refY="3.5" orient="auto">'
        '<path d="M0 0 L7 3.5 L0 7 z" fill="#666"/></marker></defs>',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    parts += [arrow(corners[before], corners[name]) for name, task in tasks.items() for before in task["after"]]
    for name, (x, y) in corners.items():
        fill = "#e6f2e6" if tasks[name]["outlets"] else "#eef2f8"
        parts += [
            f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="4" fill="{fill}" stroke="#456"/>',
            f'<text x="{x + WIDTH / 2:g}" y="{y + HEIGHT / 2 + 4:g}">{name}</text>',
            f'<text x="{x + WIDTH / 2:g}" y="{y + HEIGHT + 14:g}" font-size="10" fill="#555">{NOTES.get(name, "")}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def pictures() -> dict[str, str]:
    """Return each picture by its file's name in docs/: day one with one EM round, and a refresh."""
    return {"day_one.svg": draw(tasks_of(plan.day_one(1))), "daily_refresh.svg": draw(tasks_of(plan.refresh()))}


def tasks_of(stages: Sequence[plan.Stage]) -> dict[str, Any]:
    """Return the boxes of a plan, each with those before it; what goes live is drawn in green."""
    return {stage.name: {"after": list(stage.needs), "outlets": stage.name == "publish"} for stage in stages}


def main() -> None:
    """Write the pictures."""
    for name, picture in pictures().items():
        (Path(__file__).parents[1] / "docs" / name).write_text(picture)


if __name__ == "__main__":
    main()
