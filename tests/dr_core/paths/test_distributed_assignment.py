"""Sweeps over parts of the items side by side, against one part."""

from collections.abc import Callable

import numpy as np
import pytest

from dr_core.paths.assignment import coordinate_descent, penalised_surrogate, sweep_partition
from dr_core.paths.penalty import Penalty, derive_alpha
from dr_core.paths.scores import PathCandidates
from dr_core.paths.sizes import PathSizes

CandidatesMaker = Callable[..., PathCandidates]

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
        deltas = []
        for items, part in zip(parts, slices, strict=True):
            paths[items], delta = sweep_partition(part, paths[items], sizes, penalty, num_parts)
            deltas.append(delta)
        sizes = sizes.add(np.concatenate([d.path_ids for d in deltas]), np.concatenate([d.deltas for d in deltas]))
    return paths, sizes


@pytest.fixture
def catalogue(make_candidates: CandidatesMaker) -> PathCandidates:
    return make_candidates(0, num_items=3000, num_path_ids=200, row_length=23)


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
    penalty = Penalty.named("quartic", derive_alpha(float(catalogue.weights.mean()), 90))
    local = coordinate_descent(catalogue, penalty, num_paths=3, num_sweeps=5)
    paths, _ = sweep_parts(catalogue, penalty, num_parts=num_parts, num_sweeps=5)
    gained = penalised_surrogate(catalogue, paths, penalty) - local.objective_before
    assert gained >= SHARE_OF_THE_GAIN[num_parts] * (local.objective_after - local.objective_before) - 1e-6


@pytest.mark.parametrize("num_parts", [2, 16])
def test_parts_do_not_rush_into_the_same_short_paths(catalogue: PathCandidates, num_parts: int) -> None:
    penalty = Penalty.named("quartic", derive_alpha(float(catalogue.weights.mean()), 90))
    local = coordinate_descent(catalogue, penalty, num_paths=3, num_sweeps=5)
    _, sizes = sweep_parts(catalogue, penalty, num_parts=num_parts, num_sweeps=5)
    assert sizes.counts.max() <= 1.25 * local.sizes.counts.max()
