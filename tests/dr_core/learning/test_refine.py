"""The refinement after the descent: it follows the softmax's mass, from the better of two mappings."""

import numpy as np
import pytest
import torch

from dr_core.learning.config import AssignmentConfig
from dr_core.learning.refine import Refinement
from dr_core.learning.start import softmax_mass
from dr_core.paths.kmeans_tree import random_paths
from dr_core.paths.refinement import captured_mass, refine_paths
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


def refinement(model, user_NE, *, budgets=(3.0, 6.0), **config) -> Refinement:
    return Refinement(softmax_mass(model, user_NE), SPACE, budgets, AssignmentConfig(**config), 0)


def test_refined_paths_hold_more_of_the_softmax_mass(model, user_NE) -> None:
    start = random_paths(NUM_ITEMS, 1, SPACE, 0)
    refining = refinement(model, user_NE)
    found = refining.refine(start)
    assert found.shape == start.shape
    assert 0 <= found.min() <= found.max() < SPACE.num_paths
    before, after = (captured_mass(refining.mass_NV, each[:, 0].copy(), 25, [3.0, 6.0]) for each in (start, found))
    assert after > before


def test_mappings_that_cannot_be_refined_are_refused(model, user_NE) -> None:
    refining, start = refinement(model, user_NE), random_paths(NUM_ITEMS, 1, SPACE, 0)
    with pytest.raises(ValueError, match="one path an item"):
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
        refining = refinement(model, user_NE, budgets=budgets, refine_sweeps=1, refine_capacity=1)
        for descended, parent in ((short, long), (long, short)):
            masses = [captured_mass(mass_NV, each[:, 0], 25, budgets) for each in (descended, parent)]
            assert masses[0] != pytest.approx(masses[1])
            start = (descended, parent)[int(np.argmax(masses))]
            chosen.add(start is descended)
            expected, of_descended = (
                refine_paths(mass_NV, each[:, 0], SPACE, budgets=budgets, num_sweeps=1, capacity=1, seed=0)
                for each in (start, descended)
            )
            np.testing.assert_array_equal(refining.refine(descended, parent)[:, 0], expected)
            unplaced = parent.copy()
            unplaced[7] = -1
            np.testing.assert_array_equal(refining.refine(descended, unplaced)[:, 0], of_descended)
    assert chosen == {True, False}
