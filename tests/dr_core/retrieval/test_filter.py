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


def test_prefixes_that_lead_to_an_item_are_open(mapping: np.ndarray) -> None:
    offsets, prefixes = open_prefixes(build_index(np.arange(4), mapping[:4]), SPACE)
    layers = np.split(prefixes, offsets[1:-1])
    nodes = SPACE.decode(mapping[:4].ravel())
    for depth, layer in enumerate(layers, start=1):
        expected = {int("".join(map(str, path[:depth])), 3) for path in nodes.tolist()}
        assert layer.tolist() == sorted(expected)
