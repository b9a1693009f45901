"""The M-step's policy in memory: corrections of alpha, and what is told of the mapping that is used."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from dr_core.learning.alpha import AlphaRule, items_per_visited_path
from dr_core.learning.m_step import m_step, refine_alone
from dr_core.learning.refine import Refinement
from dr_core.learning.scored_items import ItemsInMemory
from dr_core.paths.assignment import changed_rows, coordinate_descent, penalised_surrogate
from dr_core.paths.best_visits import BestVisitors
from dr_core.paths.penalty import Penalty, derive_alpha
from dr_core.paths.scores import PathCandidates
from dr_core.paths.sizes import PathSizes
from dr_core.paths.space import PathSpace
from tests.behaviours.scored_items import ScoredItemsBehaviour

SPACE = PathSpace.even(6, 2)
NUM_ITEMS, ROW, SWEEPS, ALPHA = 300, 8, 4, 0.002
VISITED = np.arange(12).reshape(3, 4)
BUDGETS = (20.0, 60.0)


def items(num_paths: int = 2) -> ItemsInMemory:
    """Eight scored paths an item, some of them in force."""
    rng = np.random.default_rng(61)
    paths = np.sort(rng.permuted(np.tile(np.arange(36), (NUM_ITEMS, 1)), axis=1)[:, :ROW], axis=1)
    weights = rng.integers(1, 60, NUM_ITEMS).astype(np.float64)
    scores = rng.exponential(1.0, paths.shape) * rng.exponential(1.0, 36)[paths] * weights[:, None] * 0.05
    offsets = np.arange(NUM_ITEMS + 1) * ROW
    return ItemsInMemory(
        PathCandidates(offsets, paths.ravel(), scores.ravel(), weights, paths[:, :num_paths].copy()), SWEEPS, SPACE
    )


def refinement() -> Refinement:
    mass = np.random.default_rng(5).exponential(1.0, (40, NUM_ITEMS)).astype(np.float32) ** 4
    mass_NV = csr_matrix(mass)
    return Refinement(mass_NV, BestVisitors(mass_NV, 36, BUDGETS), 36, num_sweeps=20, capacity=1.75, seed=0)


def descent(scored: ItemsInMemory, alpha: float) -> np.ndarray:
    num_paths = scored.candidates.current_paths.shape[1]
    penalty = Penalty(4, alpha)
    return coordinate_descent(scored.candidates, penalty, num_paths=num_paths, num_sweeps=SWEEPS).path_ids


def test_an_alpha_that_changes_nothing_is_not_kept() -> None:
    """Visited paths cannot hold one item each: 300 items x 2 lie on 36 paths."""
    placed, facts = m_step(items(), AlphaRule(2e3, 1.0, corrections=3), VISITED)
    assert (facts.alpha, facts.corrections) == (2e3, 1)
    np.testing.assert_array_equal(placed.path_VJ, descent(items(), 2e3))


def test_alpha_is_corrected_until_visited_paths_hold_what_is_wanted() -> None:
    wanted = 25.0
    placed, facts = m_step(items(), AlphaRule(None, wanted, corrections=6), VISITED)
    first = derive_alpha(items().mean_weight, wanted)
    uncorrected = items_per_visited_path(PathSizes.count(descent(items(), first)), VISITED)
    assert facts.corrections >= 1
    assert facts.alpha is not None
    assert abs(facts.items_per_visited_path - wanted) < abs(uncorrected - wanted)
    np.testing.assert_array_equal(placed.path_VJ, descent(items(), facts.alpha))


def test_the_descent_alone_is_told_as_what_is_used() -> None:
    scored, penalty = items(), Penalty(4, ALPHA)
    placed, facts = m_step(scored, AlphaRule(ALPHA, None), VISITED)
    assert facts.surrogate_before == penalised_surrogate(scored.candidates, scored.candidates.current_paths, penalty)
    assert facts.surrogate_after == penalised_surrogate(scored.candidates, placed.path_VJ, penalty)
    assert facts.surrogate_after == facts.surrogate_after_descent > facts.surrogate_before
    assert facts.items_moved == facts.items_moved_by_descent
    assert (facts.items_refined, facts.items_placed) == (0, 0)


def test_facts_are_of_the_refined_mapping() -> None:
    scored, penalty = items(1), Penalty(4, ALPHA)
    placed, facts = m_step(scored, AlphaRule(ALPHA, None), VISITED, refinement())
    descended = descent(scored, ALPHA)
    np.testing.assert_array_equal(placed.path_VJ, refinement().refine(descended, scored.candidates.current_paths))
    assert facts.items_refined == changed_rows(descended, placed.path_VJ).sum() > 0
    assert facts.items_moved == changed_rows(scored.candidates.current_paths, placed.path_VJ).sum()
    assert facts.surrogate_after == penalised_surrogate(scored.candidates, placed.path_VJ, penalty)
    assert facts.surrogate_after_descent == penalised_surrogate(scored.candidates, descended, penalty)
    sizes = PathSizes.count(placed.path_VJ)
    assert facts.items_per_visited_path == items_per_visited_path(sizes, VISITED)
    assert facts.items_per_visited_path != items_per_visited_path(PathSizes.count(descended), VISITED)


def test_the_refinement_alone_needs_no_scores() -> None:
    start = items(1).candidates.current_paths
    path_VJ, facts = refine_alone(refinement(), start, VISITED)
    visitors = BestVisitors(refinement().mass_NV, 36, BUDGETS)
    assert visitors.captured_mass(path_VJ) > visitors.captured_mass(start)
    assert facts.items_moved == facts.items_refined == changed_rows(start, path_VJ).sum() > 0
    assert (facts.alpha, facts.surrogate_after, facts.corrections) == (None, None, 0)
    assert facts.items_per_visited_path == items_per_visited_path(PathSizes.count(path_VJ), VISITED)


def test_items_without_paths_are_placed_and_not_counted_as_moved() -> None:
    scored = items()
    scored.candidates.current_paths[:5] = -1
    placed, facts = m_step(scored, AlphaRule(ALPHA, None), VISITED)
    assert facts.items_placed == 5
    assert facts.items_moved == changed_rows(scored.candidates.current_paths[5:], placed.path_VJ[5:]).sum()
    assert placed.path_VJ.min() >= 0


@pytest.mark.parametrize("num_paths", [1, 2])
def test_the_start_is_the_mapping_in_force(num_paths: int) -> None:
    scored = items(num_paths)
    np.testing.assert_array_equal(scored.paths(scored.start), scored.candidates.current_paths)
    assert scored.sizes(scored.start).counts.sum() == NUM_ITEMS * num_paths


class TestItemsInMemory(ScoredItemsBehaviour):
    @pytest.fixture
    def items(self) -> ItemsInMemory:
        return items()


def test_items_with_paths_keep_them_where_only_new_ones_are_placed() -> None:
    scored = items()
    start_VJ = scored.candidates.current_paths
    start_VJ[::7] = -1
    placed, facts = m_step(scored, AlphaRule(ALPHA, None), VISITED, only_new=True)
    is_new_V = np.arange(NUM_ITEMS) % 7 == 0
    np.testing.assert_array_equal(placed.path_VJ[~is_new_V], start_VJ[~is_new_V])
    np.testing.assert_array_equal(placed.path_VJ[is_new_V], descent(scored, ALPHA)[is_new_V])
    assert (placed.path_VJ >= 0).all()
    assert (facts.items_moved, facts.items_placed) == (0, int(is_new_V.sum()))
