"""What holds for every ranker."""

from collections.abc import Callable

import numpy as np
import pytest

from dr_core.arrays import FloatArray, IntArray
from dr_core.item_lists import ItemLists
from dr_core.paths.index import PathIndex, build_index
from dr_core.retrieval.filter import Allowed
from dr_core.retrieval.rank import Ranked, Ranker

NUM_ITEMS, NUM_GROUPS, NUM_USERS = 120, 20, 15
Score = Callable[[int, int], float]


class RankerBehaviour:
    """A subclass makes a ranker over an index of ``NUM_ITEMS`` items, user states, and says what an item scores."""

    def make(self, index: PathIndex) -> Ranker:
        raise NotImplementedError

    @pytest.fixture
    def user_UE(self) -> FloatArray:
        raise NotImplementedError

    @pytest.fixture
    def score(self) -> Score:
        """Return the score of a user (by number) and an item."""
        raise NotImplementedError

    @pytest.fixture(params=[1, 3])
    def group_VJ(self, request: pytest.FixtureRequest) -> IntArray:
        rng = np.random.default_rng(5)
        return np.stack([rng.permutation(NUM_GROUPS)[: request.param] for _ in range(NUM_ITEMS)])

    @pytest.fixture
    def visited_UB(self) -> IntArray:
        """Five groups a user, the last user's last ones missing."""
        rng = np.random.default_rng(6)
        visited = np.stack([rng.permutation(NUM_GROUPS)[:5] for _ in range(NUM_USERS)])
        visited[-1, 3:] = -1
        return visited

    def check(
        self, found: Ranked, k: int, score: Score, visited_UB: IntArray, group_VJ: IntArray, barred: list[set[int]]
    ) -> None:
        for user, visited in enumerate(visited_UB):
            real = visited[visited >= 0]
            there = np.flatnonzero(np.isin(group_VJ, real).any(axis=1)).tolist()
            wanted = sorted((score(user, item) for item in there if item not in barred[user]), reverse=True)[:k]
            items = found.item_Uk[user][found.item_Uk[user] >= 0].tolist()
            assert len(set(items)) == len(items) == len(wanted)
            assert not set(items) & barred[user]
            np.testing.assert_allclose(found.score_Uk[user, : len(items)], wanted, rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose([score(user, item) for item in items], wanted, rtol=1e-3, atol=1e-4)
            for item, slot in zip(items, found.slot_Uk[user].tolist(), strict=False):
                assert slot == min(place for place, group in enumerate(visited) if group in group_VJ[item])
            assert np.isneginf(found.score_Uk[user, len(items) :]).all()
            assert (found.slot_Uk[user, len(items) :] == -1).all()

    @pytest.mark.parametrize("k", [1, 7, 200])
    def test_it_finds_what_a_sort_of_the_visited_items_finds(
        self, user_UE: FloatArray, score: Score, group_VJ: IntArray, visited_UB: IntArray, k: int
    ) -> None:
        rng = np.random.default_rng(7)
        excluded = [rng.choice(NUM_ITEMS, size, replace=False) for size in rng.integers(0, 30, NUM_USERS)]
        ranker = self.make(build_index(np.arange(NUM_ITEMS), group_VJ))
        found = ranker.rank(user_UE, visited_UB, k, ItemLists.from_rows(excluded))
        self.check(found, k, score, visited_UB, group_VJ, [set(items.tolist()) for items in excluded])
        for user, visited in enumerate(visited_UB):
            assert found.num_candidates_U[user] == np.isin(group_VJ, visited[visited >= 0]).any(axis=1).sum()

    def test_it_knows_only_what_is_allowed(
        self, user_UE: FloatArray, score: Score, group_VJ: IntArray, visited_UB: IntArray
    ) -> None:
        ids = np.arange(0, NUM_ITEMS, 3)
        ranker = self.make(build_index(np.arange(NUM_ITEMS), group_VJ)).only(Allowed.of(ids, NUM_ITEMS))
        found = ranker.rank(user_UE, visited_UB, 9, ItemLists.from_rows([()] * NUM_USERS))
        forbidden = set(range(NUM_ITEMS)) - set(ids.tolist())
        self.check(found, 9, score, visited_UB, group_VJ, [forbidden] * NUM_USERS)

    def test_work_grows_with_the_candidates(self, group_VJ: IntArray) -> None:
        ranker = self.make(build_index(np.arange(NUM_ITEMS), group_VJ))
        assert 0 < ranker.multiply_adds(10) < ranker.multiply_adds(20)

    def test_a_bias_stands_for_every_item_of_a_group(self, group_VJ: IntArray) -> None:
        index = build_index(np.arange(NUM_ITEMS), group_VJ)
        assert self.make(index).bias(4).shape == index.items(4).shape
