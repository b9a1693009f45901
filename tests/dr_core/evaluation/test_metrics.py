import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr_core.evaluation import metrics
from dr_core.evaluation.metrics import (
    candidate_recall,
    distinct_counts,
    distinct_lists,
    overlap,
    user_metrics,
)
from dr_core.item_lists import ItemLists

NUM_ITEMS = 12
item_rows = st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), max_size=9), min_size=1, max_size=6)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, list[list[int]]]:
    """A padded matrix of recommendations, with duplicates and holes, and true items with duplicates."""
    truth = draw(item_rows)
    width = draw(st.integers(1, 6))
    row = st.lists(st.integers(-1, NUM_ITEMS + 2), min_size=width, max_size=width)
    return np.array(draw(st.lists(row, min_size=len(truth), max_size=len(truth)))), truth


def metrics_by_loops(recommended: list[int], truth: list[int], k: int) -> dict[str, float]:
    true_items = set(truth)
    if not true_items:
        return dict.fromkeys(("precision", "recall", "f1", "ndcg", "hit_rate"), math.nan)
    seen: set[int] = set()
    hits, gain = 0, 0.0
    for rank, item in enumerate(recommended[:k]):
        if item in true_items and item not in seen:
            hits += 1
            gain += 1.0 / math.log2(rank + 2)
        seen.add(item)
    ideal = sum(1.0 / math.log2(rank + 2) for rank in range(min(k, len(true_items))))
    precision, recall = hits / k, hits / len(true_items)
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if hits else 0.0,
        "ndcg": gain / ideal,
        "hit_rate": float(hits > 0),
    }


@given(case=cases(), k=st.integers(1, 9))
def test_metrics_equal_plain_loops(case: tuple[np.ndarray, list[list[int]]], k: int) -> None:
    recommended, truth = case
    measured = user_metrics(recommended, ItemLists.from_rows(truth), k)
    for user, true_items in enumerate(truth):
        for name, expected in metrics_by_loops(recommended[user].tolist(), true_items, k).items():
            np.testing.assert_allclose(getattr(measured, name)[user], expected, err_msg=name)


@given(case=cases())
def test_every_metric_is_a_fraction_or_undefined(case: tuple[np.ndarray, list[list[int]]]) -> None:
    recommended, truth = case
    measured = user_metrics(recommended, ItemLists.from_rows(truth))
    undefined = np.array([not row for row in truth])
    for name in ("precision", "recall", "f1", "ndcg", "hit_rate"):
        values = getattr(measured, name)
        np.testing.assert_array_equal(np.isnan(values), undefined)
        assert np.all((values[~undefined] >= 0) & (values[~undefined] <= 1 + 1e-12))


def test_precision_divides_by_k_not_by_what_was_returned() -> None:
    recommended = np.array([[4, -1, -1, -1, -1]])
    truth = ItemLists.from_rows([[4, 7]])
    assert user_metrics(recommended, truth).precision.tolist() == [0.2]
    assert user_metrics(recommended, truth, k=10).precision.tolist() == [0.1]
    assert user_metrics(recommended, truth).recall.tolist() == [0.5]


def test_a_duplicate_counts_once_and_nothing_moves_up() -> None:
    truth = ItemLists.from_rows([[1, 2, 2]])
    doubled = user_metrics(np.array([[1, 1, 2]]), truth)
    holed = user_metrics(np.array([[1, 9, 2]]), truth)
    assert doubled.ndcg.tolist() == holed.ndcg.tolist()
    assert doubled.recall.tolist() == [1.0]


def test_a_perfect_list_scores_one() -> None:
    measured = user_metrics(np.array([[5, 3, 8]]), ItemLists.from_rows([[8, 5, 3, 1]]))
    assert measured.precision.tolist() == measured.ndcg.tolist() == measured.hit_rate.tolist() == [1.0]


def test_means_leave_out_users_without_truth() -> None:
    measured = user_metrics(np.array([[0, 1], [2, 3]]), ItemLists.from_rows([[0], []]))
    assert measured.means()["precision"] == 0.5
    assert math.isnan(metrics.mean_over_users(np.array([np.nan])))


@given(case=cases(), other=st.integers(0, 2**32 - 1))
def test_overlap_equals_plain_sets(case: tuple[np.ndarray, list[list[int]]], other: int) -> None:
    recommended, _ = case
    reference = np.random.default_rng(other).integers(-1, NUM_ITEMS, size=(len(recommended), 4))
    measured = overlap(recommended, reference)
    for user in range(len(recommended)):
        wanted = set(reference[user].tolist()) - {-1}
        if wanted:
            assert measured[user] == pytest.approx(len(wanted & set(recommended[user].tolist())) / len(wanted))
        else:
            assert math.isnan(measured[user])


def test_overlap_with_itself_is_one() -> None:
    lists = np.array([[3, 1, 2], [2, 0, -1]])
    assert overlap(lists[:, ::-1], lists).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("marked_cells", [1, 40, 2**24])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_candidate_recall_equals_plain_sets_in_blocks_of_any_size(marked_cells: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows = [[generator.integers(0, 20, generator.integers(0, 15)).tolist() for _ in range(7)] for _ in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_MARKED_CELLS", marked_cells)
        measured = candidate_recall(*map(ItemLists.from_rows, rows))
        counts = distinct_counts(ItemLists.from_rows(rows[0]))
    for user, (candidates, truth) in enumerate(zip(*rows, strict=True)):
        assert counts[user] == len(set(candidates))
        if truth:
            assert measured[user] == pytest.approx(len(set(truth) & set(candidates)) / len(set(truth)))
        else:
            assert math.isnan(measured[user])


def test_all_items_as_candidates_recall_everything() -> None:
    everything = ItemLists.from_rows([range(NUM_ITEMS)] * 2)
    assert candidate_recall(everything, ItemLists.from_rows([[1, 1, 5], [11]])).tolist() == [1.0, 1.0]


@given(rows=item_rows)
def test_distinct_lists_are_the_sorted_sets(rows: list[list[int]]) -> None:
    offsets, item_ids = distinct_lists(ItemLists.from_rows(rows))
    assert [item_ids[a:b].tolist() for a, b in pairwise(offsets)] == [sorted(set(r)) for r in rows]


def test_a_plain_tuple_serves_as_item_lists() -> None:
    truth = (np.array([0, 1]), np.array([2], dtype=np.int32))
    assert user_metrics(np.array([[2]], dtype=np.int32), truth).recall.tolist() == [1.0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("offsets", "item_ids", "message"),
    [
        ([0, 2], [1], "offsets"),
        ([1, 1], [], "offsets"),
        ([0, 2, 1, 2], [1, 2], "fall"),
        ([0, 1], [-1], "negative"),
        ([0.0, 1.0], [1], "integers"),
    ],
)
def test_malformed_item_lists_are_refused(offsets: list[float], item_ids: list[int], message: str) -> None:
    lists = ItemLists(np.array(offsets), np.array(item_ids, dtype=np.int64))
    with pytest.raises(ValueError, match=message):
        distinct_counts(lists)


def test_wrong_shapes_are_refused() -> None:
    truth = ItemLists.from_rows([[1], [2]])
    with pytest.raises(ValueError, match="users"):
        user_metrics(np.array([[1]]), truth)
    with pytest.raises(ValueError, match="matrix"):
        user_metrics(np.array([[1.0], [2.0]]), truth)
    with pytest.raises(ValueError, match="k must"):
        user_metrics(np.array([[1], [2]]), truth, k=0)
    with pytest.raises(ValueError, match="users"):
        candidate_recall(ItemLists.from_rows([[1]]), truth)
