"""The refinement after the descent: whose mass it follows, and which of two mappings it starts from."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from dr_core.model.compiled import CompiledStructure
from dr_core.paths.initialization import random_paths
from dr_core.paths.refinement import captured_mass, refine_paths
from dr_core.paths.space import PathSpace
from pipelines.stages.assign import AssignmentConfig
from pipelines.stages.initialize import sample_states, softmax_mass
from pipelines.stages.refine import pooled_mass, refined

SPACE = PathSpace(5, 2)
NUM_ITEMS = 30


@pytest.fixture(scope="module")
def user_NE(world):
    """States of the samples."""
    return sample_states(world.workdir, "samples", world.model, 200)


def pool(world, user_NE, path_V: np.ndarray, say: float = 0.5) -> csr_matrix:
    return pooled_mass(softmax_mass(world.model, user_NE), world.model, user_NE, path_V, say)


@pytest.mark.parametrize("say", [0.0, 0.5, 0.8, 1.0])
def test_the_pool_is_the_geometric_mean_between_paths_and_the_softmax_within(world, user_NE, say: float) -> None:
    """Of all items' mass, against the same in dense arrays; a half of it left out keeps its total."""
    path_V = random_paths(NUM_ITEMS, 1, SPACE, 3)[:, 0]
    softmax_NV = softmax_mass(world.model, user_NE).toarray().astype(np.float64)
    every = np.tile(np.arange(SPACE.num_paths), (len(user_NE), 1))
    structure_NP = np.exp(CompiledStructure(world.model.structure).log_prob(user_NE.numpy(), every))
    is_on_VP = path_V[:, None] == np.arange(SPACE.num_paths)
    path_NP = softmax_NV @ is_on_VP
    weight_NP = path_NP ** (1 - say) * structure_NP**say * is_on_VP.any(0)
    share_NP = weight_NP / weight_NP.sum(1, keepdims=True)
    expected_NV = share_NP[:, path_V] * softmax_NV / path_NP[:, path_V]
    found_NV = pool(world, user_NE, path_V, say).toarray()
    np.testing.assert_allclose(found_NV, expected_NV, rtol=1e-4)
    assert (np.abs(found_NV - softmax_NV).max() > 0.01) == (say > 0)

    half_NV = softmax_NV * (softmax_NV > np.median(softmax_NV, axis=1, keepdims=True))
    pooled_NV = pooled_mass(csr_matrix(half_NV.astype(np.float32)), world.model, user_NE, path_V, say).toarray()
    np.testing.assert_allclose(pooled_NV.sum(1), half_NV.sum(1), rtol=1e-4)
    assert not pooled_NV[half_NV == 0].any()


def test_refined_paths_hold_more_of_the_mass_that_is_followed(world, user_NE) -> None:
    """With one path an item; other mappings stay as they are."""
    start = random_paths(NUM_ITEMS, 1, SPACE, 0)
    options = {"budgets": [3.0, 6.0], "seed": 0}
    masses = {0.0: softmax_mass(world.model, user_NE), 0.5: pool(world, user_NE, start[:, 0])}
    for say, mass_NV in masses.items():
        found = refined(world.model, user_NE, start, start, SPACE, AssignmentConfig(refine_pool=say), **options)
        assert found.shape == start.shape
        assert 0 <= found.min() <= found.max() < SPACE.num_paths
        before, after = (captured_mass(mass_NV, each[:, 0].copy(), 25, [3.0, 6.0]) for each in (start, found))
        assert after > before
    double = random_paths(NUM_ITEMS, 2, SPACE, 0)
    assert refined(world.model, user_NE, double, double, SPACE, AssignmentConfig(), **options) is double
    off = AssignmentConfig(refine_sweeps=0)
    assert refined(world.model, user_NE, start, start, SPACE, off, **options) is start


def test_the_softmax_alone_is_followed_where_the_parent_leaves_items_out(world, user_NE) -> None:
    start = random_paths(NUM_ITEMS, 1, SPACE, 0)
    parent = start.copy()
    parent[7] = -1
    config = AssignmentConfig(refine_sweeps=2, refine_pool=0.5)
    found = refined(world.model, user_NE, start, parent, SPACE, config, budgets=[3.0], seed=0)
    alone = refine_paths(
        softmax_mass(world.model, user_NE),
        start[:, 0],
        SPACE,
        budgets=[3.0],
        num_sweeps=2,
        capacity=config.refine_capacity,
        seed=0,
    )
    np.testing.assert_array_equal(found[:, 0], alone)
    pooled = refined(world.model, user_NE, start, start, SPACE, config, budgets=[3.0], seed=0)
    assert (found != pooled).any()


def test_the_mapping_refined_is_the_better_one_at_equal_candidates(world, user_NE) -> None:
    config = AssignmentConfig(refine_sweeps=1, refine_capacity=1, refine_pool=0.5)
    short, long = np.arange(NUM_ITEMS)[:, None] % 25, np.arange(NUM_ITEMS)[:, None] // 10
    chosen = set()
    for budgets in ([4.0], [10.0, 30.0]):
        for descended, parent in ((short, long), (long, short)):
            mass_NV = pool(world, user_NE, parent[:, 0])
            masses = [captured_mass(mass_NV, each[:, 0], 25, budgets) for each in (descended, parent)]
            assert masses[0] != pytest.approx(masses[1])
            start = (descended, parent)[int(np.argmax(masses))]
            chosen.add(start is descended)
            expected = refine_paths(mass_NV, start[:, 0], SPACE, budgets=budgets, num_sweeps=1, capacity=1, seed=0)
            found = refined(world.model, user_NE, descended, parent, SPACE, config, budgets=budgets, seed=0)
            np.testing.assert_array_equal(found[:, 0], expected)
    assert chosen == {True, False}
