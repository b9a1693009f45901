"""Path sizes, dense and as a table."""

import numpy as np
import pytest

from dr_core.paths.sizes import PathSizes


@pytest.mark.parametrize("dense_limit", [1, 10**6])
@pytest.mark.parametrize("seed", range(5))
def test_sizes_are_the_counts_whatever_the_layout(seed: int, dense_limit: int) -> None:
    rng = np.random.default_rng(seed)
    paths = rng.integers(-1, 40, size=(30, 3))
    sizes = PathSizes.count(paths, dense_limit=dense_limit)
    assert (sizes.path_ids is None) == (dense_limit > 1)
    expected = [int(np.sum(paths == path)) for path in range(45)]
    np.testing.assert_array_equal(sizes.of(np.arange(45)), expected)
    occupied, counts = sizes.occupied()
    np.testing.assert_array_equal(occupied, np.flatnonzero(expected))
    np.testing.assert_array_equal(counts, np.array(expected)[occupied])


@pytest.mark.parametrize("dense_limit", [1, 25, 10**6])
@pytest.mark.parametrize("seed", range(5))
def test_adding_the_changes_equals_counting_again(seed: int, dense_limit: int) -> None:
    rng = np.random.default_rng(seed)
    before, after = rng.integers(0, 20, size=50), rng.integers(0, 40, size=50)
    changed = PathSizes.count(before, dense_limit=dense_limit).add(
        np.concatenate([before, after]), np.repeat([-1, 1], 50), dense_limit=dense_limit
    )
    np.testing.assert_array_equal(changed.of(np.arange(40)), PathSizes.count(after).of(np.arange(40)))


def test_table_rows_of_one_path_are_summed() -> None:
    np.testing.assert_array_equal(PathSizes.from_table([5, 2, 5], [1, 2, 3]).of([2, 5, 6]), [2, 4, 0])


def test_padding_and_unknown_paths_have_no_items() -> None:
    for limit in (1, 100):
        np.testing.assert_array_equal(PathSizes.count([3, 3], dense_limit=limit).of([-1, 3, 10**12]), [0, 2, 0])
    assert PathSizes.count(np.zeros((0, 3), dtype=np.int64)).of(7) == 0


def test_a_path_cannot_hold_fewer_than_no_item() -> None:
    with pytest.raises(ValueError, match="fewer than no item"):
        PathSizes.count([1]).add([1], [-2])
    with pytest.raises(ValueError, match="below -1"):
        PathSizes.count([-2])
    with pytest.raises(ValueError, match="negative"):
        PathSizes.from_table([-1], [1])
