"""Allowed items: the index of what is left, and the prefixes that lead to it."""

import numpy as np
import pytest

from dr_core.paths.index import build_index
from dr_core.paths.space import PathSpace
from dr_core.retrieval.filter import Allowed, open_prefixes

NUM_ITEMS, SPACE = 40, PathSpace.even(3, 3)


@pytest.fixture
def mapping() -> np.ndarray:
    rng = np.random.default_rng(2)
    return np.array([rng.choice(SPACE.num_paths, 2, replace=False) for _ in range(NUM_ITEMS)])


@pytest.mark.parametrize("chosen", [[], [7], [0, 39], list(range(0, 40, 4)), list(range(40))])
def test_the_index_of_what_is_left_is_the_one_built_of_it(mapping: np.ndarray, chosen: list[int]) -> None:
    index = build_index(np.arange(NUM_ITEMS), mapping)
    left = Allowed.of(np.array(chosen, np.int64), NUM_ITEMS).on(index)
    expected = build_index(np.array(chosen, np.int64), mapping[chosen])
    for one, other in zip(left.arrays, expected.arrays, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


def test_an_id_of_no_item_is_refused() -> None:
    for wrong in (-1, NUM_ITEMS):
        with pytest.raises(ValueError, match=f"allowed holds {wrong}: .* 0 to {NUM_ITEMS - 1}"):
            Allowed.of(np.array([3, wrong]), NUM_ITEMS)


@pytest.mark.parametrize("nodes", [(3, 3, 3), (5, 2, 3), (2, 12)])
def test_prefixes_that_lead_to_an_item_are_open(nodes: tuple[int, ...]) -> None:
    space = PathSpace(nodes)
    path_ids = np.random.default_rng(2).choice(space.num_paths, 8, replace=False)
    offsets, prefixes = open_prefixes(build_index(np.arange(4), path_ids.reshape(4, 2)), space)
    layers = np.split(prefixes, offsets[1:-1])
    assert len(layers) == len(nodes)
    for depth, layer in enumerate(layers, start=1):
        first = sorted({tuple(path[:depth]) for path in space.decode(path_ids).tolist()})
        np.testing.assert_array_equal(layer, PathSpace(nodes[:depth]).encode(first))
