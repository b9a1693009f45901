"""The compiled scan of visited paths against a sort of all candidates."""

import numpy as np
import pytest

from dr_core.item_lists import ItemLists
from dr_core.paths.index import PathIndex, build_index
from dr_core.retrieval.candidates import gather_candidates, rerank
from dr_core.retrieval.rank import DotProductRanker, Ranker, in_order_of_use
from tests.behaviours import ranker as behaviour
from tests.behaviours.ranker import NUM_ITEMS, RankerBehaviour, Score

NUM_USERS, DIM = 40, 12


def users() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((NUM_USERS, DIM)).astype(np.float32)


@pytest.mark.parametrize("num_paths", [1, 3])
@pytest.mark.parametrize("k", [1, 10, 200])
def test_the_scan_finds_what_a_sort_of_all_candidates_finds(num_paths: int, k: int) -> None:
    rng = np.random.default_rng(5)
    num_items, num_path_ids = 300, 36
    mapping = rng.permuted(np.tile(np.arange(num_path_ids), (num_items, 1)), axis=1)[:, :num_paths]
    index = build_index(np.arange(num_items), mapping)
    vectors = rng.standard_normal((num_items, DIM)).astype(np.float32)
    bias = rng.standard_normal(num_items).astype(np.float32)
    beams = rng.permuted(np.tile(np.arange(num_path_ids + 4), (NUM_USERS, 1)), axis=1)[:, :9].astype(np.int64)
    excluded = ItemLists.from_rows(
        [rng.choice(num_items, size, replace=False) for size in rng.integers(0, 60, NUM_USERS)]
    )
    found = gather_candidates(beams, index.path_ids, index.offsets, index.item_ids)
    expected = rerank(users(), found, vectors, bias, k, excluded)
    items = DotProductRanker.of(index, vectors, bias)
    assert items.most_repeats == num_paths
    best, scores, slots, num_candidates = items.rank(users(), beams, k, excluded)
    np.testing.assert_array_equal(best, expected[0])
    np.testing.assert_allclose(scores, expected[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(slots, expected[2])
    on_path = [set(np.flatnonzero((mapping == path).any(axis=1))) for path in range(num_path_ids + 4)]
    assert num_candidates.tolist() == [len(set().union(*(on_path[path] for path in beam))) for beam in beams]


def test_equal_scores_come_in_the_order_in_which_the_beam_found_them() -> None:
    index = build_index(np.arange(6), np.array([1, 0, 1, 0, 2, 1])[:, None])
    items = DotProductRanker.of(index, np.zeros((6, 2), np.float32), np.zeros(6, np.float32))
    nothing = ItemLists.from_rows([[]])
    best, _, slots, _ = items.rank(np.ones((1, 2), np.float32), np.array([[1, 0]]), 4, nothing)
    assert best.tolist() == [[0, 2, 5, 1]]
    assert slots.tolist() == [[0, 0, 0, 1]]


@pytest.mark.parametrize("spread", [1e-4, 1e-2, 1.0])
def test_short_vectors_never_cost_an_item(spread: float) -> None:
    """Items that eight bits a dimension cannot tell apart are still ranked by their exact scores."""
    rng = np.random.default_rng(6)
    num_items, dim = 4000, 64
    centres = rng.standard_normal((4, dim))
    vectors = (centres[rng.integers(0, 4, num_items)] + spread * rng.standard_normal((num_items, dim))).astype(
        np.float32
    )
    vectors[::97] *= 50
    index = build_index(np.arange(num_items), rng.integers(0, 40, (num_items, 1)))
    user_UE = rng.standard_normal((20, dim)).astype(np.float32)
    beams = np.tile(np.arange(30), (20, 1))
    _, scores, _, _ = DotProductRanker.of(index, vectors, np.zeros(num_items, np.float32)).rank(
        user_UE, beams, 50, ItemLists.from_rows([[]] * 20)
    )
    there = np.concatenate([index.item_ids[slice(*index.offsets[path : path + 2])] for path in range(30)])
    exact = -np.sort(-(user_UE.astype(np.float64) @ vectors[there].T.astype(np.float64)), axis=1)[:, :50]
    np.testing.assert_allclose(scores, exact, rtol=1e-5, atol=1e-4)


def test_vectors_lie_in_the_order_in_which_they_are_needed() -> None:
    used, places = in_order_of_use(np.array([7, 2, 7, 9, 2]))
    assert (used.tolist(), places.tolist()) == ([7, 2, 9], [0, 1, 0, 2, 1])
    used, places = in_order_of_use(np.array([7, 2, 9]))
    assert (used.tolist(), len(places)) == ([7, 2, 9], 0)


class TestDotProductRanker(RankerBehaviour):
    vector_VE = np.random.default_rng(8).standard_normal((NUM_ITEMS, DIM)).astype(np.float32)
    bias_V = np.random.default_rng(9).standard_normal(NUM_ITEMS).astype(np.float32)

    def make(self, index: PathIndex) -> Ranker:
        return DotProductRanker.of(index, self.vector_VE, self.bias_V)

    @pytest.fixture
    def user_UE(self) -> np.ndarray:
        return users()[: behaviour.NUM_USERS]

    @pytest.fixture
    def score(self, user_UE: np.ndarray) -> Score:
        return lambda user, item: float(user_UE[user] @ self.vector_VE[item] + self.bias_V[item])
