"""Figures of accuracy and fidelity: against cost, against the controls, by kind of user and of item."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from pipelines.evaluation import methods
from pipelines.evaluation.methods import BRUTE_FORCE
from pipelines.report import formats, tables
from pipelines.report.data import ActivityRow, PopularityRow
from pipelines.report.drawing import (
    INK,
    MUTED,
    PAGE_WIDTH,
    cost_axis,
    draw_line,
    grid,
    inline_svg,
    legend,
    percent_axis,
)
from pipelines.report.styles import Styles
from pipelines.report.summary import CurvePoint, Difference, Result, Summary
from pipelines.report.tables import FRACTIONS, View

_PANELS = ("overlap", "candidate_recall", "precision")
_FOREST_ORDER = [*_PANELS, *(metric for metric in FRACTIONS if metric not in _PANELS)]


def candidate_curves(summary: Summary, view: View, styles: Styles) -> Markup | None:
    """Draw overlap, candidate recall and precision against candidates, each method's search swept."""
    curves = {
        method: curve for method, curve in _curves(summary, view).items() if method != BRUTE_FORCE and len(curve) > 1
    }
    panels = [metric for metric in _PANELS if any(_pairs(curve, "candidates", metric) for curve in curves.values())]
    if not panels:
        return None
    description = f"Overlap, candidate recall and precision against candidates, {view.title}"
    return inline_svg(lambda: _draw_candidate_curves(summary, view, styles, curves, panels), description)


def _draw_candidate_curves(
    summary: Summary, view: View, styles: Styles, curves: dict[str, list[CurvePoint]], panels: list[str]
) -> Figure:
    figure, axes = grid(len(panels), 3, 3.6)
    brute = tables.result_of(summary, view, BRUTE_FORCE)
    for panel, metric in zip(axes, panels, strict=True):
        pairs = {method: _pairs(curve, "candidates", metric) for method, curve in curves.items()}
        for method, points in pairs.items():
            if points:
                draw_line(panel, styles[method].style, *zip(*points, strict=True))
        for row in summary.results:
            value = getattr(row, metric)
            if view.holds(row) and row.method == tables.subject(summary) and row.candidates and value is not None:
                panel.plot([row.candidates], [value], "o", ms=12, mfc="none", mec=INK, mew=1.1, zorder=4)
        level = getattr(brute, metric) if brute and metric == "precision" else 1.0 if metric == "overlap" else None
        if brute and level is not None:
            panel.axhline(level, color=styles[BRUTE_FORCE].style.color, ls=styles[BRUTE_FORCE].style.line, lw=1.1)
        costs = [cost for points in pairs.values() for cost, _ in points]
        cost_axis(panel, costs, "candidates a user (share of the items below)", summary.data.items)
        percent_axis(panel)
        panel.set_title(FRACTIONS[metric].capitalize() + (f" at {view.k}" if metric == "precision" else ""))
    shown = [styles[method] for method in methods.ordered(curves)]
    bare = [styles[BRUTE_FORCE]] if brute else []
    legend(figure, [*bare, *shown], bare=bare)
    return figure


COST_AXES = {
    "multiply_adds": ("multiply-adds", "multiply-adds a user, candidates found and reranked"),
    "microseconds": ("time", "microseconds a user, one thread, in blocks"),
}


def cost_curves(summary: Summary, view: View, styles: Styles, axis: str, metrics: tuple[str, str]) -> Markup | None:
    """Draw two metrics against what an answer costs, counted or timed; brute force's cost is a line.

    Args:
        axis: of ``COST_AXES``.
    """
    curves = {
        method: curve
        for method, curve in _curves(summary, view).items()
        if method != BRUTE_FORCE and _pairs(curve, axis, metrics[0]) and (len(curve) > 1 or axis == "microseconds")
    }
    if not curves:
        return None
    names = " and ".join(FRACTIONS[metric] for metric in metrics)
    description = f"{names.capitalize()} against {COST_AXES[axis][0]}, {view.title}"
    return inline_svg(lambda: _draw_cost_curves(summary, view, styles, curves, axis, metrics), description)


def _draw_cost_curves(
    summary: Summary,
    view: View,
    styles: Styles,
    curves: dict[str, list[CurvePoint]],
    axis: str,
    metrics: tuple[str, str],
) -> Figure:
    figure, axes = grid(2, 2, 3.5)

    def cost_of(method: str | None) -> float | None:
        row = tables.result_of(summary, view, method)
        if row is None or axis == "microseconds":
            return None if row is None else row.microseconds
        return tables.multiply_adds_of(summary, row)

    brute = cost_of(BRUTE_FORCE)
    for panel, metric in zip(axes, metrics, strict=True):
        costs = [brute] if brute else []
        for method, curve in curves.items():
            points = _pairs(curve, axis, metric)
            if points:
                draw_line(panel, styles[method].style, *zip(*points, strict=True))
                costs += [cost for cost, _ in points]
        ours, own = tables.result_of(summary, view, tables.subject(summary)), cost_of(tables.subject(summary))
        if own is not None and getattr(ours, metric) is not None:
            panel.plot([own], [getattr(ours, metric)], "o", ms=12, mfc="none", mec=INK, mew=1.1, zorder=4)
        if brute:
            panel.axvline(brute, color=styles[BRUTE_FORCE].style.color, ls=styles[BRUTE_FORCE].style.line, lw=1.1)
        cost_axis(panel, costs, COST_AXES[axis][1])
        percent_axis(panel)
        panel.set_title(FRACTIONS[metric].capitalize())
    bare = [styles[BRUTE_FORCE]] if brute else []
    legend(figure, [*bare, *(styles[method] for method in methods.ordered(curves))], bare=bare)
    return figure


def results_overview(summary: Summary, view: View, styles: Styles) -> Markup | None:
    """Draw precision with its interval, recall and overlap of every method, one line a method."""
    found = {row.method: row for row in summary.results if view.holds(row)}
    panels = [
        metric
        for metric in ("precision", "recall", "overlap")
        if sum(getattr(row, metric) is not None for row in found.values()) > 1
    ]
    if not panels:
        return None
    description = f"Precision, recall and overlap of every method, {view.title}"
    return inline_svg(lambda: _draw_results_overview(found, styles, panels), description)


def _draw_results_overview(found: dict[str, Result], styles: Styles, panels: list[str]) -> Figure:
    names = methods.ordered(found)
    figure = Figure(figsize=(PAGE_WIDTH, 0.55 + 0.24 * len(names)), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for panel, metric in zip(axes, panels, strict=True):
        for line, method in enumerate(names):
            row, style = found[method], styles[method].style
            value = getattr(row, metric)
            if value is None:
                continue
            if metric == "precision" and row.interval is not None:
                panel.plot(row.interval, [line, line], color=style.color, lw=1.6, solid_capstyle="butt", alpha=0.6)
            shape = "o" if style.marker in "_x1234+|" else style.marker
            panel.plot([value], [line], shape, color=style.color, ms=6, zorder=3)
        brute = found.get(BRUTE_FORCE)
        if brute is not None and getattr(brute, metric) is not None:
            panel.axvline(getattr(brute, metric), color=MUTED, lw=0.8, ls=(0, (4, 3)))
        panel.set_title(FRACTIONS[metric].capitalize())
        panel.grid(axis="x")
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
        panel.margins(x=0.06)
    axes[0].set_yticks(range(len(names)), [styles[method].label for method in names])
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    axes[0].tick_params(axis="y", labelcolor=INK)
    return figure


def difference_forest(summary: Summary, view: View) -> Markup | None:
    """Draw the paired differences of one view with their intervals, one panel a metric."""
    rows = [row for row in summary.differences if view.holds(row) and row.mean is not None and row.metric in FRACTIONS]
    if not rows:
        return None
    return inline_svg(lambda: _draw_difference_forest(rows), f"Paired differences with 95 % intervals, {view.title}")


def _draw_difference_forest(rows: list[Difference]) -> Figure:
    metrics = [metric for metric in _FOREST_ORDER if any(row.metric == metric for row in rows)]
    pairs = list(dict.fromkeys((row.method, row.against) for row in rows))
    minuends = {method for method, _ in pairs}
    lines: list[tuple[str, str, str | None, float | None]] = []
    breaks = []
    for method, against in pairs:
        places = {(row.axis, row.at): row for row in rows if (row.method, row.against) == (method, against)}
        order = sorted(places, key=lambda panel: (panel[0] or "", panel[1] or 0.0))
        lines += [(method, against, axis, at) for axis, at in order]
        breaks.append(len(lines))
    figure = Figure(figsize=(PAGE_WIDTH, 0.6 + 0.215 * len(lines)), layout="constrained")
    axes = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for panel, metric in zip(axes, metrics, strict=True):
        panel.axvline(0, color=INK, lw=0.9)
        for edge in breaks[:-1]:
            panel.axhline(edge - 0.5, color="#D5DCE4", lw=0.7)
        for row in rows:
            if row.metric != metric or row.mean is None:
                continue
            line = lines.index((row.method, row.against, row.axis, row.at))
            color, shape, face = {
                "higher": (methods.BLUE, "o", methods.BLUE),
                "lower": (methods.VERMILLION, "s", methods.VERMILLION),
                "unclear": (methods.GREY, "o", "white"),
            }[tables.sign(row)]
            if row.low is not None and row.high is not None:
                ends = [100 * row.low, 100 * row.high]
                panel.plot(ends, [line, line], color=color, lw=1.6, solid_capstyle="butt")
            panel.plot([100 * row.mean], [line], shape, color=color, mfc=face, ms=5)
        panel.set_title(f"{FRACTIONS[metric].capitalize()}, points")
        panel.grid(axis="x")
        panel.grid(axis="y", visible=False)
        panel.margins(x=0.08)
    texts = []
    for number, (method, against, axis, at) in enumerate(lines):
        row = next(row for row in rows if (row.method, row.against, row.axis, row.at) == (method, against, axis, at))
        name = (
            methods.label(against)
            if len(minuends) == 1
            else f"{methods.label(method)} \N{MINUS SIGN} {methods.label(against)}"
        )
        first = number == 0 or number in breaks
        texts.append(f"{name}, {tables.axis_text(row)}" if first else tables.axis_text(row))
    axes[0].set_yticks(range(len(lines)), texts)
    axes[0].tick_params(axis="y", labelcolor=INK)
    axes[0].set_ylim(len(lines) - 0.4, -0.6)
    return figure


def activity_figure(rows: Sequence[ActivityRow], styles: Styles) -> Markup | None:
    """Draw precision, recall and overlap by how active the user was."""
    buckets = list(dict.fromkeys(row.bucket for row in rows))
    sizes = {row.bucket: row.users for row in rows if row.users is not None}
    ticks = [f"{bucket}\n{formats.count(sizes[bucket])} users" if bucket in sizes else bucket for bucket in buckets]
    return _by_bucket(rows, ("precision", "recall", "overlap"), buckets, ticks, "events in the history", styles)


def popularity_figure(rows: Sequence[PopularityRow], styles: Styles) -> Markup | None:
    """Draw what share of the recommendations each popularity class of items gets, and the recall within it."""
    buckets = list(dict.fromkeys(row.bucket for row in rows))
    sizes = {row.bucket: row.items for row in rows if row.items is not None}
    ticks = [f"{bucket}\n{formats.count(sizes[bucket])} items" if bucket in sizes else bucket for bucket in buckets]
    return _by_bucket(rows, ("share_of_recommendations", "recall"), buckets, ticks, "popularity of the item", styles)


def _by_bucket(
    rows: Sequence[ActivityRow] | Sequence[PopularityRow],
    metrics: Sequence[str],
    buckets: list[str],
    ticks: list[str],
    text: str,
    styles: Styles,
) -> Markup | None:
    panels = [metric for metric in metrics if any(getattr(row, metric) is not None for row in rows)]
    if not panels:
        return None
    return inline_svg(lambda: _draw_by_bucket(rows, panels, buckets, ticks, text, styles), f"Accuracy by {text}")


def _draw_by_bucket(
    rows: Sequence[ActivityRow] | Sequence[PopularityRow],
    panels: list[str],
    buckets: list[str],
    ticks: list[str],
    text: str,
    styles: Styles,
) -> Figure:
    figure, axes = grid(len(panels), len(panels), 3.0)
    names = methods.ordered(row.method for row in rows)
    for panel, metric in zip(axes, panels, strict=True):
        for method in names:
            points = sorted(
                (buckets.index(row.bucket), getattr(row, metric))
                for row in rows
                if row.method == method and getattr(row, metric) is not None
            )
            if points:
                draw_line(panel, styles[method].style, *zip(*points, strict=True))
        panel.set_xticks(range(len(buckets)), ticks)
        panel.set_xlabel(text)
        panel.margins(x=0.06, y=0.12)
        panel.set_ylim(bottom=0)
        percent_axis(panel)
        panel.set_title(metric.replace("_", " ").capitalize())
    legend(figure, [styles[method] for method in names])
    return figure


def _curves(summary: Summary, view: View) -> dict[str, list[CurvePoint]]:
    named = methods.ordered(row.method for row in summary.curves if view.holds(row))
    curves = {method: tables.curve_of(summary, view, method) for method in named}
    return {method: curve for method, curve in curves.items() if curve}


def _pairs(curve: list[CurvePoint], axis: str, metric: str) -> list[tuple[float, float]]:
    pairs = [(getattr(point, axis), getattr(point, metric)) for point in curve]
    return sorted((cost, value) for cost, value in pairs if cost and value is not None)
