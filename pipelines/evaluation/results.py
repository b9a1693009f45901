"""From measured points to ``summary.json``: means over seeds, intervals over users, paired differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dr_core.arrays import DoubleArray
from dr_core.evaluation.bootstrap import bootstrap_interval, paired_bootstrap
from dr_core.evaluation.curves import paired_difference, shared_range
from dr_core.evaluation.evaluator import Point, nearest
from pipelines.config.run import RunConfig
from pipelines.evaluation.measurement import Measurement
from pipelines.evaluation.methods import BRUTE_FORCE, CONTROLS, EXACT_CANDIDATES, POPULARITY, SUBJECT

RESULT_FIGURES = ("precision", "recall", "f1", "ndcg", "hit_rate", "overlap")
CURVE_FIGURES = ("precision", "recall", "overlap")


def results(seeds: Sequence[Measurement], config: RunConfig) -> list[dict[str, Any]]:
    """One row per (method, filtered, k) at the operating point; means over the seeds that have the method."""
    rows = []
    for method in methods_of([seed.operating for seed in seeds]):
        points = [seed.operating[method] for seed in seeds if method in seed.operating]
        for filtered, k in _views(config):
            precision = [point.figures[(filtered, k, "precision")] for point in points]
            by_seed = [float(np.nanmean(values)) for values in precision]
            rows.append(
                {
                    "method": method,
                    "filtered": filtered,
                    "k": k,
                    "users": len(precision[0]),
                    **{name: _mean(point.figures[(filtered, k, name)] for point in points) for name in RESULT_FIGURES},
                    "candidates": None if method == POPULARITY else _mean(point.candidates for point in points),
                    "candidate_recall": _mean(point.candidate_recall for point in points),
                    "beam": _optional(point.beam for point in points),
                    "microseconds": _optional(point.microseconds for point in points),
                    "sd": float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else None,
                    "interval": list(
                        bootstrap_interval(np.concatenate(precision), config.evaluation.bootstrap, config.seed)
                    ),
                }
            )
    return rows


def curves(seeds: Sequence[Measurement], config: RunConfig) -> list[dict[str, Any]]:
    """Every method's figures along its search width, at every (filtered, k); seeds are put together by width."""
    rows = []
    for method in methods_of([seed.curves for seed in seeds]):
        merged = _merge([seed.curves[method] for seed in seeds if method in seed.curves])
        for filtered, k in _views(config):
            rows += [
                {
                    "method": method,
                    "filtered": filtered,
                    "k": k,
                    "beam": _optional(point.beam for point in points),
                    "candidates": _mean(point.candidates for point in points),
                    **{name: _mean(point.figures[(filtered, k, name)] for point in points) for name in CURVE_FIGURES},
                    "candidate_recall": _mean(point.candidate_recall for point in points),
                    "multiply_adds": _optional(point.multiply_adds for point in points),
                    "microseconds": _optional(point.microseconds for point in points),
                }
                for points in merged
            ]
    return rows


def differences(seeds: Sequence[Measurement], config: RunConfig, num_items: int) -> list[dict[str, Any]]:
    """Paired differences of Deep Retrieval against the other methods, at equal candidates and at equal multiply-adds."""
    rows = []
    known = methods_of([seed.curves for seed in seeds])
    if SUBJECT not in known:
        return []
    first = [name for name in (*CONTROLS, EXACT_CANDIDATES) if name in known]
    others = first + [name for name in known if name not in (*first, SUBJECT, BRUTE_FORCE)]
    for share in config.evaluation.compare_at_shares:
        candidates = share * num_items
        own_work = float(np.mean([nearest(seed.curves[SUBJECT], candidates).multiply_adds or 0.0 for seed in seeds]))
        for axis, at in (("candidates", candidates), ("multiply_adds", own_work)):
            for against in others:
                paired = [seed for seed in seeds if against in seed.curves]
                for filtered, k in _views(config):
                    for metric in ("overlap", "candidate_recall", "precision", "recall"):
                        row = _difference(paired, config, against, axis, at, metric, filtered, k)
                        if row is not None:
                            rows.append(row)
    return rows + _as_they_are(seeds, config)


def methods_of(by_seed: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the methods that any of the seeds has, in the order in which they come up."""
    return list(dict.fromkeys(name for seed in by_seed for name in seed))


def seeds_measured(seeds: Sequence[Measurement]) -> dict[str, int]:
    """Return how many seeds have a method, for the methods that some of them lack."""
    counts = {
        name: sum(name in seed.operating for seed in seeds) for name in methods_of([seed.operating for seed in seeds])
    }
    return {name: count for name, count in counts.items() if count < len(seeds)}


def _views(config: RunConfig) -> list[tuple[bool, int]]:
    return [(filtered, k) for filtered in (True, False) for k in config.list_lengths]


def _as_they_are(seeds: Sequence[Measurement], config: RunConfig) -> list[dict[str, Any]]:
    """Paired differences of Deep Retrieval's own lists against every other method's, whatever each of them costs."""
    rows = []
    for against in methods_of([seed.operating for seed in seeds]):
        if against in (SUBJECT, *CONTROLS, EXACT_CANDIDATES):
            continue
        paired = [seed.operating for seed in seeds if against in seed.operating]
        for filtered, k in _views(config):
            for metric in ("precision", "recall", "ndcg"):
                ours, theirs = (
                    [points[method].figures[(filtered, k, metric)] for points in paired]
                    for method in (SUBJECT, against)
                )
                mean, low, high = paired_bootstrap(ours, theirs, config.evaluation.bootstrap, config.seed)
                rows.append({
                    "method": SUBJECT, "against": against, "metric": metric, "filtered": filtered, "k": k,
                    "axis": None, "at": None, "mean": mean, "low": low, "high": high,
                })  # fmt: skip
    return rows


def _difference(
    seeds: Sequence[Measurement],
    config: RunConfig,
    against: str,
    axis: str,
    at: float,
    metric: str,
    filtered: bool,
    k: int,
) -> dict[str, Any] | None:
    def read(seed: Measurement, method: str) -> list[tuple[float, Any]]:
        return [
            (
                point.mean_candidates if axis == "candidates" else float(point.multiply_adds or 0.0),
                point.metric(metric, filtered, k),
            )
            for point in seed.curves[method]
        ]

    ours, theirs = ([read(seed, method) for seed in seeds] for method in (SUBJECT, against))
    try:
        low, high = shared_range([*ours, *theirs])
    except ValueError:
        return None
    if not low <= at <= high:
        return None
    mean, interval_low, interval_high = paired_difference(ours, theirs, at, config.evaluation.bootstrap, config.seed)
    return {
        "method": SUBJECT,
        "against": against,
        "metric": metric,
        "filtered": filtered,
        "k": k,
        "axis": axis,
        "at": at,
        "mean": mean,
        "low": interval_low,
        "high": interval_high,
    }


def _merge(curves_by_seed: Sequence[list[Point]]) -> list[list[Point]]:
    """Put the seeds' points of one width, or of one number of wanted candidates, together; those that not every seed has are
    left out."""

    def width(point: Point) -> float:
        if point.wanted is not None:
            return point.wanted
        return point.beam if point.beam is not None else round(point.mean_candidates)

    shared = set.intersection(*({width(point) for point in points} for points in curves_by_seed))
    by_width = [{width(point): point for point in points} for points in curves_by_seed]
    return [[points[at] for points in by_width] for at in sorted(shared)]


def _mean(values: Iterable[DoubleArray]) -> float | None:
    """Return the mean over seeds of the mean over users; None where a seed's users have no figure."""
    means = [float(np.nanmean(part)) if np.isfinite(part).any() else np.nan for part in values]
    return float(np.mean(means)) if np.isfinite(means).all() else None


def _optional(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
