"""Other rerankers on the candidates of Deep Retrieval's own beam, learned from training users cut in half."""

from __future__ import annotations

import time
from typing import Any, Literal

import numpy as np

from dr_core.arrays import IntArray
from dr_core.baselines.rerankers import CandidateReranker
from dr_core.evaluation.evaluator import Point
from dr_core.evaluation.metrics import candidate_recall, contains
from dr_core.item_lists import ItemLists
from pipelines.experiments.indexes import lists_of
from pipelines.experiments.seed_data import Points, SeedData

RERANKERS: dict[str, Literal["logistic", "mlp"]] = {
    "deep_retrieval_logistic": "logistic",
    "deep_retrieval_mlp": "mlp",
}
"""Kinds of reranker, by method name."""
TRAINING_USERS = 3000
"""Training users whose candidates a reranker learns from."""


def measure_rerankers(data: SeedData) -> tuple[Points, list[dict[str, Any]]]:
    """Learn and measure every reranker; return its point with its lists, and what learning took."""
    evaluator, variant, width = data.evaluator, data.run.learned, data.measured.width
    retriever = evaluator.retriever_of(variant)
    histories, truths = halves(data.events.histories, TRAINING_USERS, data.run.seed)
    train_UE = data.encode(histories)
    train_paths = retriever.search(train_UE, width)
    train_candidates = retriever.candidates(train_paths)
    owners = np.repeat(np.arange(len(train_UE)), np.diff(train_candidates.offsets))
    labels = contains(ItemLists.from_rows(truths), owners, train_candidates.item_ids, num_users=len(train_UE))
    user_UE = evaluator.user_UE.numpy()
    paths = retriever.search(user_UE, width)
    candidates, log_prob_UB = retriever.candidates(paths), paths.log_prob_UB
    search_work, visited = float(paths.work_U.mean()), float((paths.path_UB >= 0).sum(axis=1).mean())
    bias_V = variant.model.reranker.item_vectors()[1].numpy()
    candidates_a_user = len(candidates.item_ids) / len(user_UE)
    points: Points = {}
    records = []
    for method, kind in RERANKERS.items():
        started = time.monotonic()
        ranker = CandidateReranker(kind, evaluator.vector_VE, bias_V, data.run.counts, seed=data.run.seed)
        ranker.fit(train_UE, train_candidates, train_paths.log_prob_UB, labels)
        seconds = time.monotonic() - started
        point = Point(
            method,
            visited,
            np.diff(candidates.offsets).astype(np.float64),
            candidate_recall(lists_of(candidates), evaluator.truth),
            search_work + candidates_a_user * ranker.multiply_adds(),
            None,
        )
        plain_Uk, filtered_Uk = (
            ranker.rank(user_UE, candidates, log_prob_UB, evaluator.k_max, excluded)
            for excluded in (None, evaluator.history)
        )
        points[method] = [data.listed(point, plain_Uk, filtered_Uk)]
        records.append(
            {"method": method, "seconds": round(seconds, 2), "settings": {}, "trials": [], "megabytes": None}
        )
    return points, records


def halves(histories: ItemLists, most: int, seed: int) -> tuple[list[IntArray], list[IntArray]]:
    """Return the first and the second half of the histories of at most ``most`` users, drawn at random."""
    sizes = np.diff(histories.offsets)
    drawn = np.sort(np.random.default_rng(seed).permutation(np.flatnonzero(sizes >= 2))[:most])
    whole = [
        np.asarray(histories.item_ids[histories.offsets[user] : histories.offsets[user + 1]], np.int64)
        for user in drawn
    ]
    return [items[: len(items) // 2] for items in whole], [items[len(items) // 2 :] for items in whole]
