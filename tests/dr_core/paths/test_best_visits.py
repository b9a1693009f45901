"""The best visits against the linear programme that chooses how much of each path to visit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.sparse import csr_matrix

from dr_core.paths.best_visits import BestVisitors


def brute_force(mass_NV: np.ndarray, path_V: np.ndarray, candidates: float) -> float:
    """Mean mass of the candidates."""
    total, size_P = 0.0, np.bincount(path_V, minlength=9)
    for mass_V in mass_NV:
        on_path = np.bincount(path_V, mass_V, minlength=9)
        total -= linprog(-on_path, A_ub=[size_P], b_ub=[candidates], bounds=(0, 1)).fun
    return total / len(mass_NV)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), budgets=st.lists(st.sampled_from([1, 4, 9, 30]), min_size=1, max_size=3))
def test_captured_mass_is_the_most_that_candidates_on_whole_paths_can_hold(seed: int, budgets: list[int]) -> None:
    rng = np.random.default_rng(seed)
    mass_NV = rng.dirichlet(np.full(30, 0.3), size=8)
    path_V = rng.integers(0, 9, size=30)
    found = BestVisitors(csr_matrix(mass_NV), 9, budgets).captured_mass(path_V[:, None])
    assert found == pytest.approx(np.mean([brute_force(mass_NV, path_V, candidates) for candidates in budgets]))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), candidates=st.sampled_from([3.5, 8.5, 20.5]))
def test_a_visit_is_priced_by_what_half_a_candidate_more_would_bring(seed: int, candidates: float) -> None:
    """The marginal value of the budget: the dual price of the linear programme."""
    rng = np.random.default_rng(seed)
    mass_NV = rng.dirichlet(np.full(30, 0.3), size=1)
    path_VJ = rng.integers(0, 9, size=(30, 1))
    visits = BestVisitors(csr_matrix(mass_NV), 9, [candidates]).visit(path_VJ)
    captured = [
        BestVisitors(csr_matrix(mass_NV), 9, [budget]).captured_mass(path_VJ)
        for budget in (candidates, candidates + 0.5)
    ]
    np.testing.assert_allclose(visits.prices / visits.times, 2 * (captured[1] - captured[0]), rtol=1e-4)


@pytest.mark.parametrize("path_VJ", [np.zeros((30, 2), np.int64), np.full((30, 1), -1)])
def test_other_mappings_than_of_one_path_an_item_are_refused(path_VJ: np.ndarray) -> None:
    mass_NV = csr_matrix(np.full((1, 30), 1 / 30))
    with pytest.raises(ValueError, match="one path"):
        BestVisitors(mass_NV, 9, [3.0]).visit(path_VJ)
