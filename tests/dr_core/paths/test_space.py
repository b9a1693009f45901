"""Numbering of paths."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr_core.paths.space import PathSpace

spaces = st.lists(st.integers(2, 300), min_size=1, max_size=8).filter(lambda nodes: math.prod(nodes) < 2**63)


@given(spaces, st.integers(0, 2**32 - 1))
def test_decode_inverts_encode(layers: list[int], seed: int) -> None:
    space = PathSpace(tuple(layers))
    nodes = np.random.default_rng(seed).integers(0, space.nodes, size=(4, 3, space.num_layers))
    path_ids = space.encode(nodes)
    assert path_ids.dtype == np.int64
    assert path_ids.shape == (4, 3)
    np.testing.assert_array_equal(space.decode(path_ids), nodes)


@given(spaces, st.integers(0, 2**32 - 1))
def test_prefix_is_the_number_of_the_first_layers(layers: list[int], seed: int) -> None:
    space = PathSpace(tuple(layers))
    path_ids = np.random.default_rng(seed).integers(0, space.num_paths, size=5)
    nodes = space.decode(path_ids)
    np.testing.assert_array_equal(space.prefix(path_ids, space.num_layers), path_ids)
    np.testing.assert_array_equal(space.prefix(path_ids, 0), 0)
    for depth in range(1, space.num_layers):
        prefix = space.prefix(path_ids, depth)
        np.testing.assert_array_equal(prefix, PathSpace(space.nodes[:depth]).encode(nodes[:, :depth]))
        assert space.num_prefixes(depth) * space.paths_below(depth) == space.num_paths


def test_every_path_of_a_small_space_has_its_own_number() -> None:
    space = PathSpace.even(3, 4)
    all_nodes = np.stack(np.meshgrid(*[np.arange(3)] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    np.testing.assert_array_equal(space.encode(all_nodes), np.arange(space.num_paths))


@pytest.mark.parametrize(("num_nodes", "num_layers"), [(1, 3), (0, 1), (2, 0), (2, 63), (10, 19), (2**32, 2)])
def test_spaces_that_cannot_be_numbered_are_refused(num_nodes: int, num_layers: int) -> None:
    with pytest.raises(ValueError, match=r"at least|more than"):
        PathSpace.even(num_nodes, num_layers)


def test_only_even_layers_have_a_number_of_nodes_in_common() -> None:
    assert PathSpace((7, 7)) == PathSpace.even(7, 2)
    assert PathSpace.even(7, 2).num_nodes == 7
    with pytest.raises(ValueError, match="no K in common"):
        _ = PathSpace((512, 32)).num_nodes


def test_a_space_says_its_shape() -> None:
    assert str(PathSpace.even(104, 2)) == "K=104, D=2"
    assert str(PathSpace((512, 32))) == "512 x 32 nodes"


def test_values_out_of_range_are_refused() -> None:
    space = PathSpace.even(4, 2)
    for nodes in ([[4, 0]], [[0, -1]], [[0]], [[0.5, 1.0]]):
        with pytest.raises(ValueError, match="nodes must"):
            space.encode(nodes)
    for path_ids in ([16], [-1], [1.5]):
        with pytest.raises(ValueError, match="must"):
            space.decode(path_ids)
    with pytest.raises(ValueError, match="depth"):
        space.prefix([3], 3)
    np.testing.assert_array_equal(space.check([-1, 15], allow_padding=True), [-1, 15])
