import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr_core.item_lists import ItemLists
from tests.oracles.protocol import order_events, select_k, split_events, split_halves, split_last


@given(events=st.lists(st.integers(), min_size=2))
def test_a_split_keeps_every_event_in_order_and_leaves_no_part_empty(events: list[int]) -> None:
    for split in ("halves", "leave_last_out"):
        history, truth = split_events(events, split)  # type: ignore[arg-type]
        assert history + truth == events
        assert history
        assert truth


@given(events=st.lists(st.integers(), min_size=2))
def test_halves_differ_by_at_most_one_and_the_odd_event_is_truth(events: list[int]) -> None:
    history, truth = split_halves(events)
    assert len(truth) - len(history) == len(events) % 2


def test_the_last_events_are_the_truth() -> None:
    assert split_last("abcde", 2) == (["a", "b", "c"], ["d", "e"])


@pytest.mark.parametrize("events", [[], [1]])
def test_too_few_events_are_refused(events: list[int]) -> None:
    for split in ("halves", "leave_last_out"):
        with pytest.raises(ValueError, match="cannot be split"):
            split_events(events, split)  # type: ignore[arg-type]


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="num_last"):
        split_last([1, 2], 0)
    with pytest.raises(ValueError, match="split must be"):
        split_events([1, 2], "thirds")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="file orders"):
        order_events([1, 2], [0.0], [0, 1])
    with pytest.raises(ValueError, match="k must"):
        select_k(np.array([[1]]), 0)
    with pytest.raises(ValueError, match="users"):
        select_k(np.array([[1]]), 1, ItemLists.from_rows([]))


def test_ties_in_time_keep_file_order() -> None:
    assert order_events(["d", "b", "a", "c"], [2.0, 1.0, 1.0, 1.0], [0, 5, 3, 9]) == ["a", "b", "c", "d"]


@given(
    rows=st.lists(
        st.tuples(st.lists(st.integers(-1, 9), min_size=7, max_size=7), st.lists(st.integers(0, 9), max_size=5)),
        min_size=1,
        max_size=5,
    ),
    k=st.integers(1, 9),
    filtered=st.booleans(),
)
def test_select_k_equals_a_plain_loop(rows: list[tuple[list[int], list[int]]], k: int, filtered: bool) -> None:
    ranked = np.array([ranking for ranking, _ in rows])
    seen = ItemLists.from_rows([history for _, history in rows]) if filtered else None
    selected = select_k(ranked, k, seen)
    for user, (ranking, history) in enumerate(rows):
        kept: list[int] = []
        for item in ranking:
            if item >= 0 and item not in kept and not (filtered and item in history):
                kept.append(item)
        assert selected[user].tolist() == (kept + [-1] * k)[:k]
