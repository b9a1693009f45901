"""What holds for every router."""

import numpy as np
import pytest

from dr_core.arrays import FloatArray
from dr_core.paths.index import PathIndex, build_index
from dr_core.retrieval.router import Router

NUM_USERS = 20


class RouterBehaviour:
    """A subclass gives a router whose groups all have one item, user states, and log p of every group for each of them."""

    @pytest.fixture
    def router(self) -> Router:
        raise NotImplementedError

    @pytest.fixture
    def user_UE(self) -> FloatArray:
        raise NotImplementedError

    @pytest.fixture
    def log_prob_UP(self) -> FloatArray:
        """Return log p of every group, by enumeration."""
        raise NotImplementedError

    def some(self, num_groups: int) -> PathIndex:
        """Return an index with items on a third of the groups, up to five on each."""
        rng = np.random.default_rng(9)
        held = np.sort(rng.choice(num_groups, max(num_groups // 3, 1), replace=False))
        group_V = np.repeat(held, rng.integers(1, 6, len(held)))
        return build_index(np.arange(len(group_V)), group_V)

    def test_a_visit_of_everything_is_every_group_the_best_first(
        self, router: Router, user_UE: FloatArray, log_prob_UP: FloatArray
    ) -> None:
        num_groups = log_prob_UP.shape[1]
        visits = router.visit(user_UE, num_groups)
        assert (np.sort(visits.path_UB, axis=1) == np.arange(num_groups)).all()
        assert (np.diff(visits.log_prob_UB, axis=1) <= 1e-6).all()
        np.testing.assert_allclose(
            visits.log_prob_UB, np.take_along_axis(log_prob_UP, visits.path_UB, 1), rtol=1e-4, atol=1e-4
        )

    def test_a_wider_visit_holds_the_groups_distinct_and_finds_no_less(
        self, router: Router, user_UE: FloatArray, log_prob_UP: FloatArray
    ) -> None:
        narrow, wide = router.visit(user_UE, 2), router.visit(user_UE, 4)
        for visits, width in ((narrow, 2), (wide, 4)):
            assert all(len(set(row)) == width for row in visits.path_UB.tolist())
        few_U, many_U = (np.take_along_axis(log_prob_UP, visits.path_UB[:, :1], 1) for visits in (narrow, wide))
        assert (many_U >= few_U - 1e-6).all()
        assert (wide.work_U >= narrow.work_U).all()
        assert (narrow.work_U > 0).all()

    def test_within_an_index_only_its_groups_are_visited_by_probability_per_item(
        self, router: Router, user_UE: FloatArray, log_prob_UP: FloatArray
    ) -> None:
        index = self.some(log_prob_UP.shape[1])
        visits = router.within(index).visit(user_UE, index.num_paths + 2)
        size_P = np.diff(index.offsets)
        for user, found in enumerate(visits.path_UB):
            rank = log_prob_UP[user, index.path_ids] - np.log(size_P)
            real = found[found >= 0]
            assert sorted(real.tolist()) == index.path_ids.tolist()
            assert (np.diff(rank[np.searchsorted(index.path_ids, real)]) <= 1e-4).all()
            assert np.isneginf(visits.log_prob_UB[user, len(real) :]).all()

    def test_a_user_is_led_alone_as_in_a_block(self, router: Router, user_UE: FloatArray) -> None:
        together = router.visit(user_UE, 3)
        for user in (0, len(user_UE) - 1):
            alone = router.visit(user_UE[user : user + 1], 3)
            np.testing.assert_array_equal(alone.path_UB[0], together.path_UB[user])
        assert router.visit(user_UE[:0], 3).path_UB.shape == (0, 3)

    def test_a_width_of_nothing_is_refused(self, router: Router, user_UE: FloatArray) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            router.visit(user_UE, 0)
