"""Coordinate descent: one step against enumeration, what never falls, and the odd items."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dr_core.paths.assignment import (
    SCORE_FLOOR,
    changed_rows,
    coordinate_descent,
    hashed_paths,
    log_score,
    penalised_surrogate,
    rank_paths,
)
from dr_core.paths.penalty import Penalty
from dr_core.paths.scores import PathCandidates
from dr_core.paths.sizes import PathSizes
from dr_core.paths.space import PathSpace
from dr_core.paths.streaming import StreamingDescent

CandidatesMaker = Callable[..., PathCandidates]
PENALTIES = [Penalty(4, 0.0), Penalty(4, 0.02), Penalty(2, 0.5), Penalty(3, 2.0)]


def one_sweep(
    candidates: PathCandidates, paths: np.ndarray, penalty: Penalty, space: PathSpace | None = None
) -> np.ndarray:
    """The paths after one sweep, slot by slot in place (coordinate_descent orders them by gain)."""
    with StreamingDescent(PathSizes.count(paths), 100, penalty, space=space) as descent:
        return descent.sweep(replace(candidates, current_paths=paths))[0]


def surrogate_by_definition(candidates: PathCandidates, paths: np.ndarray, penalty: Penalty) -> float:
    total = 0.0
    for v in range(candidates.num_items):
        span = slice(candidates.offsets[v], candidates.offsets[v + 1])
        score = dict(zip(candidates.path_ids[span].tolist(), candidates.scores[span].tolist(), strict=True))
        summed = sum(score.get(int(path), 0.0) for path in paths[v] if path >= 0)
        if candidates.weights[v]:
            total += candidates.weights[v] * np.log(max(summed, SCORE_FLOOR))
    counts = np.unique(paths[paths >= 0], return_counts=True)[1]
    return total - penalty.alpha * float(np.sum(counts.astype(float) ** penalty.power / penalty.power))


def sweep_by_enumeration(candidates: PathCandidates, paths: np.ndarray, penalty: Penalty) -> np.ndarray:
    """Every slot of every item takes the c under which the whole surrogate, computed anew, is largest."""
    paths = paths.copy()
    for v in range(candidates.num_items):
        is_complete = np.all(paths[v] >= 0)
        row = candidates.path_ids[candidates.offsets[v] : candidates.offsets[v + 1]].tolist()
        if is_complete and (candidates.weights[v] == 0 or len(row) < paths.shape[1]):
            continue
        for j in range(paths.shape[1]):
            if not is_complete and paths[v, j] >= 0:
                continue
            others = set(np.delete(paths[v], j).tolist())
            options = [c for c in sorted({*row, *paths[v, j : j + 1].tolist()}) if c >= 0 and c not in others]
            values = []
            for c in options:
                trial = paths.copy()
                trial[v, j] = c
                values.append(surrogate_by_definition(candidates, trial, penalty))
            paths[v, j] = options[int(np.argmax(values))]
    return paths


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("seed", range(8))
def test_every_exact_step_equals_enumeration(make_candidates: CandidatesMaker, seed: int, penalty: Penalty) -> None:
    candidates = make_candidates(seed)
    paths = candidates.current_paths
    for _ in range(3):
        expected = sweep_by_enumeration(candidates, paths, penalty)
        swept = one_sweep(candidates, paths, penalty)
        np.testing.assert_array_equal(swept, expected)
        paths = swept


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("seed", range(8))
def test_building_from_nothing_equals_enumeration(
    make_candidates: CandidatesMaker, seed: int, penalty: Penalty
) -> None:
    candidates = make_candidates(seed)
    start = np.where(
        np.random.default_rng(seed).random(candidates.current_paths.shape) < 0.3, candidates.current_paths, -1
    )
    expected = sweep_by_enumeration(candidates, start, penalty)
    swept = one_sweep(candidates, start, penalty)
    np.testing.assert_array_equal(swept, expected)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("seed", range(12))
def test_the_penalised_surrogate_never_falls(make_candidates: CandidatesMaker, seed: int, penalty: Penalty) -> None:
    candidates = make_candidates(seed, num_items=60, num_path_ids=20, row_length=9)
    values = [penalised_surrogate(candidates, candidates.current_paths, penalty)]
    for _ in range(6):
        result = coordinate_descent(candidates, penalty, num_paths=3, num_sweeps=1)
        assert result.objective_before == pytest.approx(values[-1], rel=1e-12)
        values.append(result.objective_after)
        candidates = replace(candidates, current_paths=result.path_ids)
    assert np.all(np.diff(values) >= -1e-9 * np.abs(values[:-1]))
    assert values[-1] > values[0]


@pytest.mark.parametrize("num_paths", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_an_assignment_is_consistent(make_candidates: CandidatesMaker, seed: int, num_paths: int) -> None:
    candidates = make_candidates(seed, num_items=80, num_paths=num_paths)
    penalty = Penalty(4, 0.01)
    result = coordinate_descent(candidates, penalty, num_paths=num_paths, num_sweeps=4)
    ordered = np.sort(result.path_ids, axis=1)
    assert np.all(ordered[:, 1:] > ordered[:, :-1])
    np.testing.assert_array_equal(result.sizes.of(np.arange(15)), np.bincount(result.path_ids.ravel(), minlength=15))
    assert result.num_moved == np.count_nonzero(changed_rows(candidates.current_paths, result.path_ids))
    assert result.objective_after == pytest.approx(surrogate_by_definition(candidates, result.path_ids, penalty))
    assert result.objective_before == pytest.approx(
        surrogate_by_definition(candidates, candidates.current_paths, penalty)
    )
    assert np.all(np.diff(result.gains, axis=1) <= 0)
    again = coordinate_descent(candidates, penalty, num_paths=num_paths, num_sweeps=4)
    np.testing.assert_array_equal(again.path_ids, result.path_ids)
    np.testing.assert_array_equal(again.gains, result.gains)


def test_one_path_an_item_descends_too(make_candidates: CandidatesMaker) -> None:
    candidates = make_candidates(0, num_paths=1)
    free = coordinate_descent(candidates, Penalty(4, 0.0), num_paths=1, num_sweeps=2)
    best = candidates.path_ids.reshape(12, 7)[np.arange(12), candidates.scores.reshape(12, 7).argmax(axis=1)]
    np.testing.assert_array_equal(free.path_ids[:, 0], best)


def test_without_a_penalty_every_item_takes_its_best_paths(make_candidates: CandidatesMaker) -> None:
    candidates = make_candidates(1)
    result = coordinate_descent(candidates, Penalty(4, 0.0), num_paths=3, num_sweeps=5)
    top = np.argsort(-candidates.scores.reshape(12, 7), axis=1)[:, :3]
    expected = np.take_along_axis(candidates.path_ids.reshape(12, 7), top, axis=1)
    np.testing.assert_array_equal(np.sort(result.path_ids), np.sort(expected))
    assert result.num_sweeps < 5


def test_a_heavy_penalty_makes_all_paths_alike(make_candidates: CandidatesMaker) -> None:
    candidates = make_candidates(2, num_items=100, num_path_ids=20, row_length=15)
    result = coordinate_descent(candidates, Penalty(4, 1e6), num_paths=3, num_sweeps=10)
    assert np.ptp(result.sizes.counts) <= 2


@pytest.mark.parametrize("seed", range(4))
def test_a_gain_is_what_the_surrogate_loses_without_the_path(make_candidates: CandidatesMaker, seed: int) -> None:
    candidates = make_candidates(seed)
    penalty = Penalty(4, 0.02)
    paths, gains = rank_paths(candidates, candidates.current_paths, penalty)
    whole = penalised_surrogate(candidates, paths, penalty)
    for v, j in np.ndindex(paths.shape):
        without = paths.copy()
        without[v, j] = -1
        assert gains[v, j] == pytest.approx(whole - penalised_surrogate(candidates, without, penalty))


@pytest.mark.parametrize("seed", range(4))
def test_far_apart_path_ids_change_nothing_but_their_names(make_candidates: CandidatesMaker, seed: int) -> None:
    near = make_candidates(seed, num_items=40)
    spread = 10**16
    far = replace(near, path_ids=near.path_ids * spread, current_paths=near.current_paths * spread)
    penalty = Penalty(4, 0.02)
    near_result = coordinate_descent(near, penalty, num_paths=3, num_sweeps=3)
    far_result = coordinate_descent(far, penalty, num_paths=3, num_sweeps=3)
    np.testing.assert_array_equal(far_result.path_ids, near_result.path_ids * spread)
    assert far_result.sizes.path_ids is not None
    assert far_result.objective_after == near_result.objective_after


def test_read_only_single_precision_arrays_are_accepted(make_candidates: CandidatesMaker) -> None:
    candidates = make_candidates(0)
    narrow = replace(candidates, scores=candidates.scores.astype(np.float32))
    for name in ("offsets", "path_ids", "scores", "weights", "current_paths"):
        getattr(narrow, name).setflags(write=False)
    before = narrow.current_paths.copy()
    wide = coordinate_descent(candidates, Penalty(4, 0.02), num_paths=3, num_sweeps=3)
    result = coordinate_descent(narrow, Penalty(4, 0.02), num_paths=3, num_sweeps=3)
    np.testing.assert_array_equal(result.path_ids, wide.path_ids)
    np.testing.assert_array_equal(narrow.current_paths, before)


@pytest.mark.parametrize("seed", range(3))
def test_items_at_rest_count_in_the_sizes_alone(make_candidates: CandidatesMaker, seed: int) -> None:
    everything = make_candidates(seed, num_items=40)
    weights = everything.weights.copy()
    weights[20:] = 0.0
    everything = replace(everything, weights=weights)
    length = everything.offsets[20]
    moving = PathCandidates(
        everything.offsets[:21],
        everything.path_ids[:length],
        everything.scores[:length],
        weights[:20],
        everything.current_paths[:20],
    )
    penalty = Penalty(4, 0.02)
    whole = coordinate_descent(everything, penalty, num_paths=3, num_sweeps=3)
    sizes = PathSizes.count(everything.current_paths)
    part = coordinate_descent(moving, penalty, num_paths=3, num_sweeps=3, sizes=sizes)
    np.testing.assert_array_equal(whole.path_ids[:20], part.path_ids)
    np.testing.assert_array_equal(changed_rows(whole.path_ids, everything.current_paths)[20:], False)
    np.testing.assert_array_equal(whole.sizes.of(np.arange(15)), part.sizes.of(np.arange(15)))
    assert part.objective_after == pytest.approx(whole.objective_after)


def few(
    path_ids: list[list[int]], current: list[list[int]], weights: list[float], scores: float = 1.0
) -> PathCandidates:
    lengths = [len(row) for row in path_ids]
    flat = np.array([path for row in path_ids for path in row], dtype=np.int64)
    return PathCandidates(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        flat,
        np.full(len(flat), scores),
        np.array(weights),
        np.array(current, dtype=np.int64),
    )


def test_items_without_events_or_with_too_few_candidates_keep_their_paths() -> None:
    candidates = few([[1, 2, 3], [7]], [[4, 5], [7, 8]], [0.0, 9.0])
    result = coordinate_descent(candidates, Penalty(4, 10.0), num_paths=2, num_sweeps=3)
    assert result.num_moved == 0
    np.testing.assert_array_equal(np.sort(result.path_ids), [[4, 5], [7, 8]])


def test_equal_candidates_keep_the_path_in_force_and_else_the_smaller() -> None:
    kept = coordinate_descent(few([[1, 2, 3]], [[3, 2]], [5.0]), Penalty(4, 0.1), num_paths=2, num_sweeps=3)
    np.testing.assert_array_equal(np.sort(kept.path_ids), [[2, 3]])
    built = coordinate_descent(few([[9, 4, 6]], [[-1, -1]], [5.0]), Penalty(4, 0.1), num_paths=2, num_sweeps=1)
    np.testing.assert_array_equal(np.sort(built.path_ids), [[4, 6]])
    freed = coordinate_descent(few([[9, 4, 6]], [[20, 21]], [5.0]), Penalty(4, 0.1), num_paths=2, num_sweeps=1)
    assert 4 in freed.path_ids[0]


def test_scores_of_zero_leave_the_surrogate_finite() -> None:
    candidates = few([[1, 2, 3], [1, 2, 3]], [[1, 2], [-1, -1]], [5.0, 3.0], scores=0.0)
    result = coordinate_descent(candidates, Penalty(4, 0.1), num_paths=2, num_sweeps=2)
    assert np.isfinite([result.objective_before, result.objective_after]).all()
    assert np.isfinite(result.gains).all()
    assert log_score(candidates, result.path_ids) == pytest.approx(8.0 * np.log(SCORE_FLOOR))


@pytest.mark.parametrize("nodes", [(3,), (2, 2), (50,) * 3, (1000,) * 6, (2, 5), (512, 32), (6, 4, 9)])
def test_missing_paths_are_filled_with_distinct_ones(nodes: tuple[int, ...]) -> None:
    space = PathSpace(nodes)
    candidates = few([[], [1], [0, 1, 2], []], [[-1] * 3, [-1, 2, -1], [-1] * 3, [0, -1, 2]], [0.0, 4.0, 0.0, 0.0])
    result = coordinate_descent(candidates, Penalty(4, 0.1), num_paths=3, num_sweeps=3, space=space)
    space.check(result.path_ids)
    assert all(len(set(row)) == 3 for row in result.path_ids.tolist())
    assert {1, 2} <= set(result.path_ids[1].tolist())
    assert set(result.path_ids[2].tolist()) == {0, 1, 2}
    assert {0, 2} <= set(result.path_ids[3].tolist())
    assert result.num_moved == 4
    again = coordinate_descent(candidates, Penalty(4, 0.1), num_paths=3, num_sweeps=3, space=space)
    np.testing.assert_array_equal(result.path_ids, again.path_ids)


def test_filled_items_spread_over_short_paths_by_their_own_id() -> None:
    space = PathSpace.even(10, 2)
    num_items = 300
    cold = few([[]] * num_items, [[-1]] * num_items, [0.0] * num_items)
    result = coordinate_descent(cold, Penalty(4, 0.1), num_paths=1, num_sweeps=1, space=space)
    assert result.sizes.counts.max() <= 2 * num_items / space.num_paths
    part = replace(few([[]], [[-1]], [0.0]), item_ids=np.array([123]))
    alone = one_sweep(part, part.current_paths, Penalty(4, 0.1), space)
    assert alone[0, 0] == hashed_paths(np.array([123]), space, num_probes=1)[0, 0]


@pytest.mark.parametrize(
    "nodes", [(2,), (2,) * 4, (7, 7), (10,) * 18, (3,) * 39, (3, 5), (6, 4), (512, 32), (2, 3, 4), (2**30, 3, 5, 7)]
)
def test_hashed_paths_are_distinct_and_within_the_space(nodes: tuple[int, ...]) -> None:
    space = PathSpace(nodes)
    paths = hashed_paths(np.arange(200), space, num_probes=20)
    assert paths.shape == (200, min(20, space.num_paths))
    space.check(paths)
    assert all(len(set(row)) == len(row) for row in paths.tolist())


@pytest.mark.parametrize("nodes", [(6, 4), (9, 2), (2, 3, 4), (5, 5)])
def test_hashed_paths_visit_every_path_once(nodes: tuple[int, ...]) -> None:
    space = PathSpace(nodes)
    paths = hashed_paths(np.arange(50), space, num_probes=space.num_paths)
    np.testing.assert_array_equal(np.sort(paths, axis=1), np.tile(np.arange(space.num_paths), (50, 1)))


def test_impossible_requests_are_refused(make_candidates: CandidatesMaker) -> None:
    candidates = make_candidates(0)
    penalty = Penalty(4, 0.1)
    with pytest.raises(ValueError, match="num_paths=2"):
        coordinate_descent(candidates, penalty, num_paths=2, num_sweeps=1)
    with pytest.raises(ValueError, match="num_sweeps"):
        coordinate_descent(candidates, penalty, num_paths=3, num_sweeps=0)
    with pytest.raises(ValueError, match="pass the space"):
        coordinate_descent(few([[]], [[-1, -1]], [0.0]), penalty, num_paths=2, num_sweeps=1)
    with pytest.raises(ValueError, match="the space has 2"):
        coordinate_descent(few([[]], [[-1] * 3], [0.0]), penalty, num_paths=3, num_sweeps=1, space=PathSpace.even(2, 1))
    with pytest.raises(ValueError, match="repeats a path"):
        coordinate_descent(few([[1, 1]], [[-1, -1]], [1.0]), penalty, num_paths=2, num_sweeps=1)
