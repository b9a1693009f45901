"""Batch retrieval's parts: lists without Python, one retriever a worker and contents."""

import logging
import shutil
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from pyspark.sql import SparkSession

from dr_core.paths.index import PathIndex
from pipelines.serving.batch import cached_retriever, item_lists, release_contents, retrieve_all
from pipelines.storage.schemas import SCHEMAS
from pipelines.storage.workdir import Workdir
from tests.pipelines.serving.conftest import BEAM, KEYS, LENGTH, NUM_ITEMS, Published


def test_a_column_of_lists_is_read_as_it_is() -> None:
    rows = [[3, 1], [], None, [2], [9, 8, 7]]
    column = pa.array(rows, pa.list_(pa.int32()))
    for start, end in ((0, 5), (1, 4), (3, 5), (2, 2)):
        lists = item_lists(column.slice(start, end - start))
        found = [part.tolist() for part in np.split(lists.item_ids, lists.offsets[1:-1])] if end > start else []
        assert found == [row or [] for row in rows[start:end]]
        assert (lists.offsets.dtype, lists.item_ids.dtype) == (np.int64, np.int64)


def test_a_worker_builds_a_retriever_once_and_anew_for_other_contents(published: Published) -> None:
    workdir = Workdir(published.folder.uri)

    def cached() -> object:
        return cached_retriever(workdir.uri, "r-2", release_contents(workdir, "r-2"), BEAM, LENGTH)

    first = cached()
    assert cached() is first
    shutil.copy(published.release_folder("r-1") / "index/item_ids.npy", published.release_folder() / "index")
    second = cached()
    assert second is not first
    bias_V = published.models["r-2"].reranker.item_vectors()[1].detach().numpy()
    expected = PathIndex.load(published.release_folder() / "index").ordered(bias_V)
    np.testing.assert_array_equal(second.index.item_ids, expected.item_ids)  # type: ignore[attr-defined]


def write(workdir: Workdir, name: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]], **more: Any) -> None:
    """Write some columns of a table without Spark, in the types that the stages give them."""
    types = {
        "item_id": pa.int32(),
        "item_ids": pa.list_(pa.int32()),
        "rank": pa.int32(),
        "score": pa.float32(),
        "path_probability": pa.float32(),
    }
    values = zip(*rows, strict=True)
    arrays = [pa.array(list(column), types.get(name)) for name, column in zip(columns, values, strict=True)]
    write_deltalake(workdir.table(name), pa.table(arrays, list(columns)), **more)


def test_nobody_is_recommended_what_that_user_has_seen(
    spark: SparkSession, published: Published, caplog: pytest.LogCaptureFixture
) -> None:
    """Kept events older than the history, and rows that were filtered, count as much as the history."""
    workdir = Workdir(published.folder.uri)
    rng = np.random.default_rng(0)
    seen = {f"u{user}": rng.choice(NUM_ITEMS, rng.integers(2, 30), replace=False).tolist() for user in range(60)}
    kept = {user: items[: 1 + len(items) // 2] for user, items in seen.items()}
    newer = [NUM_ITEMS, NUM_ITEMS + 1]
    others = [(user, KEYS[item]) for user, items in seen.items() for item in items[len(kept[user]) :]]
    write(
        workdir, "user_histories", ("user", "item_ids"), [(user, [*items[-3:], *newer]) for user, items in kept.items()]
    )
    write(
        workdir, "interactions", ("user", "item_id"), [(user, item) for user in kept for item in [*kept[user], *newer]]
    )
    write(workdir, "seen_items", ("user", "item_key"), [*others, ("u0", "never kept")])
    old = ("release_id", "user", "rank", "item_id", "score", "path_id", "path_probability")
    write(workdir, "recommendations", old, [("r-1", "u0", 0, 3, 1.0, 5, 0.5)], partition_by=["release_id"])

    asked = {"release_id": "r-2", "k": 25, "width": 16, "max_length": LENGTH}
    with caplog.at_level(logging.WARNING):
        facts = retrieve_all(spark, workdir, **asked, filter_history=True)
    table = workdir.read(spark, "recommendations").toPandas()
    rows = table[table["release_id"] == "r-2"]
    assert set(table.columns) == set(SCHEMAS["recommendations"])
    assert [KEYS[item] for item in rows["item_id"]] == list(rows["item_key"])
    got = rows.groupby("user")["item_id"].agg(set).to_dict()
    for user, items in seen.items():
        assert got[user].isdisjoint(items)
        assert len(got[user]) == min(25, NUM_ITEMS - len(items)), "a search of all paths finds all others"
    short = sum(NUM_ITEMS - len(items) < 25 for items in seen.values())
    assert facts == {"rows_in": 60, "rows_out": len(rows), "users_below_k": short}
    assert caplog.messages == [f"  {short} of 60 users have fewer than 25 items: raise serving.candidates"]
    (earlier,) = table[table["release_id"] == "r-1"].itertuples()
    assert (earlier.item_id, earlier.item_key) == (3, None), "what an older release of the project wrote stays"

    unfiltered = retrieve_all(spark, workdir, **asked, filter_history=False)
    assert unfiltered == {"rows_in": 60, "rows_out": 60 * 25, "users_below_k": 0}
