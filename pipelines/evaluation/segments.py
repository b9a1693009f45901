"""Who is served well: by activity, by popularity, and how much of the catalogue is reached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dr_core.arrays import IntArray
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
    items_Uk: dict[str, IntArray], counts_V: npt.NDArray[np.float64], creators: Sequence[str | None]
) -> list[dict[str, Any]]:
    """How much of the catalogue each method's lists reach: items, creators, the rarer half, surprise.

    Novelty is the mean over recommended items of -log2 of their share of the training events (Vargas and Castells, RecSys
    2011), in bits; the share of an item without events is that of one event.
    """
    num_items = len(counts_V)
    rank = np.empty(num_items, np.int64)
    rank[np.lexsort((np.arange(num_items), -counts_V))] = np.arange(num_items)
    surprise_V = -np.log2(np.maximum(counts_V, 1) / max(counts_V.sum(), 1))
    named = np.array([name or "" for name in creators])
    all_creators = len(set(named.tolist()) - {""})
    rows = []
    for method, items in items_Uk.items():
        held = items[items >= 0]
        reached = np.unique(held)
        met = len(set(named[reached].tolist()) - {""})
        rows.append({
            "method": method,
            "coverage": len(reached) / num_items,
            "creators": met / all_creators if all_creators else None,
            "tail_share": float((rank[held] >= num_items // 2).mean()),
            "novelty": float(surprise_V[held].mean()),
        })  # fmt: skip
    return rows


def by_popularity(
    items_Uk: dict[str, IntArray], users: EvaluationUsers, counts_V: npt.NDArray[np.float64]
) -> list[dict[str, Any]]:
    """Who gets recommended, and found: the top 1 %, the next 9 %, the next 40 %, the rest of the items by popularity."""
    num_items = len(counts_V)
    order = np.lexsort((np.arange(num_items), -counts_V))
    place = np.empty(num_items, np.int64)
    place[order] = np.arange(num_items)
    bounds = [0, max(1, num_items // 100), max(2, num_items // 10), max(3, num_items // 2), num_items]
    names = ("top 1 %", "next 9 %", "next 40 %", "rest")
    rows = []
    for method, items in items_Uk.items():
        held = items[items >= 0]
        hits = np.zeros(len(names))
        true = np.zeros(len(names))
        for user, truth in enumerate(users.truths):
            bucket = np.searchsorted(bounds, place[truth], side="right") - 1
            np.add.at(true, bucket, 1)
            np.add.at(hits, bucket, np.isin(truth, items[user]))
        share = np.bincount(np.searchsorted(bounds, place[held], side="right") - 1, minlength=len(names)) / len(held)
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
