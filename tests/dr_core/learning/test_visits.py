"""The paths by which alpha is corrected are those that the retriever visits."""

import numpy as np
import pytest
import torch

from dr_core.learning.visits import visited_paths
from dr_core.model.histories import encode_histories
from dr_core.paths.index import build_index
from dr_core.retrieval.from_model import compiled_structure, model_retriever

NUM_ITEMS, BEAM = 120, 4


@pytest.fixture
def world(make_model):
    """A model, users, and a mapping in which half of the items crowd a fifth of the paths, and one item has no path."""
    model, rng = make_model(NUM_ITEMS, num_nodes=5), np.random.default_rng(0)
    path_VJ = np.where(np.arange(NUM_ITEMS) % 2, rng.integers(0, 5, NUM_ITEMS), rng.integers(0, 25, NUM_ITEMS))[:, None]
    path_VJ[7] = -1
    histories = [rng.integers(0, NUM_ITEMS, 5) for _ in range(40)]
    return model, path_VJ, encode_histories(model, histories, 5)


def test_visited_paths_are_the_served_ones(world) -> None:
    model, path_VJ, user_UE = world
    retriever = model_retriever(model, build_index(np.arange(NUM_ITEMS), path_VJ), width=BEAM, max_length=5)
    found = visited_paths(model, path_VJ, user_UE, BEAM)
    np.testing.assert_array_equal(found, retriever.search(user_UE.numpy()).path_UB)
    plain = compiled_structure(model.structure).visit(user_UE.numpy(), BEAM).path_UB
    assert (np.sort(found) != np.sort(plain)).any(), "the longest paths are not visited only because they are probable"


def test_nobody_visits_nothing(world) -> None:
    model, path_VJ, user_UE = world
    assert visited_paths(model, path_VJ, user_UE[:0], BEAM).shape == (0, BEAM)
    assert visited_paths(model, path_VJ, torch.zeros(2, 8), 1000).shape == (2, 25)
