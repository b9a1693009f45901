"""The refinement after the descent: it follows the softmax's mass, from the better of two mappings."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from dr_core.learning.budget import StructureChoice
from dr_core.learning.config import AssignmentConfig
from dr_core.learning.energy_visitors import EnergyVisitors
from dr_core.learning.refine import Refinement, wanted_lists
from dr_core.learning.start import softmax_mass
from dr_core.paths.best_visits import BestVisitors
from dr_core.paths.coverage import captured_mass
from dr_core.paths.kmeans_tree import random_paths
from dr_core.paths.refinement import refine_paths
from dr_core.paths.space import PathSpace

SPACE = PathSpace.even(5, 2)
NUM_ITEMS = 30


@pytest.fixture(scope="module")
def model(make_model):
    return make_model(NUM_ITEMS, SPACE.num_nodes, SPACE.num_layers)


@pytest.fixture(scope="module")
def user_NE(model):
    generator = torch.Generator().manual_seed(0)
    history_NL = torch.randint(NUM_ITEMS, (200, 6), generator=generator)
    with torch.inference_mode():
        return model.encode_last(history_NL, torch.randint(1, 7, (200,), generator=generator)).clone()


def refinement(model, user_NE, *, budgets=(3.0, 6.0), num_sweeps=20, capacity=1.75) -> Refinement:
    mass_NV = softmax_mass(model, user_NE)
    visitors = BestVisitors(mass_NV, 25, budgets)
    return Refinement(mass_NV, visitors, 25, num_sweeps=num_sweeps, capacity=capacity, seed=0)


def test_refined_paths_hold_more_of_the_softmax_mass(model, user_NE) -> None:
    start = random_paths(NUM_ITEMS, 1, SPACE, 0)
    refining = refinement(model, user_NE)
    found = refining.refine(start)
    assert found.shape == start.shape
    assert 0 <= found.min() <= found.max() < SPACE.num_paths
    visitors = BestVisitors(refining.mass_NV, 25, [3.0, 6.0])
    assert visitors.captured_mass(found) > visitors.captured_mass(start)


@pytest.mark.parametrize("normaliser", ["global", "layers"])
def test_what_is_configured_is_done_for_either_structure(make_model, user_NE, normaliser) -> None:
    model = make_model(NUM_ITEMS, 5, 2, normaliser=normaliser)
    choice = StructureChoice(NUM_ITEMS, SPACE, 4.0, 2.0, ())
    start = random_paths(NUM_ITEMS, 1, SPACE, 0)
    still = Refinement.of(model, user_NE, choice, AssignmentConfig(refine_sweeps=0), 0)
    np.testing.assert_array_equal(still.refine(start), start)
    narrow = Refinement.of(model, user_NE, choice, AssignmentConfig(refine_capacity=1.0), 0).refine(start)
    assert np.bincount(narrow[:, 0]).max() <= np.bincount(start[:, 0]).max()
    refining = Refinement.of(model, user_NE, choice, AssignmentConfig(), 0)
    found = refining.refine(start)
    before, after = (
        captured_mass(refining.mass_NV, refining.visitors.visit(each), each, SPACE.num_paths) for each in (start, found)
    )
    assert after > before


@pytest.mark.parametrize(
    ("candidates", "listed", "alike"),
    [(5.0, 20, 10), (120.0, 80, 30), (10_000.0, 300, 200)],
    ids=["few", "some", "many"],
)
def test_what_is_wanted_is_half_the_mass_of_the_best_and_half_the_very_best_alike(
    make_model, candidates, listed, alike
) -> None:
    model = make_model(500, 5, 2)
    user_NE = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    wanted_NV = wanted_lists(model, user_NE, candidates).toarray()
    with torch.inference_mode():
        score_NV = model.reranker.score_all(user_NE).numpy()
    for wanted_V, score_V in zip(wanted_NV, score_NV, strict=True):
        ranked = np.argsort(-score_V)
        mass_K = np.exp(score_V[ranked[:listed]])
        expected_K = 0.5 * mass_K / mass_K.sum() + np.where(np.arange(listed) < alike, 0.5 / alike, 0)
        np.testing.assert_allclose(wanted_V[ranked[:listed]], expected_K, rtol=1e-4)
        assert not wanted_V[ranked[listed:]].any()


def test_a_second_path_is_kept_or_added_where_it_pays() -> None:
    """Every item is wanted by two of six groups of users, who pay for about one path: it belongs on both groups' paths."""
    generator, num_groups = np.random.default_rng(0), 6
    pairs = np.array(list(combinations(range(num_groups), 2)) * 2)
    wants_GV = (pairs == np.arange(num_groups)[:, None, None]).any(axis=2).astype(np.float32)
    group_N = np.arange(300) % num_groups
    user_NE = torch.from_numpy(np.eye(num_groups, 8, dtype=np.float32)[group_N])
    user_NE += 0.05 * torch.from_numpy(generator.standard_normal(user_NE.shape).astype(np.float32))
    vector_VE = torch.from_numpy(np.pad(5 * wants_GV.T, ((0, 0), (0, 2))))
    mass_NV = csr_matrix(wants_GV[group_N] / wants_GV.sum(axis=1).max())
    visitors = EnergyVisitors(user_NE, mass_NV, vector_VE, torch.zeros(len(pairs)), num_groups, (9.0,))
    refining = Refinement(mass_NV, visitors, num_groups, num_sweeps=8, capacity=6.0, seed=0)
    first = pairs[:, :1]
    start = np.hstack((first, generator.integers(num_groups, size=first.shape)))
    start[start[:, 0] == start[:, 1], 1] = -1
    alone = np.where([True, False], start, -1)
    found = refining.refine(start)
    assert found[:, 0].min() >= 0
    assert (found[:, 1] >= 0).sum() > len(pairs) / 2
    assert (found[:, 0] != found[:, 1]).all()
    captured = [captured_mass(mass_NV, visitors.visit(each), each, num_groups) for each in (start, alone, found)]
    assert captured[2] > 1.2 * max(captured[:2])


def test_mappings_that_cannot_be_refined_are_refused(model, user_NE) -> None:
    refining, start = refinement(model, user_NE), random_paths(NUM_ITEMS, 1, SPACE, 0)
    with pytest.raises(ValueError, match="one path"):
        refining.refine(random_paths(NUM_ITEMS, 2, SPACE, 0))
    start[7] = -1
    with pytest.raises(ValueError, match="no path"):
        refining.refine(start, start)


def test_the_mapping_refined_is_the_better_one_at_equal_candidates(model, user_NE) -> None:
    """The second one too if it is better, but not where it leaves an item on no path."""
    short, long = np.arange(NUM_ITEMS)[:, None] % 25, np.arange(NUM_ITEMS)[:, None] // 10
    mass_NV = softmax_mass(model, user_NE)
    chosen = set()
    for budgets in ([4.0], [10.0, 30.0]):
        refining = refinement(model, user_NE, budgets=budgets, num_sweeps=1, capacity=1)
        visitors = BestVisitors(mass_NV, 25, budgets)
        for descended, parent in ((short, long), (long, short)):
            masses = [visitors.captured_mass(each) for each in (descended, parent)]
            assert masses[0] != pytest.approx(masses[1])
            start = (descended, parent)[int(np.argmax(masses))]
            chosen.add(start is descended)
            expected, of_descended = (
                refine_paths(mass_NV, each, 25, visitors, num_sweeps=1, capacity=1, seed=0)
                for each in (start, descended)
            )
            np.testing.assert_array_equal(refining.refine(descended, parent), expected)
            unplaced = parent.copy()
            unplaced[7] = -1
            np.testing.assert_array_equal(refining.refine(descended, unplaced), of_descended)
    assert chosen == {True, False}
