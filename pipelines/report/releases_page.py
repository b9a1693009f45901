"""``report/releases.html``: every release's health, items moved, recall and seconds, and whether a full run is due."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from pyspark.sql import SparkSession

from pipelines.config.run import RunConfig
from pipelines.report.drawing import INK, MUTED, PAGE_WIDTH, inline_svg
from pipelines.storage.releases import Release, ancestry, list_releases
from pipelines.storage.workdir import Workdir

NEW_ITEMS_DUE = 0.25
"""Share of items that came after the last full run, above which the next one is due."""
RECALLS = (
    ("recall", "this release"),
    ("live_recall", "the live one before it"),
    ("first_recall", "the full run, never refreshed"),
)
LOSING_DAYS = 3
"""Releases in a row whose recall fell against the one before, after which a full run is due."""


@dataclass(frozen=True)
class Day:
    """What the page shows of one release."""

    release_id: str
    status: str
    end: str
    figures: dict[str, Any]
    verdicts: list[dict[str, Any]]


def write_trends(spark: SparkSession, workdir: Workdir, config: RunConfig) -> None:
    """Draw the page again from the ``releases`` table."""
    rows = sorted(list_releases(workdir), key=lambda row: row.created_at)
    if rows:
        workdir.write_text(render(rows, retrain_due(rows, config)), "report", "releases.html")


def day_of(release: Release) -> Day:
    """Return a release's figures."""
    gates = json.loads(release.gates)
    health, quality = gates.get("health") or {}, gates.get("quality") or {}
    figures = {
        "items": release.num_items,
        "moved": gates.get("items_moved"),
        "placed": gates.get("items_placed"),
        "largest_path": health.get("largest_path"),
        "entropy": health.get("normalized_entropy"),
        "recall": quality.get("recall"),
        "live_recall": quality.get("live_recall"),
        "first_recall": quality.get("first_recall"),
        "low": quality.get("low"),
        "high": quality.get("high"),
        "seconds": gates.get("seconds"),
    }
    return Day(release.release_id, release.status, release.interval_end or "", figures, gates.get("verdicts", []))


def retrain_due(rows: list[Release], config: RunConfig) -> str | None:
    """Return why a full run is due, or None.

    Due when the live release's first ancestor is older than ``refresh.full_retrain_days`` of events, when a quarter of
    the items came after it, or when three releases in a row lost recall against the one before them.
    """
    live = next((row for row in rows if row.status == "live"), None)
    if live is None:
        return None
    line = ancestry(rows, live)
    first = line[-1]
    if live.interval_end and first.interval_end:
        age = datetime.fromisoformat(live.interval_end) - datetime.fromisoformat(first.interval_end)
        if age.total_seconds() / 86400 > config.refresh.full_retrain_days:
            return f"the last full run is {age.days} days of events old (refresh.full_retrain_days)"
    added = 1 - first.num_items / live.num_items
    if added > NEW_ITEMS_DUE:
        return f"{added:.0%} of the items came after the last full run"
    losses = [day_of(row).figures["high"] for row in line[:LOSING_DAYS]]
    if len(losses) == LOSING_DAYS and all(high is not None and high < 0 for high in losses):
        return f"the last {LOSING_DAYS} releases each lost recall against the one before"
    return None


def render(rows: list[Release], due: str | None) -> str:
    """Return the page as HTML."""
    days = [day_of(row) for row in rows]
    environment = Environment(
        loader=DictLoader({"page": files("pipelines.report").joinpath("releases.html.j2").read_text()}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = Markup(files("pipelines.report").joinpath("page.css").read_text())
    figure = inline_svg(lambda: _draw(days), "Recall, items moved, largest path and seconds of every release")
    return environment.get_template("page").render(days=days[::-1], due=due, figure=figure, css=css)


def _draw(days: list[Day]) -> Figure:
    figure = Figure(figsize=(PAGE_WIDTH, 5.6), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True).ravel()
    places = range(len(days))
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
            values = [float("nan") if day.figures[key] is None else day.figures[key] for day in days]
            style = {
                "color": (INK, MUTED, MUTED)[number],
                "linestyle": ("-", "--", ":")[number],
                "marker": "os^"[number],
            }
            panel.plot(places, values, label=label, **style)
        panel.set_title(title)
        panel.set_ylim(bottom=0)
        if len(lines) > 1:
            panel.legend()
        panel.set_xticks(list(places), [day.end[:10] for day in days], rotation=45, ha="right")
    return figure
