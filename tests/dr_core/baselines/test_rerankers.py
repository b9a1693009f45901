"""Rerankers of candidates: they learn what is met, also where it is no inner product."""

import numpy as np
import pytest

from dr_core.baselines.rerankers import CandidateReranker, CandidateRerankerConfig
from dr_core.item_lists import ItemLists
from dr_core.retrieval.candidates import Candidates

NUM_ITEMS, DIM, PER_USER = 300, 8, 30
CONFIG = CandidateRerankerConfig(epochs=12, batch=1024, learning_rate=1e-2)


def world(rule: str, num_users: int, seed: int) -> tuple[np.ndarray, np.ndarray, Candidates, np.ndarray, np.ndarray]:
    """Users with candidates of which every fifth is met: those first by another weighing than the softmax's."""
    rng = np.random.default_rng(seed)
    vectors = np.random.default_rng(99).standard_normal((NUM_ITEMS, DIM)).astype(np.float32)
    users = rng.standard_normal((num_users, DIM)).astype(np.float32)
    items = np.array([rng.choice(NUM_ITEMS, PER_USER, replace=False) for _ in range(num_users)])
    cross = users[:, None] * vectors[items]
    wanted = cross @ np.linspace(-1, 3, DIM) if rule == "weighed" else -np.abs(cross[..., 0] - cross[..., 1])
    met = np.argsort(np.argsort(-wanted, axis=1), axis=1) < PER_USER // 5
    found = Candidates(np.arange(num_users + 1) * PER_USER, items.ravel(), np.tile(np.arange(PER_USER) % 4, num_users))
    log_prob = np.log(rng.dirichlet(np.ones(4), num_users)).astype(np.float32)
    return users, vectors, found, log_prob, met


def share_found(reranker: CandidateReranker, rule: str) -> float:
    users, _, found, log_prob, met = world(rule, 200, 1)
    ranked = reranker.rank(users, found, log_prob, PER_USER // 5, None)
    items = found.item_ids.reshape(-1, PER_USER)
    return float(np.mean([np.isin(row, items[user][met[user]]).mean() for user, row in enumerate(ranked)]))


@pytest.mark.parametrize(("kind", "rule"), [("logistic", "weighed"), ("mlp", "weighed"), ("mlp", "bent")])
def test_it_learns_what_is_met(kind: str, rule: str) -> None:
    users, vectors, found, log_prob, met = world(rule, 2000, 0)
    reranker = CandidateReranker(kind, vectors, np.zeros(NUM_ITEMS, np.float32), np.ones(NUM_ITEMS), CONFIG)  # type: ignore[arg-type]
    by_chance = share_found(reranker, rule)
    reranker.fit(users, found, log_prob, met.ravel())
    assert share_found(reranker, rule) > max(0.6, 1.5 * by_chance)


def test_excluded_items_are_left_out_and_lists_padded() -> None:
    users, vectors, found, log_prob, _ = world("weighed", 3, 0)
    reranker = CandidateReranker("logistic", vectors, np.zeros(NUM_ITEMS, np.float32), np.ones(NUM_ITEMS))
    reranker.network.eval()
    all_of_them = reranker.rank(users, found, log_prob, PER_USER + 2, None)
    assert (all_of_them[:, PER_USER:] == -1).all()
    barred = ItemLists.from_rows([row[:4] for row in all_of_them])
    left = reranker.rank(users, found, log_prob, PER_USER - 4, barred)
    np.testing.assert_array_equal(left, all_of_them[:, 4:PER_USER])


def test_the_work_of_a_candidate_is_counted() -> None:
    vectors = np.zeros((NUM_ITEMS, DIM), np.float32)
    logistic, mlp = (
        CandidateReranker(kind, vectors, np.zeros(NUM_ITEMS, np.float32), np.ones(NUM_ITEMS))  # type: ignore[arg-type]
        for kind in ("logistic", "mlp")
    )
    assert logistic.multiply_adds() == DIM + (DIM + 4)
    assert mlp.multiply_adds() == DIM + 64 * (3 * DIM + 4) + 64
