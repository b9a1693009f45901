"""Visitors that follow fitted energies: what they visit, and what refining by their visits brings."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from dr_core.learning.energy_visitors import EnergyVisitors
from dr_core.paths.coverage import PathVisits, captured_mass
from dr_core.paths.index import build_index
from dr_core.paths.refinement import refine_paths
from dr_core.retrieval.from_model import compiled_structure
from dr_core.retrieval.router import Price

NUM_PATHS, NUM_ITEMS = 12, 240
BUDGETS = (20.0, 60.0)
GROUP_V = np.arange(NUM_ITEMS) // (NUM_ITEMS // NUM_PATHS)


def visitors(epochs: int = 3, num_states: int = 700) -> EnergyVisitors:
    """Twelve groups of items point the same way; users look around."""
    generator = torch.Generator().manual_seed(0)
    centre_GE = 2.5 * torch.nn.functional.normalize(torch.randn(NUM_PATHS, 8, generator=generator))
    vector_VE = centre_GE[torch.from_numpy(GROUP_V)] + 0.5 * torch.randn(NUM_ITEMS, 8, generator=generator)
    bias_V = 0.5 * torch.randn(NUM_ITEMS, generator=generator)
    user_NE = 1.5 * torch.randn(num_states, 8, generator=generator)
    mass_NV = torch.softmax(user_NE @ vector_VE.T + bias_V, dim=1)
    return EnergyVisitors(user_NE, csr_matrix(mass_NV.numpy()), vector_VE, bias_V, NUM_PATHS, BUDGETS, epochs)


def shuffled(share: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    path_V = GROUP_V.copy()
    wrong = rng.choice(NUM_ITEMS, int(share * NUM_ITEMS), replace=False)
    path_V[wrong] = rng.permutation(path_V[wrong])
    return path_V[:, None]


@pytest.mark.parametrize("num_slots", [1, 2])
@torch.no_grad()
def test_fitted_probabilities_have_the_moments_of_the_shares_of_mass(num_slots: int) -> None:
    """The conditions under which the convex cross entropy is least: mean and covariance with the states."""
    path_VJ = np.concatenate((shuffled(0.3), (shuffled(0.3) + 1) % NUM_PATHS), axis=1)[:, :num_slots]
    path_VJ[::2, 1:] = -1
    part_VP = np.zeros((NUM_ITEMS, NUM_PATHS))
    for item, paths in enumerate(path_VJ):
        part_VP[item, paths[paths >= 0]] = 1 / (paths >= 0).sum()

    def gaps(epochs: int) -> tuple[float, float]:
        states = visitors(epochs)
        with torch.enable_grad():
            energies = states.fitted(path_VJ)
        log_p_NP = energies.log_prob(states.user_NE, torch.arange(NUM_PATHS).expand(len(states.user_NE), -1))
        gap_NP = log_p_NP.exp() - torch.from_numpy(states.mass_NV @ part_VP).float()
        return float(gap_NP.mean(0).abs().max()), float((gap_NP.T @ states.user_NE / len(gap_NP)).abs().max())

    (mean, covariance), by_formula = gaps(150), gaps(0)
    assert mean < 0.003 < by_formula[0]
    assert covariance < 0.01 < by_formula[1]


def test_each_budget_is_what_the_states_visit_on_average() -> None:
    path_VJ, states = shuffled(0.3), visitors()
    visits, size_P = states.visit(path_VJ), np.bincount(path_VJ[:, 0], minlength=NUM_PATHS)
    for width, budget in enumerate(sorted(BUDGETS, reverse=True), start=1):
        mean = size_P[visits.paths[visits.times >= width]].sum() / len(states.user_NE)
        assert mean == pytest.approx(budget, abs=size_P.max() / 10)


def test_they_visit_what_a_served_search_finds_at_the_same_prices() -> None:
    path_VJ, states = shuffled(0.3), visitors()
    index = build_index(np.arange(NUM_ITEMS), path_VJ)
    router = compiled_structure(states.fitted(path_VJ), index)
    visits = states.visit(path_VJ)
    lambdas = np.log(np.diff(np.unique(visits.prices), prepend=0.0))
    found = router.visit(states.user_NE.numpy(), Price(float(lambdas.min()) - 0.5, -np.inf, 10**9))
    starts_UB, ends_UB = index.lookup(found.path_UB)
    log_density_UB = found.log_prob_UB - np.log(np.maximum(ends_UB - starts_UB, 1))
    searched = PathVisits.at_prices(found.path_UB, log_density_UB, list(lambdas))
    own_NP, served_NP = (
        csr_matrix((each.times, each.paths, each.offsets), (each.num_states, NUM_PATHS)).toarray()
        for each in (visits, searched)
    )
    assert own_NP.any(axis=0).all()
    assert (own_NP == served_NP).mean() > 0.999, "but for rounding at the border"


def test_visits_depend_on_the_mapping_alone() -> None:
    path_VJ, states = shuffled(0.3), visitors()
    first = states.visit(path_VJ)
    states.visit(shuffled(1.0))
    for left, right in zip(first, states.visit(path_VJ), strict=True):
        np.testing.assert_array_equal(left, right)


def test_refining_by_these_visits_undoes_a_shuffle_and_never_loses_mass() -> None:
    states, start_VJ = visitors(), shuffled(0.4)
    refined = refine_paths(states.mass_NV, start_VJ, NUM_PATHS, states, num_sweeps=6, capacity=2.0, seed=0)
    captured = [
        captured_mass(states.mass_NV, states.visit(each), each, NUM_PATHS)
        for each in (start_VJ, refined, GROUP_V[:, None])
    ]
    assert captured[0] < captured[1]
    assert captured[1] - captured[0] > 0.7 * (captured[2] - captured[0])
