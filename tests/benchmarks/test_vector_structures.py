"""Deep Retrieval over vectors, as the benchmark builds it."""

import numpy as np
import pytest
import torch

from benchmarks.vector_structures import EnergiesOverVectors, read_width, write_width
from benchmarks.vector_worlds import World, WorldSize, exact_top, users_unlike_items
from dr_core.learning.states import States
from dr_core.retrieval.router import Price

K, NODES = 20, (4, 8)
EVERYTHING = Price(-np.inf, -np.inf, 10**9)


@pytest.fixture(scope="module")
def world() -> World:
    return users_unlike_items(WorldSize(3000, 600, 10, 100), seed=0)


@pytest.fixture(scope="module")
def structure(world: World) -> EnergiesOverVectors:
    lists = torch.from_numpy(exact_top(world.train_NE, world.item_VE, K))
    states = States(torch.from_numpy(world.train_NE), lists, torch.ones(lists.shape) / K)
    return EnergiesOverVectors(world, states, NODES, epochs=1, seed=0, list_seconds=0.0)


def test_all_paths_hold_all_that_is_best(world: World, structure: EnergiesOverVectors) -> None:
    found = structure.search(world.test_UE, K, write_width(EVERYTHING))
    np.testing.assert_array_equal(np.sort(found), np.sort(exact_top(world.test_UE, world.item_VE, K)))


def test_work_of_all_paths_is_that_of_all_nodes_paths_and_items(world: World, structure: EnergiesOverVectors) -> None:
    occupied = len(np.unique(structure.index.path_ids // NODES[1]))
    nodes = NODES[0] + occupied * NODES[1]
    work = structure.multiply_adds(world.test_UE, write_width(EVERYTHING))
    assert work == (nodes + len(world.item_VE)) * world.item_VE.shape[1]


def test_a_sweep_goes_from_few_candidates_to_many(world: World, structure: EnergiesOverVectors) -> None:
    assert structure.sweeps
    for sweep in structure.sweeps:
        candidates = [structure.candidates(world.test_UE, width) for width in sweep]
        assert candidates == sorted(candidates)


def test_prices_find_more_than_as_many_paths_at_random(world: World, structure: EnergiesOverVectors) -> None:
    truth = exact_top(world.test_UE, world.item_VE, K)
    width = structure.sweeps[-1][0]
    found = structure.search(world.test_UE, K, width)
    recall = np.mean([np.isin(best, own).mean() for best, own in zip(truth, found, strict=True)])
    assert recall > 2 * structure.candidates(world.test_UE, width) / len(world.item_VE)


@pytest.mark.parametrize("width", [7, Price(-8.25, -6.0, 4000), EVERYTHING])
def test_a_width_is_read_as_it_was_written(width: int | Price) -> None:
    assert read_width(write_width(width)) == width
