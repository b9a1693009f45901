"""Sweeps over blocks, by several threads and over parts side by side, against one pass over all items."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dr_core.paths.assignment import coordinate_descent, penalised_surrogate
from dr_core.paths.penalty import Penalty, derive_alpha
from dr_core.paths.scores import PathCandidates
from dr_core.paths.sizes import PathSizes
from dr_core.paths.streaming import StreamingDescent

CandidatesMaker = Callable[..., PathCandidates]

NUM_PATHS = 200
SHARE_OF_THE_GAIN = {1: 1.0, 2: 0.99, 4: 0.98, 16: 0.9}
"""What 5 sweeps of so many parts gain, of what one part gains, at 45 items a path: the bound the docstring states."""


def rows_of(candidates: PathCandidates, items: np.ndarray) -> PathCandidates:
    lengths = np.diff(candidates.offsets)[items]
    entries = np.concatenate([np.arange(candidates.offsets[v], candidates.offsets[v + 1]) for v in items])
    return PathCandidates(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        candidates.path_ids[entries],
        candidates.scores[entries],
        candidates.weights[items],
        candidates.current_paths[items],
        items,
    )


def sweep_parts(
    candidates: PathCandidates, penalty: Penalty, *, num_parts: int, num_sweeps: int, seed: int = 0
) -> tuple[np.ndarray, PathSizes]:
    part_of_item = np.random.default_rng(seed).integers(num_parts, size=candidates.num_items)
    parts = [np.flatnonzero(part_of_item == part) for part in range(num_parts)]
    slices = [rows_of(candidates, items) for items in parts]
    paths = candidates.current_paths.copy()
    sizes = PathSizes.count(paths)
    for _ in range(num_sweeps):
        before, after = sizes.of(np.arange(NUM_PATHS)), sizes
        for items, part in zip(parts, slices, strict=True):
            with StreamingDescent(sizes, NUM_PATHS, penalty, scale=num_parts) as descent:
                paths[items], _ = descent.sweep(replace(part, current_paths=paths[items]))
                delta = descent.sizes.counts - before
            assert np.all(delta % num_parts == 0)
            after = after.add(np.arange(NUM_PATHS), delta // num_parts)
        sizes = after
    return paths, sizes


@pytest.fixture
def catalogue(make_candidates: CandidatesMaker) -> PathCandidates:
    return make_candidates(0, num_items=3000, num_path_ids=NUM_PATHS, row_length=23)


@pytest.mark.parametrize("num_parts", [1, 2, 4, 16])
def test_sizes_follow_the_summed_changes_and_paths_stay_distinct(catalogue: PathCandidates, num_parts: int) -> None:
    paths, sizes = sweep_parts(catalogue, Penalty(4, 1e-4), num_parts=num_parts, num_sweeps=3)
    np.testing.assert_array_equal(sizes.of(np.arange(200)), np.bincount(paths.ravel(), minlength=200))
    ordered = np.sort(paths, axis=1)
    assert np.all(ordered[:, 1:] > ordered[:, :-1])


@pytest.mark.parametrize("num_sweeps", [1, 3])
def test_one_part_is_coordinate_descent_exactly(catalogue: PathCandidates, num_sweeps: int) -> None:
    penalty = Penalty(4, 1e-4)
    paths, _ = sweep_parts(catalogue, penalty, num_parts=1, num_sweeps=num_sweeps)
    local = coordinate_descent(catalogue, penalty, num_paths=3, num_sweeps=num_sweeps)
    np.testing.assert_array_equal(np.sort(paths), np.sort(local.path_ids))


@pytest.mark.parametrize("num_parts", [1, 2, 4, 16])
def test_parts_gain_nearly_what_one_part_gains(catalogue: PathCandidates, num_parts: int) -> None:
    penalty = Penalty(4, derive_alpha(float(catalogue.weights.mean()), 90))
    local = coordinate_descent(catalogue, penalty, num_paths=3, num_sweeps=5)
    paths, _ = sweep_parts(catalogue, penalty, num_parts=num_parts, num_sweeps=5)
    gained = penalised_surrogate(catalogue, paths, penalty) - local.objective_before
    assert gained >= SHARE_OF_THE_GAIN[num_parts] * (local.objective_after - local.objective_before) - 1e-6


@pytest.mark.parametrize("num_parts", [2, 16])
def test_parts_do_not_rush_into_the_same_short_paths(catalogue: PathCandidates, num_parts: int) -> None:
    penalty = Penalty(4, derive_alpha(float(catalogue.weights.mean()), 90))
    local = coordinate_descent(catalogue, penalty, num_paths=3, num_sweeps=5)
    _, sizes = sweep_parts(catalogue, penalty, num_parts=num_parts, num_sweeps=5)
    assert sizes.counts.max() <= 1.25 * local.sizes.counts.max()


def sweep_blocks(
    candidates: PathCandidates, penalty: Penalty, *, block: int, num_sweeps: int, num_threads: int, step_rows: int
) -> tuple[np.ndarray, PathSizes]:
    paths = candidates.current_paths.astype(np.int32)
    with StreamingDescent(
        PathSizes.count(paths), NUM_PATHS, penalty, num_threads=num_threads, step_rows=step_rows
    ) as descent:
        for _ in range(num_sweeps):
            for first in range(0, candidates.num_items, block):
                items = np.arange(first, min(first + block, candidates.num_items))
                rows = replace(rows_of(candidates, items), current_paths=paths[items])
                paths[items], _ = descent.sweep(replace(rows, path_ids=rows.path_ids.astype(np.int32)))
        for table in descent._tables:
            np.testing.assert_array_equal(table, np.bincount(paths.ravel(), minlength=NUM_PATHS))
        return paths, descent.sizes


@pytest.mark.parametrize("block", [1, 7, 1000, 3000])
def test_blocks_one_after_the_other_are_coordinate_descent_exactly(catalogue: PathCandidates, block: int) -> None:
    penalty = Penalty(4, 1e-4)
    paths, sizes = sweep_blocks(catalogue, penalty, block=block, num_sweeps=2, num_threads=1, step_rows=100)
    local = coordinate_descent(catalogue, penalty, num_paths=3, num_sweeps=2)
    np.testing.assert_array_equal(np.sort(paths), np.sort(local.path_ids))
    np.testing.assert_array_equal(sizes.of(np.arange(NUM_PATHS)), local.sizes.of(np.arange(NUM_PATHS)))


def test_threads_come_to_the_same_paths_in_every_run_and_close_to_one_thread(catalogue: PathCandidates) -> None:
    penalty = Penalty(4, derive_alpha(float(catalogue.weights.mean()), 90))
    options = {"block": 1100, "num_sweeps": 5, "num_threads": 3, "step_rows": 20}
    paths, _ = sweep_blocks(catalogue, penalty, **options)
    again, _ = sweep_blocks(catalogue, penalty, **options)
    np.testing.assert_array_equal(paths, again)
    local = coordinate_descent(catalogue, penalty, num_paths=3, num_sweeps=5)
    gained = penalised_surrogate(catalogue, paths.astype(np.int64), penalty) - local.objective_before
    assert gained >= 0.99 * (local.objective_after - local.objective_before)


def test_paths_outside_the_table_are_refused(catalogue: PathCandidates) -> None:
    few = StreamingDescent(PathSizes.count(catalogue.current_paths), 100, Penalty(4, 1e-4))
    with few as descent, pytest.raises(ValueError, match="but there are 100 paths"):
        descent.sweep(catalogue)
    with pytest.raises(ValueError, match="dense table"):
        StreamingDescent(PathSizes.count([0]), 2**40, Penalty(4, 1.0))
    with pytest.raises(ValueError, match="num_threads=0"):
        StreamingDescent(PathSizes.count([0]), 10, Penalty(4, 1.0), num_threads=0)
