"""Refinement of a first mapping against plain loops over states and paths."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.sparse import csr_matrix

from dr_core.paths.refinement import _offers, _visits, captured_mass, refine_paths
from dr_core.paths.space import PathSpace

SPACE = PathSpace.even(3, 2)


def brute_force(mass_NV: np.ndarray, path_V: np.ndarray, candidates: float) -> float:
    """Mean mass of the candidates: the linear programme that chooses how much of each path to visit."""
    total, size_P = 0.0, np.bincount(path_V, minlength=9)
    for mass_V in mass_NV:
        on_path = np.bincount(path_V, mass_V, minlength=9)
        total -= linprog(-on_path, A_ub=[size_P], b_ub=[candidates], bounds=(0, 1)).fun
    return total / len(mass_NV)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), budgets=st.lists(st.sampled_from([1, 4, 9, 30]), min_size=1, max_size=3))
def test_captured_mass_is_the_most_that_candidates_on_whole_paths_can_hold(seed: int, budgets: list[int]) -> None:
    rng = np.random.default_rng(seed)
    mass_NV = rng.dirichlet(np.full(30, 0.3), size=8)
    path_V = rng.integers(0, 9, size=30)
    found = captured_mass(csr_matrix(mass_NV), path_V, 9, budgets)
    assert found == pytest.approx(np.mean([brute_force(mass_NV, path_V, candidates) for candidates in budgets]))


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), num_budgets=st.integers(1, 3))
def test_an_offer_is_worth_what_its_visitors_would_gain(seed: int, num_budgets: int) -> None:
    """Against dense sums over states: the mass on a path's visits less what they pay, against staying."""
    rng = np.random.default_rng(seed)
    mass_NV = csr_matrix(rng.dirichlet(np.full(30, 0.3), size=12))
    path_V, budgets = rng.integers(0, 9, size=30), [3.0, 8.0, 20.0][:num_budgets]
    offsets, paths, times, captured_F, _, cost_P = _visits(mass_NV, path_V, 9, budgets)
    assert captured_F.mean() == captured_mass(mass_NV, path_V, 9, budgets)
    times_NP = np.zeros((12, 9))
    for state in range(12):
        visited = slice(offsets[state], offsets[state + 1])
        times_NP[state, paths[visited]] = times[visited]
    worth_VP = mass_NV.toarray().T @ times_NP - cost_P
    is_visited_P, by_item = times_NP.any(axis=0), mass_NV.T.tocsr()
    item_W, path_W, profit_W = _offers(
        by_item.data, by_item.indices, by_item.indptr, np.arange(30), path_V, offsets, paths, times, cost_P
    )
    for item in range(30):
        profit_P = worth_VP[item] - worth_VP[item, path_V[item]]
        best = [path for path in np.argsort(-profit_P, kind="stable") if is_visited_P[path] and profit_P[path] > 1e-9][
            :4
        ]
        assert path_W[item_W == item].tolist() == best
        np.testing.assert_allclose(profit_W[item_W == item], profit_P[best])


@pytest.mark.parametrize("seed", range(8))
def test_a_move_brings_about_what_was_said(seed: int) -> None:
    """Long paths, and states of which some want a few items and some want many: one item more is a small change to each."""
    rng = np.random.default_rng(seed)
    peak_N = rng.choice([0.02, 0.3, 2.0], size=40)
    mass_NV = csr_matrix(np.stack([rng.dirichlet(np.full(900, peak)) for peak in peak_N]))
    path_V, budgets = rng.integers(0, 9, size=900), [90.0, 260.0]
    offsets, paths, times, before_F, _, cost_P = _visits(mass_NV, path_V, 9, budgets)
    by_item = mass_NV.T.tocsr()
    item_W, path_W, profit_W = _offers(
        by_item.data, by_item.indices, by_item.indptr, np.arange(900), path_V, offsets, paths, times, cost_P
    )
    said, brought = [], []
    for move in np.argsort(-profit_W)[:200:10]:
        after_V = path_V.copy()
        after_V[item_W[move]] = path_W[move]
        said.append(profit_W[move] / (40 * 2))
        brought.append(captured_mass(mass_NV, after_V, 9, budgets) - before_F.mean())
    assert np.sum(brought) == pytest.approx(np.sum(said), rel=0.5)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000))
def test_refining_never_loses_mass_and_keeps_to_the_capacity(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mass_NV = csr_matrix(rng.dirichlet(np.full(45, 0.2), size=20))
    path_V = rng.permutation(np.arange(45) % 9)
    before = path_V.copy()
    refined = refine_paths(mass_NV, path_V, SPACE, budgets=[4, 10], num_sweeps=6, capacity=1.6, seed=seed)
    np.testing.assert_array_equal(path_V, before, "the caller's mapping is not changed")
    assert captured_mass(mass_NV, refined, 9, [4, 10]) >= captured_mass(mass_NV, path_V, 9, [4, 10])
    assert np.bincount(refined, minlength=9).max() <= 8
    again = refine_paths(mass_NV, path_V, SPACE, budgets=[4, 10], num_sweeps=6, capacity=1.6, seed=seed)
    np.testing.assert_array_equal(refined, again)


def test_planted_groups_are_found_again() -> None:
    """Nine groups of users each want five items; a quarter of the items start on wrong paths."""
    rng = np.random.default_rng(0)
    group_V = np.arange(45) // 5
    mass_NV = np.zeros((180, 45))
    for state in range(180):
        mass_NV[state, group_V == state % 9] = rng.dirichlet(np.ones(5))
    start = group_V.copy()
    moved = rng.choice(45, 12, replace=False)
    start[moved] = rng.permutation(start[moved])
    refined = refine_paths(csr_matrix(mass_NV), start, SPACE, budgets=[5], num_sweeps=30, capacity=1.6, seed=1)
    assert captured_mass(csr_matrix(mass_NV), start, 9, [5]) < 0.9
    assert captured_mass(csr_matrix(mass_NV), refined, 9, [5]) > 0.97
