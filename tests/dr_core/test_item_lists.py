"""Ragged lists: whatever is done to all of them at once equals what is done to each."""

import numpy as np

from dr_core.item_lists import ItemLists

ROWS = [[5, 6, 7], [], [99, 1], [-1], [4]]


def rows_of(lists: ItemLists) -> list[list[int]]:
    return [part.tolist() for part in np.split(lists.item_ids, lists.offsets[1:-1])]


def test_rows_come_back() -> None:
    lists = ItemLists.from_rows(ROWS)
    assert (rows_of(lists), lists.num_users) == (ROWS, 5)
    assert ItemLists.from_rows([]).num_users == 0


def test_unknown_ids_are_left_out() -> None:
    assert rows_of(ItemLists.from_rows(ROWS).known(10)) == [[5, 6, 7], [], [1], [], [4]]


def test_the_same_items_are_added_to_each_list() -> None:
    lists = ItemLists.from_rows(ROWS)
    assert rows_of(lists.with_everywhere(np.array([8, 3]))) == [[*row, 8, 3] for row in ROWS]
    assert rows_of(lists.with_everywhere(np.zeros(0, np.int64))) == ROWS
    assert ItemLists.from_rows([]).with_everywhere(np.array([8])).item_ids.size == 0


def test_the_last_items_are_padded_at_the_end() -> None:
    last, lengths = ItemLists.from_rows([[5, 6, 7], [], [1]]).last(2)
    assert (last.tolist(), lengths.tolist()) == ([[6, 7], [-1, -1], [1, -1]], [2, 0, 1])
    last, lengths = ItemLists.from_rows([[], []]).last(9)
    assert (last.tolist(), lengths.tolist()) == ([[-1], [-1]], [0, 0])
    assert ItemLists.from_rows([]).last(3)[0].shape == (0, 1)


def test_lists_of_some_users() -> None:
    lists = ItemLists.from_rows(ROWS)
    assert rows_of(lists.of_users(np.array([4, 0, 1]))) == [[4], [5, 6, 7], []]
    assert lists.of_users(np.zeros(0, np.int64)).num_users == 0
