"""Batch retrieval's parts: lists without Python, one retriever a worker and contents."""

import shutil

import numpy as np
import pyarrow as pa

from pipelines.serving.batch import cached_retriever, item_lists, release_contents
from pipelines.storage.workdir import Workdir
from tests.pipelines.serving.conftest import BEAM, LENGTH, Published


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
    np.testing.assert_array_equal(second.index.item_ids, published.indexes["r-1"].item_ids)  # type: ignore[attr-defined]
