"""From measured points to ``summary.json``: means over seeds, intervals over users, paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dr_core.evaluation.bootstrap import bootstrap_interval, paired_bootstrap
from dr_core.evaluation.curves import paired_difference, shared_range
from dr_core.evaluation.evaluator import Point, nearest
from pipelines.config.run import RunConfig
from pipelines.evaluation.measurement import Measurement

RESULT_FIGURES = ("precision", "recall", "f1", "ndcg", "hit_rate", "overlap")
SUBJECT = "deep_retrieval"
RIVALS = ("item_cf", "ease", "als", "mult_vae", "youtube_dnn", "self_attention", "two_tower", "ffm")
"""Methods of ``dr compare`` that score every item."""
AGAINST = (
    "random_paths",
    "embedding_paths",
    "popular_candidates",
    "random_candidates",
    "exact_candidates",
)


def results(seeds: Sequence[Measurement], config: RunConfig) -> list[dict[str, Any]]:
    """One row per (method, filtered, k) at the operating point."""
    rows = []
    for method in _methods(seeds, "operating"):
        points = [seed.operating[method] for seed in seeds]
        for filtered in (True, False):
            for k in config.list_lengths:
                precision = [point.figures[(filtered, k, "precision")] for point in points]
                by_seed = [float(np.nanmean(values)) for values in precision]
                rows.append(
                    {
                        "method": method,
                        "filtered": filtered,
                        "k": k,
                        "users": len(precision[0]),
                        **{
                            name: _mean(point.figures[(filtered, k, name)] for point in points)
                            for name in RESULT_FIGURES
                        },
                        "candidates": None if method == "popularity" else _mean(point.candidates for point in points),
                        "candidate_recall": _finite(_mean(point.candidate_recall for point in points)),
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
    for method in _methods(seeds, "curves"):
        merged = _merge([seed.curves[method] for seed in seeds])
        for filtered in (True, False):
            for k in config.list_lengths:
                rows += [
                    {
                        "method": method,
                        "filtered": filtered,
                        "k": k,
                        "beam": _optional(point.beam for point in points),
                        "candidates": _mean(point.candidates for point in points),
                        **{
                            name: _mean(point.figures[(filtered, k, name)] for point in points)
                            for name in ("precision", "recall", "overlap")
                        },
                        "candidate_recall": _mean(point.candidate_recall for point in points),
                        "multiply_adds": _optional(point.multiply_adds for point in points),
                        "microseconds": _optional(point.microseconds for point in points),
                    }
                    for points in merged
                ]
    return rows


def differences(seeds: Sequence[Measurement], config: RunConfig, num_items: int) -> list[dict[str, Any]]:
    """Paired differences of Deep Retrieval against the other arms at equal candidates and at equal multiply-adds."""
    rows = []
    known = _methods(seeds, "curves")
    others = [name for name in AGAINST if name in known] + [
        name for name in known if name not in AGAINST and name not in (SUBJECT, "brute_force")
    ]
    for share in config.evaluation.difference_shares:
        candidates = share * num_items
        own_work = float(np.mean([nearest(seed.curves[SUBJECT], candidates).multiply_adds or 0.0 for seed in seeds]))
        for axis, at in (("candidates", candidates), ("multiply_adds", own_work)):
            for against in others:
                for filtered in (True, False):
                    for k in config.list_lengths:
                        for metric in ("overlap", "candidate_recall", "precision", "recall"):
                            row = _difference(seeds, config, against, axis, at, metric, filtered, k)
                            if row is not None:
                                rows.append(row)
    return rows + _as_they_are(seeds, config)


def _as_they_are(seeds: Sequence[Measurement], config: RunConfig) -> list[dict[str, Any]]:
    """Paired differences of Deep Retrieval's own answer against every other method's, whatever each of them costs."""
    rows = []
    for against in _methods(seeds, "operating"):
        if against == SUBJECT or against in AGAINST:
            continue
        for filtered in (True, False):
            for k in config.list_lengths:
                for metric in ("precision", "recall", "ndcg"):
                    own, other = (
                        [seed.operating[method].figures[(filtered, k, metric)] for seed in seeds]
                        for method in (SUBJECT, against)
                    )
                    mean, low, high = paired_bootstrap(own, other, config.evaluation.bootstrap, config.seed)
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

    own, other = ([read(seed, method) for seed in seeds] for method in (SUBJECT, against))
    try:
        low, high = shared_range([*own, *other])
    except ValueError:
        return None
    if not low <= at <= high:
        return None
    mean, interval_low, interval_high = paired_difference(own, other, at, config.evaluation.bootstrap, config.seed)
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


def _methods(seeds: Sequence[Measurement], part: str) -> list[str]:
    return [name for name in getattr(seeds[0], part) if all(name in getattr(seed, part) for seed in seeds)]


def _merge(curves_by_seed: Sequence[list[Point]]) -> list[list[Point]]:
    """Put the seeds' points of one width together; widths that not every seed has are left out."""

    def width(point: Point) -> float:
        return point.beam if point.beam is not None else round(point.mean_candidates)

    shared = set.intersection(*({width(point) for point in points} for points in curves_by_seed))
    by_width = [{width(point): point for point in points} for points in curves_by_seed]
    return [[points[at] for points in by_width] for at in sorted(shared)]


def _mean(values: Any) -> float:
    return float(np.mean([np.nanmean(part) if np.isfinite(part).any() else np.nan for part in values]))


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _optional(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
