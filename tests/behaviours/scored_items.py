"""What holds for the items of an M-step, wherever they lie."""

import numpy as np
import pytest

from dr_core.learning.scored_items import ScoredItems
from dr_core.paths.penalty import Penalty
from dr_core.paths.sizes import PathSizes


class ScoredItemsBehaviour:
    """A subclass gives items that all have paths, and a penalty under which some of them move."""

    @pytest.fixture
    def items(self) -> ScoredItems:
        raise NotImplementedError

    penalty = Penalty(4, 0.002)

    def test_the_start_has_moved_nothing(self, items: ScoredItems) -> None:
        ranked = items.rank(items.start, self.penalty)
        assert (ranked.items_moved, ranked.items_placed) == (0, 0)
        assert ranked.log_score == pytest.approx(items.start_log_score, rel=1e-9)

    def test_sizes_are_those_of_the_paths(self, items: ScoredItems) -> None:
        for version in (items.start, items.descend(self.penalty)):
            for found, expected in zip(
                items.sizes(version).occupied(), PathSizes.count(items.paths(version)).occupied(), strict=True
            ):
                np.testing.assert_array_equal(found, expected)

    def test_a_descent_moves_items_and_never_lowers_the_surrogate(self, items: ScoredItems) -> None:
        before = items.start_log_score - self.penalty.total(items.sizes(items.start).occupied()[1])
        version = items.descend(self.penalty)
        ranked = items.rank(version, self.penalty)
        assert ranked.items_moved > 0
        assert ranked.log_score - self.penalty.total(items.sizes(version).occupied()[1]) > before

    def test_a_mapping_that_is_taken_over_is_the_one_that_is_given_back(self, items: ScoredItems) -> None:
        start = items.paths(items.start)
        wanted = start[::-1].copy()
        version = items.place(wanted)
        np.testing.assert_array_equal(np.sort(items.paths(version), axis=1), np.sort(wanted, axis=1))
        moved = sum(set(one) != set(other) for one, other in zip(start.tolist(), wanted.tolist(), strict=True))
        assert items.rank(version, self.penalty).items_moved == moved
