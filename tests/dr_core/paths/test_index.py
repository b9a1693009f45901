"""The inverted mapping."""

from pathlib import Path

import numpy as np
import pytest

from dr_core.errors import InputError
from dr_core.paths.index import PathIndex, build_index


def random_mapping(seed: int, *, num_items: int = 60, num_paths: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.permuted(np.tile(np.arange(25) * 7, (num_items, 1)), axis=1)[:, :num_paths]


@pytest.mark.parametrize("seed", range(5))
def test_index_is_the_inverse_of_the_mapping(seed: int) -> None:
    paths = random_mapping(seed)
    index = build_index(np.arange(len(paths)), paths)
    assert index.item_ids.dtype == np.int32
    assert len(index.item_ids) == paths.size
    np.testing.assert_array_equal(index.path_ids, np.unique(paths))
    for path in range(-1, 7 * 26):
        np.testing.assert_array_equal(index.items(path), np.flatnonzero((paths == path).any(axis=1)))


def test_the_order_of_the_rows_does_not_matter() -> None:
    paths = random_mapping(3)
    items = np.repeat(np.arange(len(paths)), paths.shape[1])
    order = np.random.default_rng(0).permutation(len(items))
    shuffled = build_index(items[order], paths.ravel()[order])
    straight = build_index(np.arange(len(paths)), paths)
    for name in ("path_ids", "offsets", "item_ids"):
        np.testing.assert_array_equal(getattr(shuffled, name), getattr(straight, name))


def test_lookup_has_the_shape_of_the_query_and_nothing_for_absent_paths() -> None:
    index = build_index([0, 1, 2], [[5], [9], [5]])
    starts, ends = index.lookup([[5, 6], [9, -1]])
    np.testing.assert_array_equal(ends - starts, [[2, 0], [1, 0]])
    empty_starts, empty_ends = build_index([], np.zeros((0, 2), dtype=np.int64)).lookup([1, 2])
    np.testing.assert_array_equal(empty_starts, empty_ends)


def test_items_without_a_path_are_left_out() -> None:
    index = build_index([4, 5], [[1, -1], [-1, -1]])
    np.testing.assert_array_equal(index.items(1), [4])
    assert len(index.item_ids) == 1


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("num_items", [0, 60])
def test_saved_index_is_read_back(tmp_path: Path, mmap: bool, num_items: int) -> None:
    index = build_index(np.arange(num_items), random_mapping(1, num_items=num_items))
    index.save(tmp_path / "index")
    read = PathIndex.load(tmp_path / "index", mmap=mmap)
    assert sorted(file.name for file in (tmp_path / "index").iterdir()) == [
        "item_ids.npy",
        "offsets.npy",
        "path_ids.npy",
    ]
    for name in ("path_ids", "offsets", "item_ids"):
        np.testing.assert_array_equal(getattr(read, name), getattr(index, name))
        assert getattr(read, name).dtype == getattr(index, name).dtype


def test_missing_and_mixed_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"path_ids\.npy"):
        PathIndex.load(tmp_path)
    build_index([0, 1], [[1], [2]]).save(tmp_path)
    np.save(tmp_path / "offsets.npy", np.arange(2))
    with pytest.raises(InputError, match="do not belong together"):
        PathIndex.load(tmp_path)


@pytest.mark.parametrize(
    ("items", "paths"), [([0, 0], [3, 3]), ([-1], [3]), ([2**31], [3]), ([0], [-2]), ([0, 1], [3]), ([0.5], [3])]
)
def test_mappings_that_cannot_be_inverted_are_refused(items: list[int], paths: list[int]) -> None:
    with pytest.raises(ValueError, match=r"must|twice"):
        build_index(items, paths)
