"""Accumulation, selection and streaming merge of the scores, against dictionaries."""

from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from dr_core.paths.scores import (
    FRACTION_BITS,
    PathCandidates,
    ScoreRows,
    accumulate_block,
    accumulate_weights,
    from_fixed,
    merge_blocks,
    merge_streaming,
    to_candidates,
    top_candidates,
)

Block = dict[str, np.ndarray]


def random_block(seed: int, *, num_states: int = 30, beam: int = 5, num_paths: int = 2, num_targets: int = 4) -> Block:
    rng = np.random.default_rng(seed)
    mapping = rng.permuted(np.tile(np.arange(12), (9, 1)), axis=1)[:, :num_paths]
    items = rng.integers(-1, 9, size=(num_states, num_targets))
    beam_paths = rng.permuted(np.tile(np.arange(12), (num_states, 1)), axis=1)[:, :beam]
    return {
        "target_items": items,
        "target_weights": rng.exponential(1.0, items.shape),
        "beam_paths": np.where(rng.random(beam_paths.shape) < 0.1, -1, beam_paths),
        "beam_probs": rng.random(beam_paths.shape),
        "own_paths": np.where((items >= 0)[..., np.newaxis], mapping[items], -1),
        "own_probs": rng.random((*items.shape, num_paths)),
    }


def by_dictionary(block: Block) -> dict[tuple[int, int], tuple[int, bool]]:
    sums: dict[tuple[int, int], int] = defaultdict(int)
    current: dict[tuple[int, int], bool] = defaultdict(bool)
    for n, t in np.argwhere(block["target_items"] >= 0):
        item, weight = int(block["target_items"][n, t]), float(block["target_weights"][n, t])
        terms = {}
        for path, probability in zip(block["beam_paths"][n], block["beam_probs"][n], strict=True):
            if path >= 0:
                terms[int(path)] = (float(probability), False)
        for path, probability in zip(block["own_paths"][n, t], block["own_probs"][n, t], strict=True):
            if path >= 0:
                terms[int(path)] = (float(probability), True)
        for path, (probability, is_own) in terms.items():
            sums[item, path] += round(weight * probability * 2**FRACTION_BITS)
            current[item, path] |= is_own
    return {key: (sums[key], current[key]) for key in sums}


def as_dictionary(rows: Any) -> dict[tuple[int, int], tuple[Any, bool]]:
    items, paths, scores, current = rows
    return {(int(i), int(p)): (s.item(), bool(c)) for i, p, s, c in zip(items, paths, scores, current, strict=True)}


@pytest.mark.parametrize("seed", range(20))
def test_block_sums_equal_a_dictionary(seed: int) -> None:
    block = random_block(seed)
    sums = accumulate_block(**block)
    assert as_dictionary(sums) == by_dictionary(block)
    order = np.lexsort((sums.path_ids, sums.item_ids))
    np.testing.assert_array_equal(order, np.arange(len(order)))
    assert [column.dtype for column in sums] == [np.int64, np.int64, np.int64, np.bool_]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_blocks", [2, 3, 7])
def test_sums_do_not_depend_on_order_or_on_how_the_states_are_cut(seed: int, num_blocks: int) -> None:
    block = random_block(seed)
    rng = np.random.default_rng(seed)
    parts: dict[tuple[int, int], list[Any]] = {}
    for rows in np.array_split(rng.permutation(len(block["target_items"])), num_blocks):
        targets = rng.permutation(block["target_items"].shape[1])
        part = {name: values[rows] for name, values in block.items()}
        for name in ("target_items", "target_weights", "own_paths", "own_probs"):
            part[name] = part[name][:, targets]
        for key, (score, current) in as_dictionary(accumulate_block(**part)).items():
            total = parts.setdefault(key, [0, False])
            total[0] += score
            total[1] |= current
    assert {key: tuple(value) for key, value in parts.items()} == as_dictionary(accumulate_block(**block))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_blocks", [1, 2, 7])
def test_merged_blocks_equal_one_block(seed: int, num_blocks: int) -> None:
    block = random_block(seed)
    parts = [
        accumulate_block(**{name: values[rows] for name, values in block.items()})
        for rows in np.array_split(np.arange(len(block["target_items"])), num_blocks)
    ]
    whole = accumulate_block(**block)
    for order in (parts, parts[::-1]):
        for merged, expected in zip(merge_blocks(order), whole, strict=True):
            np.testing.assert_array_equal(merged, expected)
            assert merged.dtype == expected.dtype
    halves = [merge_blocks(parts[: num_blocks // 2 + 1]), *parts[num_blocks // 2 + 1 :]]
    np.testing.assert_array_equal(merge_blocks(halves).scores_fixed, whole.scores_fixed)


def test_an_own_path_in_the_beam_is_added_once() -> None:
    sums = accumulate_block([[7]], [[2.0]], [[3, 4]], [[0.5, 0.25]], [[[4, 9]]], [[[0.25, 0.125]]])
    assert as_dictionary(sums) == {
        (7, 3): (2**FRACTION_BITS, False),
        (7, 4): (2 ** (FRACTION_BITS - 1), True),
        (7, 9): (2 ** (FRACTION_BITS - 2), True),
    }
    np.testing.assert_array_equal(from_fixed(sums.scores_fixed), [1.0, 0.5, 0.25])


def test_own_paths_are_kept_even_where_their_probability_vanishes() -> None:
    sums = accumulate_block([[0]], [[1.0]], [[1]], [[1.0]], [[[5]]], [[[1e-30]]])
    assert as_dictionary(sums)[0, 5] == (0, True)


def test_path_ids_may_be_as_large_as_int64() -> None:
    far = 2**62
    sums = accumulate_block(
        [[0, 1]], [[1.0, 1.0]], [[far, far + 1]], [[0.5, 0.5]], [[[far], [far + 2]]], [[[0.5], [0.5]]]
    )
    assert sums.path_ids.tolist() == [far, far + 1, far, far + 1, far + 2]


def test_an_empty_block_has_no_rows() -> None:
    block = {name: values[:0] for name, values in random_block(0).items()}
    assert len(accumulate_block(**block).item_ids) == 0
    block = random_block(0)
    block["target_items"] = np.full_like(block["target_items"], -1)
    assert len(accumulate_block(**block).item_ids) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"target_weights": np.ones((30, 3))},
        {"beam_probs": np.ones((30, 4))},
        {"own_paths": np.ones((30, 4), dtype=np.int64)},
        {"target_weights": np.full((30, 4), -1.0)},
        {"beam_probs": np.full((30, 5), np.nan)},
        {"target_weights": np.full((30, 4), 1e9)},
        {"beam_paths": np.full((30, 5), 0.5)},
    ],
)
def test_blocks_that_do_not_fit_are_refused(change: Block) -> None:
    with pytest.raises(ValueError, match=r"must|weights sum"):
        accumulate_block(**(random_block(0) | change))


def test_weights_are_summed_by_item() -> None:
    items, sums = accumulate_weights([[2, -1], [2, 5]], [[0.5, 9.0], [1.25, 2.0]])
    np.testing.assert_array_equal(items, [2, 5])
    np.testing.assert_array_equal(from_fixed(sums), [1.75, 2.0])
    with pytest.raises(ValueError, match="negative"):
        accumulate_weights([1], [-1.0])
    with pytest.raises(ValueError, match="differ in size"):
        accumulate_weights([1, 2], [1.0])


def random_rows(seed: int, *, num_rows: int = 80, ties: bool = False) -> ScoreRows:
    rng = np.random.default_rng(seed)
    keys = np.sort(rng.choice(10 * 30, size=num_rows, replace=False))
    scores = rng.integers(0, 4, num_rows).astype(np.float64) if ties else rng.exponential(1.0, num_rows)
    return ScoreRows(keys // 30, keys % 30, scores, rng.random(num_rows) < 0.2)


def best_of(rows: dict[int, tuple[float, bool]], num_candidates: int) -> dict[int, tuple[float, bool]]:
    others = sorted((path for path in rows if not rows[path][1]), key=lambda path: (-rows[path][0], path))
    kept = set(others[:num_candidates]) | {path for path in rows if rows[path][1]}
    return {path: rows[path] for path in sorted(kept)}


def by_item(rows: ScoreRows) -> dict[int, dict[int, tuple[float, bool]]]:
    grouped: dict[int, dict[int, tuple[float, bool]]] = defaultdict(dict)
    for i, p, s, c in zip(rows.item_ids, rows.path_ids, rows.scores, rows.is_current, strict=True):
        grouped[int(i)][int(p)] = (float(s), bool(c))
    return dict(grouped)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("num_candidates", [0, 1, 3, 100])
@pytest.mark.parametrize("seed", range(5))
def test_the_best_are_kept_and_the_current_besides(seed: int, num_candidates: int, ties: bool) -> None:
    rows = random_rows(seed, ties=ties)
    shuffle = np.random.default_rng(seed).permutation(len(rows))
    kept = top_candidates(
        rows.item_ids[shuffle], rows.path_ids[shuffle], rows.scores[shuffle], rows.is_current[shuffle], num_candidates
    )
    expected = {item: best_of(paths, num_candidates) for item, paths in by_item(rows).items()}
    assert by_item(kept) == {item: paths for item, paths in expected.items() if paths}
    np.testing.assert_array_equal(np.lexsort((kept.path_ids, kept.item_ids)), np.arange(len(kept)))


def test_nothing_to_choose_from_is_nothing_chosen() -> None:
    assert len(top_candidates([], [], [], [], 3)) == 0
    with pytest.raises(ValueError, match="num_candidates"):
        top_candidates([1], [1], [1.0], [False], -1)
    with pytest.raises(ValueError, match="length"):
        top_candidates([1], [1, 2], [1.0], [False], 1)


def merge_by_dictionary(old: ScoreRows, new: ScoreRows, decay: float, num_candidates: int) -> dict[int, Any]:
    olds, news = by_item(old), by_item(new)
    merged = {}
    for item in sorted(olds.keys() | news.keys()):
        mine, fresh = olds.get(item, {}), news.get(item, {})
        listed = sorted((score for score, current in mine.values() if not current), reverse=True)[:num_candidates]
        smallest = min(listed, default=0.0)
        union = {}
        for path in mine.keys() | fresh.keys():
            current = mine.get(path, (0, False))[1] or fresh.get(path, (0, False))[1]
            if path in mine and path in fresh:
                score = decay * mine[path][0] + fresh[path][0]
            elif path in fresh:
                score = decay * smallest + fresh[path][0]
            else:
                score = decay * mine[path][0]
            union[path] = (score, current)
        merged[item] = best_of(union, num_candidates)
    return {item: paths for item, paths in merged.items() if paths}


@pytest.mark.parametrize("num_candidates", [1, 3, 8])
@pytest.mark.parametrize("decay", [0.5, 0.999, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_streaming_merge_equals_a_dictionary(seed: int, decay: float, num_candidates: int) -> None:
    old, new = random_rows(seed), random_rows(seed + 100, num_rows=60)
    merged = by_item(merge_streaming(old, new, decay, num_candidates))
    expected = merge_by_dictionary(old, new, decay, num_candidates)
    assert merged.keys() == expected.keys()
    for item, paths in expected.items():
        assert merged[item].keys() == paths.keys()
        for path, (score, current) in paths.items():
            assert merged[item][path][0] == pytest.approx(score, rel=1e-12)
            assert merged[item][path][1] == current


def rows_of(item: int, scores: dict[int, float], current: tuple[int, ...] = ()) -> ScoreRows:
    paths = np.array(sorted(scores), dtype=np.int64)
    return ScoreRows(
        np.full(len(paths), item), paths, np.array([scores[path] for path in paths]), np.isin(paths, current)
    )


def test_the_three_cases_of_the_merge() -> None:
    merged = merge_streaming(rows_of(0, {1: 4.0, 2: 2.0}), rows_of(0, {2: 1.0, 3: 5.0}), 0.5, 10)
    assert by_item(merged)[0] == {1: (2.0, False), 2: (2.0, False), 3: (6.0, False)}


def test_the_smallest_old_score_is_not_that_of_a_current_path() -> None:
    old = rows_of(0, {1: 4.0, 2: 2.0, 9: 0.25}, current=(9,))
    merged = merge_streaming(old, rows_of(0, {3: 5.0}), 0.5, 10)
    assert by_item(merged)[0][3] == (6.0, False)


def test_a_new_item_starts_from_zero_and_an_absent_one_decays() -> None:
    merged = by_item(merge_streaming(rows_of(0, {1: 4.0}), rows_of(1, {1: 3.0}), 0.5, 10))
    assert merged == {0: {1: (2.0, False)}, 1: {1: (3.0, False)}}


def test_merging_with_nothing_and_impossible_arguments() -> None:
    rows, nothing = random_rows(0), random_rows(0).select(np.zeros(80, dtype=np.bool_))
    assert by_item(merge_streaming(nothing, rows, 0.9, 100)) == by_item(rows)
    np.testing.assert_allclose(merge_streaming(rows, nothing, 0.5, 100).scores, rows.scores / 2)
    for decay in (0.0, 1.5):
        with pytest.raises(ValueError, match="decay"):
            merge_streaming(rows, rows, decay, 5)
    twice = rows.select(np.array([0, 0, 1]))
    with pytest.raises(ValueError, match="repeat"):
        merge_streaming(rows, twice, 0.9, 5)


@pytest.mark.parametrize("own_ids", [False, True])
def test_candidates_hold_the_rows_of_each_item(own_ids: bool) -> None:
    rows = random_rows(4)
    ids = np.arange(10) * 5 + 2 if own_ids else None
    shuffle = np.random.default_rng(0).permutation(len(rows))
    given = rows.select(shuffle)
    if ids is not None:
        given = ScoreRows(ids[given.item_ids], given.path_ids, given.scores, given.is_current)
    candidates = to_candidates(given, np.ones(10), np.tile([0, 1], (10, 1)), item_ids=ids)
    for item, paths in by_item(rows).items():
        span = slice(candidates.offsets[item], candidates.offsets[item + 1])
        assert candidates.path_ids[span].tolist() == sorted(paths)
        assert candidates.scores[span].tolist() == [paths[path][0] for path in sorted(paths)]
    with pytest.raises(ValueError, match="no weight"):
        to_candidates(
            ScoreRows(given.item_ids + 1, given.path_ids, given.scores, given.is_current),
            np.ones(10),
            np.tile([0, 1], (10, 1)),
            item_ids=ids,
        )


def valid() -> dict[str, Any]:
    return {
        "offsets": np.array([0, 2, 3]),
        "path_ids": np.array([4, 1, 4]),
        "scores": np.array([1.0, 0.0, 2.0]),
        "weights": np.array([1.0, 2.0]),
        "current_paths": np.array([[1, -1], [-1, -1]]),
    }


def test_valid_candidates_pass() -> None:
    PathCandidates(**valid()).validate()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path_ids": np.array([4, 4, 4])}, "repeats a path"),
        ({"current_paths": np.array([[1, 2], [3, 3]])}, "row 1 of current_paths"),
        ({"scores": np.array([1.0, -0.5, 2.0])}, "scores"),
        ({"scores": np.array([1.0, np.nan, 2.0])}, "scores"),
        ({"scores": np.array([1.0, 2.0])}, "shape"),
        ({"weights": np.array([1.0, np.inf])}, "weights"),
        ({"offsets": np.array([0, 2, 4])}, "offsets"),
        ({"offsets": np.array([0, 4, 3])}, "offsets"),
        ({"path_ids": np.array([4, -1, 4])}, "negative"),
        ({"current_paths": np.array([[1, -2], [-1, -1]])}, "none"),
        ({"current_paths": np.array([1, 2])}, "current_paths"),
        ({"item_ids": np.array([1])}, "item_ids"),
    ],
)
def test_invalid_candidates_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PathCandidates(**(valid() | change)).validate()
