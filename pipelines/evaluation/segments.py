"""Who is served well: by activity, by popularity, and how much of the catalogue is reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dr_core.arrays import DoubleArray, IntArray
from dr_core.evaluation.evaluator import EvaluationUsers
from pipelines.evaluation.measurement import Measurement


def by_activity(
    measurement: Measurement, users: EvaluationUsers, methods: Sequence[str], k: int, filtered: bool
) -> list[dict[str, Any]]:
    """Accuracy by the length of the user's history, in quarters of the users."""
    lengths = np.array([len(history) for history in users.histories])
    edges = np.unique(np.quantile(lengths, [0, 0.25, 0.5, 0.75, 1]).astype(int))
    rows = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        chosen = (lengths >= low) & (lengths < high if high != edges[-1] else lengths <= high)
        if not chosen.any():
            continue
        last = high - 1 if high != edges[-1] else high
        for method in methods:
            point = measurement.operating[method]
            rows.append(
                {
                    "method": method,
                    "bucket": f"{low}–{last} events",
                    "users": int(chosen.sum()),
                    **{
                        name: float(np.nanmean(point.figures[(filtered, k, name)][chosen]))
                        for name in ("precision", "recall", "overlap")
                    },
                }
            )
    return rows


def breadth(
    items_Uk: Mapping[str, IntArray], counts_V: DoubleArray, creators: Mapping[int, str], num_creators: int
) -> list[dict[str, Any]]:
    """How much of the catalogue each method's lists reach: items, creators, the rarer half, surprise.

    Novelty is the mean over recommended items of -log2 of their share of the training events (Vargas and Castells, RecSys
    2011), in bits; the share of an item without events is that of one event.

    Args:
        items_Uk: by method, the lists int64 [U, k], -1 where one ends early.
        counts_V: training events an item.
        creators: of the items on the lists, by item id; items without one are left out.
        num_creators: different ones in the whole catalogue.
    """
    rank_V = _popularity_rank(counts_V)
    surprise_V = -np.log2(np.maximum(counts_V, 1) / max(counts_V.sum(), 1))
    rows = []
    for method, lists in items_Uk.items():
        recommended = lists[lists >= 0]
        reached = np.unique(recommended)
        reached_creators = {creators[item] for item in reached.tolist() if item in creators}
        rows.append({
            "method": method,
            "coverage": len(reached) / len(counts_V),
            "creators": len(reached_creators) / num_creators if num_creators else None,
            "tail_share": float((rank_V[recommended] >= len(counts_V) // 2).mean()),
            "novelty": float(surprise_V[recommended].mean()),
        })  # fmt: skip
    return rows


def by_popularity(
    items_Uk: Mapping[str, IntArray], users: EvaluationUsers, counts_V: DoubleArray
) -> list[dict[str, Any]]:
    """Who gets recommended, and found: the top 1 %, the next 9 %, the next 40 %, the rest of the items by popularity."""
    num_items = len(counts_V)
    rank_V = _popularity_rank(counts_V)
    bounds = [0, max(1, num_items // 100), max(2, num_items // 10), max(3, num_items // 2), num_items]
    names = ("top 1 %", "next 9 %", "next 40 %", "rest")
    rows = []
    for method, lists in items_Uk.items():
        recommended = lists[lists >= 0]
        hits = np.zeros(len(names))
        true = np.zeros(len(names))
        for user, truth in enumerate(users.truths):
            known = truth[truth < num_items]
            bucket = np.searchsorted(bounds, rank_V[known], side="right") - 1
            np.add.at(true, bucket, 1)
            np.add.at(hits, bucket, np.isin(known, lists[user]))
        buckets = np.searchsorted(bounds, rank_V[recommended], side="right") - 1
        share = np.bincount(buckets, minlength=len(names)) / len(recommended)
        rows += [
            {
                "method": method,
                "bucket": name,
                "items": bounds[number + 1] - bounds[number],
                "share_of_recommendations": float(share[number]),
                "recall": float(hits[number] / true[number]) if true[number] else None,
            }
            for number, name in enumerate(names)
        ]
    return rows


def _popularity_rank(counts_V: DoubleArray) -> IntArray:
    """Return every item's place by training events, most first; ties by item id."""
    rank_V = np.empty(len(counts_V), np.int64)
    rank_V[np.lexsort((np.arange(len(counts_V)), -counts_V))] = np.arange(len(counts_V))
    return rank_V
