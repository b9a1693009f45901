"""The rows of the page's tables, every cell already the text that is shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.evaluation import methods
from pipelines.report import formats
from pipelines.report.formats import Figure
from pipelines.report.summary import CurvePoint, Difference, Result, Summary

FRACTIONS = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "ndcg": "NDCG",
    "hit_rate": "hit rate",
    "overlap": "overlap",
    "candidate_recall": "candidate recall",
}
"""Metrics that are fractions (shown in percent, their differences in points) and their names."""
AXES = {"candidates": "candidates", "multiply_adds": "multiply-adds", "beam": "beams", "microseconds": "µs"}


@dataclass(frozen=True, order=True)
class View:
    """What the figures of one table have in common."""

    filtered: bool
    k: int

    @property
    def title(self) -> str:
        """As in ``top 10, history removed``."""
        return f"top {self.k}, history {'removed' if self.filtered else 'kept'}"

    def holds(self, row: Result | CurvePoint | Difference) -> bool:
        """Tell whether a row belongs to this view."""
        return row.filtered == self.filtered and row.k == self.k


@dataclass(frozen=True)
class ResultRow:
    """One method's line: cells by column name, as text."""

    method: str
    label: str
    explanation: str
    cells: dict[str, str]


@dataclass(frozen=True)
class DifferenceRow:
    """One paired difference, as text; ``sign`` says what its interval allows: ``higher``, ``lower`` or ``unclear``."""

    view: View
    pair: str
    metric: str
    at: str
    mean: str
    interval: str
    sign: str


def views(summary: Summary) -> list[View]:
    """Return the (filtered, k) pairs that have results, in the order of the results: the first is the main one."""
    return list(dict.fromkeys(View(row.filtered, row.k) for row in summary.results))


def subject(summary: Summary) -> str | None:
    """Return the method the page is about: Deep Retrieval, or else the first of its arms; None without any."""
    named = [row.method for row in summary.results]
    if methods.SUBJECT in named:
        return methods.SUBJECT
    return next((method for method in named if method.startswith(methods.SUBJECT)), None)


def result_of(summary: Summary, view: View, method: str | None) -> Result | None:
    """Return one method's results row in a view, None where there is none."""
    return next((row for row in summary.results if row.method == method and view.holds(row)), None)


def curve_of(summary: Summary, view: View, method: str) -> list[CurvePoint]:
    """Return one method's curve in a view, in ascending candidates."""
    found = [row for row in summary.curves if row.method == method and view.holds(row) and row.candidates is not None]
    return sorted(found, key=lambda row: row.candidates or 0)


def multiply_adds_of(summary: Summary, result: Result | None) -> Figure:
    """Return the multiply-adds of a results row: of the curve's point with its beam, or within 1 % of its candidates."""
    if result is None:
        return None
    counted = [
        point
        for point in curve_of(summary, View(result.filtered, result.k), result.method)
        if point.multiply_adds is not None
    ]
    same = [point for point in counted if result.beam is not None and point.beam == result.beam]
    if not same and result.candidates is not None:
        near = 0.01 * result.candidates
        same = [point for point in counted if abs((point.candidates or 0) - result.candidates) <= near]
    return same[0].multiply_adds if same else None


def result_rows(summary: Summary, view: View, *, by_accuracy: bool = False) -> list[ResultRow]:
    """Return one view's results: brute force, Deep Retrieval, controls, baselines; or the most precise first."""
    found = {row.method: row for row in summary.results if view.holds(row)}
    num_items = summary.data.items
    rows = []
    named = methods.ordered(found)
    if by_accuracy:
        named.sort(key=lambda method: -(found[method].precision or 0.0))
    for method in named:
        row = found[method]
        share = row.candidates / num_items if row.candidates is not None and num_items else None
        cells = {
            "precision": formats.percent(row.precision),
            "sd": formats.percent(row.sd),
            "interval": formats.interval(row.interval),
            "recall": formats.percent(row.recall),
            "f1": formats.percent(row.f1),
            "ndcg": formats.percent(row.ndcg),
            "hit_rate": formats.percent(row.hit_rate),
            "overlap": formats.percent(row.overlap),
            "candidate_recall": formats.percent(row.candidate_recall),
            "candidates": formats.count(row.candidates),
            "share": formats.percent(share, 1),
            "beam": formats.count(row.beam),
            "multiply_adds": formats.magnitude(multiply_adds_of(summary, row)),
            "microseconds": formats.count(row.microseconds),
        }
        rows.append(ResultRow(method, methods.label(method), methods.explanation(method), cells))
    return rows


def columns_in_use(rows: list[ResultRow]) -> set[str]:
    """Return the columns that have a figure in some row."""
    return {name for row in rows for name, text in row.cells.items() if text != formats.MISSING}


def sign(row: Difference) -> str:
    """Return ``higher`` or ``lower`` where the interval leaves 0 out, else ``unclear``."""
    if row.low is not None and row.low > 0:
        return "higher"
    return "lower" if row.high is not None and row.high < 0 else "unclear"


def axis_text(row: Difference) -> str:
    """Return what was held equal, as in ``at 80 candidates``."""
    if row.axis is None or row.at is None:
        return "each as it is"
    shown = formats.magnitude(row.at) if row.axis == "multiply_adds" else formats.count(row.at)
    return f"at {shown} {AXES.get(row.axis, row.axis)}"


def difference_rows(summary: Summary) -> Iterator[DifferenceRow]:
    """Yield the paired differences as text."""
    for row in summary.differences:
        shown = formats.points if row.metric in FRACTIONS else formats.plain
        yield DifferenceRow(
            view=View(row.filtered, row.k),
            pair=f"{methods.label(row.method)} \N{MINUS SIGN} {methods.label(row.against)}",
            metric=FRACTIONS.get(row.metric, row.metric),
            at=axis_text(row),
            mean=shown(row.mean),
            interval=f"{shown(row.low)} … {shown(row.high)}",
            sign=sign(row),
        )
