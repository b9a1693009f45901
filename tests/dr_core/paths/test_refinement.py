"""Refinement of a first mapping against plain loops over states and paths."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from dr_core.paths.refinement import captured_mass, refine_paths
from dr_core.paths.space import PathSpace

SPACE = PathSpace(3, 2)


def brute_force(mass_NV: np.ndarray, path_V: np.ndarray, candidates: float) -> float:
    total = 0.0
    for mass_V in mass_NV:
        on_path = np.bincount(path_V, mass_V, minlength=9)
        size = np.bincount(path_V, minlength=9)
        held = 0
        for path in np.argsort(-on_path, kind="stable"):
            if held < candidates:
                total += on_path[path]
                held += size[path]
    return total / len(mass_NV)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), candidates=st.sampled_from([1, 4, 9, 30]))
def test_captured_mass_is_that_of_visiting_path_by_path(seed: int, candidates: int) -> None:
    rng = np.random.default_rng(seed)
    mass_NV = rng.dirichlet(np.full(30, 0.3), size=8)
    path_V = rng.integers(0, 9, size=30)
    found = captured_mass(csr_matrix(mass_NV), path_V, 9, candidates)
    assert found == pytest.approx(brute_force(mass_NV, path_V, candidates))


@settings(deadline=None)
@given(seed=st.integers(0, 10_000))
def test_refining_never_loses_mass_and_keeps_to_the_capacity(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mass_NV = csr_matrix(rng.dirichlet(np.full(45, 0.2), size=20))
    path_V = rng.permutation(np.arange(45) % 9)
    before = path_V.copy()
    refined = refine_paths(mass_NV, path_V, SPACE, candidates=10, num_sweeps=6, capacity=1.6, seed=seed)
    np.testing.assert_array_equal(path_V, before, "the caller's mapping is not changed")
    assert captured_mass(mass_NV, refined, 9, 10) >= captured_mass(mass_NV, path_V, 9, 10)
    assert np.bincount(refined, minlength=9).max() <= 8
    again = refine_paths(mass_NV, path_V, SPACE, candidates=10, num_sweeps=6, capacity=1.6, seed=seed)
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
    refined = refine_paths(csr_matrix(mass_NV), start, SPACE, candidates=5, num_sweeps=30, capacity=1.6, seed=1)
    assert captured_mass(csr_matrix(mass_NV), start, 9, 5) < 0.9
    assert captured_mass(csr_matrix(mass_NV), refined, 9, 5) > 0.97
