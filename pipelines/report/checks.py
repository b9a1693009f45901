"""What of a run should please or worry: one figure against one bound a line, in a table.

Every check is read from the summary and is left out where its figures are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from pipelines.evaluation import methods
from pipelines.report import formats, tables
from pipelines.report.formats import Figure
from pipelines.report.summary import CurvePoint, Difference, Summary

FIDELITY = ("overlap", "candidate_recall")
"""The metrics that tell structures apart; precision and recall after reranking saturate."""
Level = Literal["warning", "note", "good", "figure"]
_LEVELS: tuple[Level, ...] = ("warning", "note", "good", "figure")


@dataclass(frozen=True)
class Check:
    """One line of the table: what was looked at, what it is, what it should be."""

    name: str
    figure: str
    bound: str
    level: Level
    advice: str = ""


@dataclass(frozen=True)
class Threshold:
    """A figure of the summary and where it should lie.

    Attributes:
        name: what is looked at.
        figure: reads it; None where the summary lacks it.
        shown: writes it.
        least, most: where it should lie; without either the figure is told and not judged.
        failing: what it is called when it does not.
        advice: what to do then.
    """

    name: str
    figure: Callable[[Summary], Figure]
    shown: Callable[[Figure], str]
    least: float | None = None
    most: float | None = None
    failing: Level = "warning"
    advice: str = ""

    def check(self, summary: Summary) -> Check | None:
        """Return the line; None where the summary lacks the figure."""
        figure = self.figure(summary)
        if figure is None:
            return None
        if self.least is None and self.most is None:
            return Check(self.name, self.shown(figure), formats.MISSING, "figure")
        holds = (self.least is None or figure >= self.least) and (self.most is None or figure <= self.most)
        bound = f"at least {self.shown(self.least)}" if self.least is not None else f"at most {self.shown(self.most)}"
        return Check(
            self.name, self.shown(figure), bound, "good" if holds else self.failing, "" if holds else self.advice
        )


def checks(summary: Summary) -> list[Check]:
    """Return all checks that the summary has figures for, the worst first."""
    lines = [*(threshold.check(summary) for threshold in THRESHOLDS), *control_checks(summary)]
    return sorted((line for line in lines if line), key=lambda line: _LEVELS.index(line.level))


def control_checks(summary: Summary) -> list[Check]:
    """Return one line a control, axis and metric of the main view: the difference furthest down that axis."""
    lines = []
    for against in methods.CONTROLS:
        for axis in ("candidates", "multiply_adds"):
            for metric in FIDELITY:
                rows = [row for row in _main_differences(summary) if _is(row, against, axis, metric)]
                if rows:
                    lines.append(_compared(rows, against, axis, metric))
    return lines


def _compared(rows: list[Difference], against: str, axis: str, metric: str) -> Check:
    means = sorted(row.mean for row in rows if row.mean is not None)
    signs = {tables.sign(row) for row in rows}
    level: Level = "warning" if "lower" in signs else "good" if signs == {"higher"} else "note"
    name = f"{tables.FRACTIONS[metric].capitalize()} over {methods.label(against).lower()}, equal {tables.AXES[axis]}"
    figure = " to ".join(dict.fromkeys((formats.points(means[0]), formats.points(means[-1])))) + " points"
    return Check(name, figure, "interval above 0", level)


def _main_differences(summary: Summary) -> list[Difference]:
    ours, main = tables.subject(summary), tables.views(summary)[:1]
    return [row for row in summary.differences if row.method == ours and any(view.holds(row) for view in main)]


def _is(row: Difference, against: str, axis: str, metric: str) -> bool:
    return (row.against, row.axis, row.metric) == (against, axis, metric) and row.mean is not None


def _of_main(method: str | None, name: str) -> Callable[[Summary], Figure]:
    """Return the reader of a result of the main view; ``None`` stands for Deep Retrieval or its first variant."""

    def read(summary: Summary) -> Figure:
        for view in tables.views(summary)[:1]:
            row = tables.result_of(summary, view, method or tables.subject(summary))
            return None if row is None else getattr(row, name)
        return None

    return read


def _ratio(part: Callable[[Summary], Figure], whole: Callable[[Summary], Figure]) -> Callable[[Summary], Figure]:
    def read(summary: Summary) -> Figure:
        above, below = part(summary), whole(summary)
        return above / below if above is not None and below else None

    return read


def _work(method: str | None) -> Callable[[Summary], Figure]:
    def read(summary: Summary) -> Figure:
        for view in tables.views(summary)[:1]:
            row = tables.result_of(summary, view, method or tables.subject(summary))
            return tables.multiply_adds_of(summary, row)
        return None

    return read


def _ceiling(summary: Summary) -> Figure:
    """Return the candidate recall of the softmax's own best items, as many as Deep Retrieval has candidates."""
    candidates = _of_main(None, "candidates")(summary)
    for view in tables.views(summary)[:1]:
        if candidates is not None:
            return _interpolated(tables.curve_of(summary, view, methods.EXACT_CANDIDATES), candidates)
    return None


def _interpolated(curve: Iterable[CurvePoint], at: float) -> float | None:
    points = [(row.candidates, row.candidate_recall) for row in curve]
    known = [(cost, recall) for cost, recall in points if cost is not None and recall is not None]
    for (left, low), (right, high) in pairwise(known):
        if left <= at <= right:
            return float(low) if left == right else float(low + (high - low) * (at - left) / (right - left))
    return None


def _fallen_rounds(summary: Summary) -> Figure:
    changes = [
        row.likelihood_after - row.likelihood_before
        for row in summary.rounds
        if row.likelihood_before is not None and row.likelihood_after is not None
    ]
    return sum(change < 0 for change in changes) if changes else None


def _kept_paths(summary: Summary) -> Figure:
    occupied = [row.occupied_paths for row in summary.rounds if row.occupied_paths is not None]
    return occupied[-1] / occupied[0] if len(occupied) > 1 and occupied[0] else None


def _share(figure: Figure) -> str:
    return f"{formats.percent(figure, 1)} %"


def _items(summary: Summary) -> Figure:
    return summary.data.items


_OURS = None
THRESHOLDS = (
    Threshold("Overlap with brute force", _of_main(_OURS, "overlap"), _share),
    Threshold("Precision, of brute force's",
              _ratio(_of_main(_OURS, "precision"), _of_main(methods.BRUTE_FORCE, "precision")), _share),
    Threshold("Candidate recall, of the softmax's own best as many",
              _ratio(_of_main(_OURS, "candidate_recall"), _ceiling), _share),
    Threshold("Multiply-adds, of brute force's", _ratio(_work(_OURS), _work(methods.BRUTE_FORCE)), _share, most=1.0,
              failing="note", advice="Below some thousand items, scoring all of them is cheaper than any search."),
    Threshold("Time a user, of brute force's",
              _ratio(_of_main(_OURS, "microseconds"), _of_main(methods.BRUTE_FORCE, "microseconds")), _share, most=1.0,
              failing="note"),
    Threshold("Candidates, of all items", _ratio(_of_main(_OURS, "candidates"), _items), _share, most=0.10,
              advice="Agreeing with brute force is cheap there: read the curves further left."),
    Threshold("Precision of popular candidates, of brute force's",
              _ratio(_of_main("popular_candidates", "precision"), _of_main(methods.BRUTE_FORCE, "precision")), _share,
              most=0.95, failing="note",
              advice="Precision tells structures apart badly here; overlap and candidate recall do."),
    Threshold("Rounds that lowered the likelihood", _fallen_rounds, formats.count, most=0, failing="note",
              advice="The surrogate that an M-step raises is an upper bound of it."),
    Threshold("Largest path, of all items", _ratio(lambda summary: summary.health.largest_path, _items), _share,
              most=0.05, advice="Raise alpha: it has become a list of popular items."),
    Threshold("Normalised entropy of path sizes", lambda summary: summary.health.normalized_entropy, formats.plain,
              least=0.7, advice="Raise alpha, or start from balanced paths."),
    Threshold("Items without a path", lambda summary: summary.health.items_without_path, formats.count, most=0,
              advice="They cannot be found."),
    Threshold("Occupied paths after the last round, of the first's", _kept_paths, _share, least=0.5,
              advice="The structure is collapsing: raise alpha."),
)  # fmt: skip
"""What is looked at, and where it should lie."""
