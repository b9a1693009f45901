"""``report/releases.html``: every release's health, items moved, recall and seconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from pipelines.report.drawing import INK, MUTED, PAGE_WIDTH, inline_svg
from pipelines.storage.releases import Release
from pipelines.storage.workdir import Workdir

RECALLS = (
    ("recall", "this release"),
    ("live_recall", "the live one before it"),
    ("first_recall", "the full run, never refreshed"),
)


@dataclass(frozen=True)
class ShownRelease:
    """What the page shows of one release."""

    release_id: str
    status: str
    end: str
    figures: dict[str, Any]
    verdicts: list[dict[str, Any]]


def write_releases_page(workdir: Workdir, releases: Sequence[Release], due: str | None) -> None:
    """Draw the page.

    Args:
        releases: of the work folder, in any order.
        due: why a full run is due, or None.
    """
    workdir.write_text(render(sorted(releases, key=lambda row: row.created_at), due), "report", "releases.html")


def shown_of(release: Release) -> ShownRelease:
    """Return what the page shows of a release."""
    gates, facts = json.loads(release.gates), json.loads(release.facts)
    health, quality = gates.get("health") or {}, gates.get("quality") or {}
    figures = {
        "items": release.num_items,
        "moved": facts.get("items_moved"),
        "placed": facts.get("items_placed"),
        "largest_path": health.get("largest_path"),
        "entropy": health.get("normalized_entropy"),
        "recall": quality.get("recall"),
        "live_recall": quality.get("live_recall"),
        "first_recall": quality.get("first_recall"),
        "low": quality.get("low"),
        "high": quality.get("high"),
        "seconds": facts.get("seconds"),
    }
    return ShownRelease(
        release.release_id, release.status, release.interval_end or "", figures, gates.get("verdicts", [])
    )


def render(rows: Sequence[Release], due: str | None) -> str:
    """Return the page as HTML."""
    shown = [shown_of(row) for row in rows]
    environment = Environment(
        loader=DictLoader({"page": files("pipelines.report").joinpath("releases.html.j2").read_text()}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = Markup(files("pipelines.report").joinpath("page.css").read_text())
    figure = inline_svg(lambda: _draw(shown), "Recall, items moved, largest path and seconds of every release")
    return environment.get_template("page").render(releases=shown[::-1], due=due, figure=figure, css=css)


def _draw(shown: list[ShownRelease]) -> Figure:
    figure = Figure(figsize=(PAGE_WIDTH, 5.6), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True).ravel()
    positions = range(len(shown))
    for panel, (title, lines) in zip(
        panels,
        (
            ("Recall on the newest interval", RECALLS),
            ("Items moved and placed", (("moved", "moved"), ("placed", "placed"))),
            ("Largest path", (("largest_path", "items"),)),
            ("Seconds of stages", (("seconds", "seconds"),)),
        ),
        strict=True,
    ):
        for number, (key, label) in enumerate(lines):
            values = [float("nan") if release.figures[key] is None else release.figures[key] for release in shown]
            style = {
                "color": (INK, MUTED, MUTED)[number],
                "linestyle": ("-", "--", ":")[number],
                "marker": "os^"[number],
            }
            panel.plot(positions, values, label=label, **style)
        panel.set_title(title)
        panel.set_ylim(bottom=0)
        if len(lines) > 1:
            panel.legend()
        panel.set_xticks(list(positions), [release.end[:10] for release in shown], rotation=45, ha="right")
    return figure
