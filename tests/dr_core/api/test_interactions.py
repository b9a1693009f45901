"""A matrix, tables and lists of the same events are read as the same histories."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy.sparse import coo_matrix, csr_matrix

from dr_core.api.interactions import Columns, read_interactions
from dr_core.errors import InputError

LISTS = [["x", "b", "a"], ["a"], [], ["b", "b", "x", "c"]]
ROWS = [(user, item, place) for user, items in enumerate(LISTS) for place, item in enumerate(items)]


def keyed(read) -> list[list[str]]:
    """The histories with the keys of their items."""
    return [read.keys.of(read.histories.items(user)) for user in range(len(read.histories))]


def test_lists_keep_their_order() -> None:
    read = read_interactions(LISTS, Columns(), 0)
    assert keyed(read) == LISTS
    assert read.keys.keys == ["a", "b", "c", "x"]
    assert (read.histories.weights == 1).all()


@pytest.mark.parametrize("form", ["pandas", "arrow", "record batch"])
def test_a_tables_rows_are_put_in_order(form: str) -> None:
    frame = pd.DataFrame(ROWS, columns=["who", "what", "order"]).sample(frac=1, random_state=3)
    frame["worth"] = frame["order"] + 0.5
    table = {"pandas": frame, "arrow": pa.Table.from_pandas(frame), "record batch": None}[form]
    if table is None:
        table = pa.Table.from_batches([pa.RecordBatch.from_pandas(frame)])
    read = read_interactions(table, Columns("who", "what", "order", "worth"), 0)
    assert keyed(read) == [items for items in LISTS if items]
    assert [read.histories.weights[at] for at in (0, 1, 2, 3)] == [0.5, 1.5, 2.5, 0.5]


def test_a_time_is_an_order_and_equal_times_stay_as_they_came() -> None:
    times = pd.to_datetime(["2024-05-02", "2024-05-01", "2024-05-02"])
    frame = pd.DataFrame({"user": [7, 7, 7], "item": [30, 20, 10], "at": times})
    read = read_interactions(frame, Columns(order="at"), 0)
    assert keyed(read) == [[20, 30, 10]]
    assert read.keys.keys == [10, 20, 30]


@pytest.mark.parametrize("make", [csr_matrix, coo_matrix])
def test_a_matrix_gives_its_columns_and_weights_in_a_drawn_order(make) -> None:
    dense = np.zeros((3, 50))
    dense[0, 10:40] = np.arange(1, 31)
    dense[2, 12] = 5
    first, again, other = (read_interactions(make(dense), Columns(), seed) for seed in (0, 0, 1))
    assert first.keys.keys == list(range(10, 40))
    assert np.diff(first.histories.offsets).tolist() == [30, 0, 1]
    assert keyed(first) == keyed(again) != keyed(other)
    assert keyed(first)[0] != sorted(keyed(first)[0]), "columns are no order"
    keys = np.array(first.keys.keys)[first.histories.item_ids]
    np.testing.assert_array_equal(first.histories.weights, np.r_[keys[:30] - 9, 5])


def test_without_an_order_histories_are_shuffled_only_where_that_is_said() -> None:
    frame = pd.DataFrame([(0, item) for item in range(40)], columns=["user", "item"])
    with pytest.raises(
        InputError, match="no column 'order', it has user, item: name it with order=, or say order=None"
    ):
        read_interactions(frame, Columns(), 0)
    items = keyed(read_interactions(frame, Columns(order=None), 0))[0]
    assert sorted(items) == list(range(40)) != items


@pytest.mark.parametrize(
    ("interactions", "columns", "message"),
    [
        (3, Columns(), "of type int"),
        ("abc", Columns(), "of type str"),
        ([], Columns(), "no event"),
        ([[]], Columns(), "no event"),
        (csr_matrix((3, 3)), Columns(), "no event"),
        (csr_matrix([[1.0, -1.0]]), Columns(), "negative"),
        (csr_matrix([[1.0, np.nan]]), Columns(), "not a number"),
        (pd.DataFrame({"user": [1], "item": [None], "order": [1]}), Columns(), "'item' has 1 rows without a value"),
        (pd.DataFrame({"user": [1.0, np.nan], "item": [1, 2], "order": [1, 2]}), Columns(), "'user' has 1 rows"),
        (pd.DataFrame({"user": [1], "item": [1], "order": [1]}), Columns(weight="w"), "name it with weight="),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(interactions, columns, message) -> None:
    with pytest.raises(InputError, match=message):
        read_interactions(interactions, columns, 0)


def test_keys_of_any_hashable_kind_keep_their_kind() -> None:
    read = read_interactions([[("a", 1), 2, "2"], [2]], Columns(), 0)
    assert keyed(read) == [[("a", 1), 2, "2"], [2]]
    ids, unknown = read.keys.ids([np.int64(2), "2", 3])
    assert read.keys.of(ids) == [2, "2"]
    assert unknown == [3]
