"""Approximate indexes of item vectors: the settings each may choose from, and their measurement along the search width."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dr_core.arrays import DoubleArray, FloatArray, IntArray
from dr_core.baselines.ann import HNSW, IVF, IVFPQ, LSH, AnnIndex, Found
from dr_core.evaluation.evaluator import CHUNK, Point
from dr_core.evaluation.metrics import candidate_recall, contains
from dr_core.item_lists import ItemLists
from dr_core.retrieval.candidates import Candidates, rerank
from pipelines.evaluation.methods import SUBJECT
from pipelines.experiments.choose import Settings, choose
from pipelines.experiments.seed_data import Measured, Points, SeedData
from pipelines.experiments.timing import median_seconds

TUNED_SHARE = 0.025
"""Candidates, as a share of the items, at which the settings of an index are compared."""
FULL = 0.99
"""Share of the headline lists' places that a method's operating point has to fill."""
SOFTMAX_INDEXES = {"softmax_ivf": "ivf", "softmax_ivf_work": "ivf_work", "softmax_hnsw": "hnsw"}
"""Indexes over Deep Retrieval's own softmax vectors, by method name."""
EQUAL_WORK = "softmax_ivf_work"
"""The index that is tuned to and read at Deep Retrieval's multiply-adds instead of its candidates: few, long lists."""


@dataclass(frozen=True)
class IndexKind:
    """A kind of index.

    Attributes:
        build: a new one over float32 vectors [V, E].
        settings: what it may choose from.
    """

    build: Callable[..., AnnIndex]
    settings: tuple[Settings, ...]


INDEXES = {
    "ivf": IndexKind(IVF, ({"items_per_list": 16}, {"items_per_list": 4}, {"items_per_list": 4, "lengthened": False})),
    "ivf_work": IndexKind(IVF, ({"items_per_list": 32}, {"items_per_list": 16}, {"items_per_list": 64})),
    "ivf_pq": IndexKind(
        IVFPQ,
        ({"items_per_list": 32}, {"items_per_list": 32, "lengthened": False}, {"items_per_list": 32, "kept": 2}),
    ),
    "hnsw": IndexKind(HNSW, ({"neighbours": 16}, {"neighbours": 16, "lengthened": False}, {"neighbours": 32})),
    "lsh": IndexKind(LSH, ({"bits": 256}, {"bits": 512}, {"bits": 512, "lengthened": False})),
}
"""The kinds of index, by name."""


@dataclass(frozen=True)
class Vectors:
    """What an index is built over and asked with.

    Attributes:
        item_VE: float32, scored by inner product.
        test_UE, validation_UE: float32, the users' vectors.
    """

    item_VE: FloatArray
    test_UE: FloatArray
    validation_UE: FloatArray


def measure_index(
    data: SeedData, method: str, kind: str, vectors: Vectors, settings: tuple[Settings, ...]
) -> tuple[list[Measured], dict[str, Any]]:
    """Choose an index's settings and measure it along its widths; its candidates are ranked by the same vectors.

    Args:
        method: registered name.
        kind: of :data:`INDEXES`.
        settings: those to choose from.

    Returns:
        Its points with their lists, by ascending width, and the record of the choice.
    """
    active_VE = np.ascontiguousarray(vectors.item_VE[data.active])
    if method == EQUAL_WORK:
        wanted, most = work(data.served), max(map(work, data.measured.curves[SUBJECT]))
    else:
        wanted, most = TUNED_SHARE * len(data.active), data.most_candidates

    def cost(found: Found) -> float:
        return found.multiply_adds if method == EQUAL_WORK else found.scored

    truth_Uk = _exact(vectors.validation_UE, active_VE, data.k)

    def overlap_at_budget(index: AnnIndex) -> float:
        """Return the share of the vectors' own top k among the candidates that a budget pays for."""
        reached = [0.0, 0.0]
        for width in index.widths():
            found = index.find(vectors.validation_UE, width)
            hits = contains(
                lists_of(found.candidates), np.repeat(np.arange(len(truth_Uk)), data.k), truth_Uk.ravel(),
                num_users=len(truth_Uk),
            )  # fmt: skip
            before, reached = reached, [cost(found), float(hits.mean())]
            if cost(found) >= wanted:
                return float(np.interp(wanted, [before[0], reached[0]], [before[1], reached[1]]))
        return reached[1]

    choice = choose(method, settings, lambda chosen: INDEXES[kind].build(active_VE, **chosen), overlap_at_budget)
    points = []
    for width in choice.best.widths():
        found = choice.best.find(vectors.test_UE, width)
        points.append(_measure_width(data, method, choice.best, vectors, width, found))
        if cost(found) >= most and fills_lists(points[-1][1]):
            break
    return points, choice.record | {"megabytes": choice.best.megabytes()}


def _measure_width(
    data: SeedData, method: str, index: AnnIndex, vectors: Vectors, width: int, found: Found
) -> Measured:
    evaluator, users = data.evaluator, vectors.test_UE
    zeros = np.zeros(len(vectors.item_VE), dtype=np.float32)
    offsets, rows, slots = found.candidates
    candidates = Candidates(offsets, data.active[rows], slots)
    history = (evaluator.history.offsets, evaluator.history.item_ids)
    plain_Uk, _, _ = rerank(users, candidates, vectors.item_VE, zeros, evaluator.k_max)
    filtered_Uk, _, _ = rerank(users, candidates, vectors.item_VE, zeros, evaluator.k_max, history)
    seconds = median_seconds(lambda block: index.search(block, evaluator.k_max, width), users)
    point = Point(
        method,
        float(width),
        _scored(found, len(users)),
        candidate_recall(lists_of(candidates), evaluator.truth),
        found.multiply_adds,
        1e6 * seconds,
    )
    return data.listed(point, plain_Uk, filtered_Uk)


def measure_softmax_indexes(
    data: SeedData, settings: dict[str, tuple[Settings, ...]]
) -> tuple[Points, list[dict[str, Any]]]:
    """Measure clusters and a graph over the very vectors that Deep Retrieval reranks with.

    Args:
        settings: by method, those to choose from.
    """
    vector_VE, bias_V = data.run.learned.model.reranker.item_vectors()
    vectors = Vectors(
        np.column_stack([vector_VE.detach().numpy(), bias_V.detach().numpy()]),
        _with_one(data.evaluator.user_UE.numpy()),
        _with_one(data.encode(data.run.validation.histories)),
    )
    points: Points = {}
    records = []
    for method, kind in SOFTMAX_INDEXES.items():
        points[method], record = measure_index(data, method, kind, vectors, settings[method])
        records.append(record)
    return points, records


def fills_lists(items_Uk: IntArray) -> bool:
    """Return whether at least 99 % of the list positions are filled: an HNSW searched with ``efSearch < k`` cannot."""
    return float((items_Uk >= 0).mean()) >= FULL


def work(point: Point) -> float:
    """Return a point's multiply-adds a user, 0 where they were not counted."""
    return float(point.multiply_adds or 0.0)


def lists_of(candidates: Candidates) -> ItemLists:
    """Return the items of candidates."""
    return ItemLists(candidates.offsets, candidates.item_ids)


def _exact(user_UE: FloatArray, item_VE: FloatArray, k: int) -> IntArray:
    parts = [
        (torch.from_numpy(user_UE[start : start + CHUNK]) @ torch.from_numpy(item_VE).T)
        .topk(min(k, len(item_VE)))
        .indices.numpy()
        for start in range(0, len(user_UE), CHUNK)
    ]
    return np.concatenate(parts) if parts else np.empty((0, k), dtype=np.int64)


def _scored(found: Found, num_users: int) -> DoubleArray:
    """Return the items scored for each user; where only their mean is known, that."""
    listed = np.diff(found.candidates.offsets).astype(np.float64)
    return listed if listed.mean() == found.scored else np.full(num_users, found.scored)


def _with_one(user_UE: FloatArray) -> FloatArray:
    return np.column_stack([user_UE, np.ones(len(user_UE), dtype=np.float32)])
