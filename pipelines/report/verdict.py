"""What the figures say, in words: fidelity at its cost, the controls, and what should worry the reader.

Every sentence is computed from the summary and is left out where its figures are missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Literal

from pipelines.report import formats, methods, tables
from pipelines.report.formats import Figure
from pipelines.report.summary import CurvePoint, Difference, Result, Summary
from pipelines.report.tables import View

LARGEST_PATH_SHARE = 0.05
"""A path with more than this share of the items is no longer a path but a popularity list."""
CANDIDATE_SHARE = 0.10
"""With more than this share of the items as candidates, agreement with brute force is cheap."""
SATURATED_PRECISION = 0.95
"""A popularity control that keeps this share of the brute force's precision leaves precision nothing to tell."""
LOW_ENTROPY = 0.7
COLLAPSE_FACTOR = 0.5
"""Occupied paths falling below this share of the first round's count as a collapse."""
JUDGED = ("overlap", "candidate_recall")
"""The metrics that tell structures apart; precision and recall after reranking saturate."""


Level = Literal["warning", "good", "note"]
_LEVELS: tuple[Level, ...] = ("warning", "good", "note")


@dataclass(frozen=True)
class Remark:
    """One thing to know, with how much it should please or worry."""

    level: Level
    text: str


def verdict(summary: Summary) -> str:
    """Return a paragraph: how faithful, at what cost, how near the ceiling; empty without Deep Retrieval's results."""
    for view in tables.views(summary)[:1]:
        ours = tables.result_of(summary, view, tables.subject(summary))
        if ours is not None:
            brute = tables.result_of(summary, view, methods.BRUTE_FORCE)
            said = [_fidelity(summary, view, ours, brute), _cost(summary, ours, brute), _ceiling(summary, view, ours)]
            said.append(_standing(summary))
            return " ".join(sentence for sentence in said if sentence)
    return ""


def remarks(summary: Summary) -> list[Remark]:
    """Return the comparisons with the controls and the warnings, the worst first."""
    found = [*_controls(summary), *_convergence(summary), *_collapse(summary), *_saturation(summary)]
    return sorted(found, key=lambda remark: _LEVELS.index(remark.level))


def _fidelity(summary: Summary, view: View, ours: Result, brute: Result | None) -> str:
    looked = "" if ours.candidates is None else f" looks at {formats.count(ours.candidates)}"
    if looked and summary.data.items:
        share = formats.percent((ours.candidates or 0) / summary.data.items, 1)
        looked += f" of {formats.count(summary.data.items)} items ({share} %)"
    elif looked:
        looked += " items"
    returned = ""
    if ours.overlap is not None:
        returned = f" returns {formats.percent(ours.overlap, 1)} % of the brute-force top {view.k}"
    if not looked and not returned:
        return ""
    beam = "" if ours.beam is None else f"with a beam of {formats.count(ours.beam)}, "
    text = f"{beam}{methods.label(ours.method)}{' and'.join(part for part in (looked, returned) if part)}"
    if brute is not None and brute.precision and ours.precision is not None:
        text += (
            f"; its precision is {formats.percent(ours.precision)} % against {formats.percent(brute.precision)} %"
            f" for brute force ({formats.percent(ours.precision / brute.precision, 1)} % of it)"
        )
    return f"{view.title[0].upper()}{view.title[1:]}: {text}."


def _cost(summary: Summary, ours: Result, brute: Result | None) -> str:
    if brute is None:
        return ""
    parts = []
    own_adds, all_adds = (tables.multiply_adds_of(summary, row) for row in (ours, brute))
    if own_adds and all_adds:
        parts.append(
            f"takes {formats.magnitude(own_adds)} multiply-adds where brute force takes {formats.magnitude(all_adds)}"
            f" ({_times(all_adds / own_adds, 'fewer', 'more')})"
        )
    if ours.microseconds and brute.microseconds:
        parts.append(
            f"{formats.count(ours.microseconds)} µs a user against {formats.count(brute.microseconds)} µs"
            f" ({_times(brute.microseconds / ours.microseconds, 'faster', 'slower')})"
        )
        if len(parts) == 1:
            parts[0] = f"takes {parts[0]}"
    return f"It {' and '.join(parts)}." if parts else ""


def _ceiling(summary: Summary, view: View, ours: Result) -> str:
    if ours.candidate_recall is None or ours.candidates is None:
        return ""
    ceiling = _interpolated(tables.curve_of(summary, view, methods.CEILING), ours.candidates)
    if not ceiling:
        return ""
    return (
        f"Its candidates hold {formats.percent(ours.candidate_recall, 1)} % of what users went on to choose; the"
        f" softmax's own best {formats.count(round(ours.candidates))} would hold {formats.percent(ceiling, 1)} %"
        f" ({formats.percent(ours.candidate_recall / ceiling, 0)} % of that ceiling)."
    )


def _standing(summary: Summary) -> str:
    judged = [row for row in _judged(summary) if row.axis == "candidates"]
    groups = {against: [*rows] for against, rows in groupby(judged, key=lambda row: row.against)}
    standing = {level: [against for against in groups if _level(groups[against]) == level] for level in _LEVELS}
    texts: dict[Level, str] = {
        "good": "it is above {} on overlap and candidate recall",
        "note": "it is not clearly above {} on both",
        "warning": "somewhere it falls below {}",
    }
    parts = [text.format(_listed(standing[level])) for level, text in texts.items() if standing[level]]
    return f"At equal candidates {'; '.join(parts)}." if parts else ""


def _judged(summary: Summary) -> list[Difference]:
    """Return the main view's differences from the controls at equal cost, by control, axis and metric."""
    ours, main = tables.subject(summary), tables.views(summary)[:1]
    judged = [
        row
        for row in summary.differences
        if row.method == ours and row.against in methods.CONTROLS and row.metric in JUDGED and row.axis is not None
        if row.mean is not None and any(view.holds(row) for view in main)
    ]
    return sorted(judged, key=lambda row: (methods.CONTROLS.index(row.against), row.axis, JUDGED.index(row.metric)))


def _level(rows: list[Difference]) -> Level:
    signs = {tables.sign(row) for row in rows}
    if "lower" in signs:
        return "warning"
    return "good" if signs == {"higher"} else "note"


def _listed(against: list[str]) -> str:
    names = [methods.label(method).lower() for method in against]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _controls(summary: Summary) -> Iterator[Remark]:
    for (against, axis), rows in groupby(_judged(summary), key=lambda row: (row.against, row.axis or "")):
        group = list(rows)
        parts = [_metric_text(metric, list(of)) for metric, of in groupby(group, key=lambda row: row.metric)]
        text = f"Against {methods.label(against).lower()} at equal {tables.AXES.get(axis, axis)}: {', '.join(parts)}."
        yield Remark(_level(group), text)


def _metric_text(metric: str, rows: list[Difference]) -> str:
    means = sorted(row.mean for row in rows if row.mean is not None)
    span = " to ".join(dict.fromkeys((formats.points(means[0]), formats.points(means[-1]))))
    signs = [tables.sign(row) for row in rows]
    told = {name: signs.count(name) for name in ("higher", "lower", "unclear") if name in signs}
    if len(told) == 1:
        judgement = {"higher": "higher", "lower": "lower", "unclear": "no clear difference"}[signs[0]]
        judgement += " everywhere" if len(signs) > 1 and signs[0] != "unclear" else ""
    else:
        judgement = ", ".join(f"{name} at {number} of {len(signs)}" for name, number in told.items())
    return f"{tables.FRACTIONS[metric]} {span} points ({judgement})"


def _convergence(summary: Summary) -> Iterator[Remark]:
    steps = [
        (row.round, row.likelihood_after - row.likelihood_before)
        for row in summary.rounds
        if row.likelihood_before is not None and row.likelihood_after is not None
    ]
    fallen = [str(number) for number, change in steps if change < 0]
    if fallen:
        rounds = f"round {fallen[0]}" if len(fallen) == 1 else f"rounds {', '.join(fallen)}"
        text = f"The M-step of {rounds} lowered the true likelihood (the surrogate it raises is an upper bound)."
        yield Remark("note", text)
    elif steps:
        yield Remark("good", "Every M-step raised the true likelihood of the samples.")


def _collapse(summary: Summary) -> Iterator[Remark]:
    health, num_items = summary.health, summary.data.items
    if health.largest_path is not None and num_items and health.largest_path > LARGEST_PATH_SHARE * num_items:
        share = formats.percent(health.largest_path / num_items, 1)
        yield Remark(
            "warning",
            f"The largest path holds {formats.count(health.largest_path)} items ({share} % of all): whoever visits it"
            " is shown nearly the same as everyone else. Raise alpha.",
        )
    if health.normalized_entropy is not None and health.normalized_entropy < LOW_ENTROPY:
        yield Remark(
            "warning",
            f"Path sizes are uneven (normalised entropy {formats.plain(health.normalized_entropy)}). Raise alpha or"
            " start from balanced paths.",
        )
    if health.items_without_path:
        yield Remark("warning", f"{formats.count(health.items_without_path)} items lie on no path and cannot be found.")
    occupied = [row.occupied_paths for row in summary.rounds if row.occupied_paths is not None]
    if len(occupied) > 1 and occupied[-1] < COLLAPSE_FACTOR * occupied[0]:
        yield Remark(
            "warning",
            f"Occupied paths fell from {formats.count(occupied[0])} to {formats.count(occupied[-1])} over the rounds:"
            " the structure is collapsing. Raise alpha.",
        )


def _saturation(summary: Summary) -> Iterator[Remark]:
    for view in tables.views(summary)[:1]:
        ours = tables.result_of(summary, view, tables.subject(summary))
        brute = tables.result_of(summary, view, methods.BRUTE_FORCE)
        popular = tables.result_of(summary, view, "popular_candidates")
        share = _share(ours.candidates if ours else None, summary.data.items)
        if share is not None and share > CANDIDATE_SHARE:
            yield Remark(
                "warning",
                f"The candidates are {formats.percent(share, 0)} % of all items: agreeing with brute force is cheap"
                " there. Read the curves further left.",
            )
        kept = _share(popular.precision if popular else None, brute.precision if brute else None)
        if kept is not None and kept >= SATURATED_PRECISION:
            yield Remark(
                "note",
                f"Reranking the most popular candidates alone keeps {formats.percent(kept, 0)} % of the brute force's"
                " precision: here precision tells structures apart badly, overlap and candidate recall do.",
            )


def _times(ratio: float, more: str, less: str) -> str:
    if ratio >= 1.05:
        return f"{ratio:.1f} times {more}"
    return f"{1 / ratio:.1f} times {less}" if ratio <= 1 / 1.05 else "about the same"


def _share(part: Figure, whole: Figure) -> float | None:
    return part / whole if part is not None and whole else None


def _interpolated(curve: list[CurvePoint], at: float) -> float | None:
    """Return the candidate recall of a mean curve at ``at`` candidates, None outside it."""
    points = [(row.candidates, row.candidate_recall) for row in curve]
    known = [(cost, found) for cost, found in points if cost is not None and found is not None]
    for (left, low), (right, high) in pairwise(known):
        if left <= at <= right:
            return float(low) if left == right else float(low + (high - low) * (at - left) / (right - left))
    return None
