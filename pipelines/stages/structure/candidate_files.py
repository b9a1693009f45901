"""Items with their candidate paths in blocks of Parquet files, and their paths beside them: what the M-step streams.

A block is two flat files, which read at nearly the speed of a copy where nested lists take ten times as long:
``items`` (item_id, num_candidates, num_events) and ``candidates`` (path_id, score), item after item. Its paths, int
[n, J], are an array file of each version; ``0`` is the first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dr_core.paths.scores import PathCandidates
from pipelines.storage.workdir import Workdir


class CandidateFiles:
    """The blocks of one part of the items, in a folder of a work folder."""

    def __init__(self, workdir: Workdir, *folder: str) -> None:
        self.workdir, self.folder = workdir, folder

    def write(self, block: int, candidates: PathCandidates) -> None:
        """Write a block with its paths as version 0; ``item_ids`` must be given."""
        items = pa.table({
            "item_id": pa.array(candidates.item_ids),
            "num_candidates": np.diff(candidates.offsets).astype(np.int32),
            "num_events": candidates.weights,
        })  # fmt: skip
        rows = pa.table({"path_id": candidates.path_ids, "score": candidates.scores})
        self._write_table(rows, {"path_id": "DELTA_BINARY_PACKED", "score": "PLAIN"}, f"candidates-{block:05d}.parquet")
        self.write_array(block, "paths-0", candidates.current_paths)
        self._write_table(items, None, f"items-{block:05d}.parquet")

    def blocks(self) -> list[int]:
        """Return the numbers of the blocks, ascending."""
        folder = self.workdir.path(*self.folder)
        names = [name.rsplit("/", 1)[-1] for name in self.workdir.filesystem.ls(folder, detail=False)]
        return sorted(int(found[1]) for name in names if (found := re.fullmatch(r"items-(\d+)\.parquet", name)))

    def read(self, block: int, version: str) -> PathCandidates:
        """Return a block with the paths of a version."""
        items, rows = self._table(f"items-{block:05d}.parquet"), self._table(f"candidates-{block:05d}.parquet")
        return PathCandidates(
            np.r_[0, np.cumsum(_column(items, "num_candidates"), dtype=np.int64)],
            _column(rows, "path_id"),
            _column(rows, "score"),
            _column(items, "num_events"),
            self.read_array(block, f"paths-{version}"),
            _column(items, "item_id"),
        )

    def item_ids(self, block: int) -> npt.NDArray[Any]:
        """Return the ids of a block's items."""
        return _column(self._table(f"items-{block:05d}.parquet"), "item_id")

    def stream(self, version: str) -> Iterator[tuple[int, PathCandidates]]:
        """Yield the blocks in order; the next is read while one is worked on."""
        blocks = self.blocks()
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(self.read, blocks[0], version) if blocks else None
            for place, block in enumerate(blocks):
                assert coming is not None
                now = coming.result()
                if place + 1 < len(blocks):
                    coming = pool.submit(self.read, blocks[place + 1], version)
                yield block, now

    def write_array(self, block: int, name: str, array: npt.NDArray[Any]) -> None:
        """Write an array that goes with a block's items."""
        self.workdir.write_array(array, *self.folder, f"{name}-{block:05d}.npy")

    def read_array(self, block: int, name: str) -> npt.NDArray[Any]:
        """Return an array that goes with a block's items."""
        return self.workdir.read_array(*self.folder, f"{name}-{block:05d}.npy")

    def _write_table(self, table: pa.Table, encoding: dict[str, str] | None, name: str) -> None:
        target = self.workdir.path(*self.folder, name)
        self.workdir.filesystem.makedirs(self.workdir.path(*self.folder), exist_ok=True)
        with self.workdir.filesystem.open(target, "wb") as file:
            pq.write_table(table, file, compression="lz4", use_dictionary=False, column_encoding=encoding,
                           write_statistics=False, row_group_size=max(len(table), 1))  # fmt: skip

    def _table(self, name: str) -> pa.Table:
        source = self.workdir.path(*self.folder, name)
        if self.workdir.is_local:
            return pq.ParquetFile(source).read(use_threads=False)
        with self.workdir.filesystem.open(source, "rb") as file:
            return pq.ParquetFile(file).read(use_threads=False)


def _column(table: pa.Table, name: str) -> npt.NDArray[Any]:
    return np.asarray(table.column(name).combine_chunks().to_numpy(zero_copy_only=False))
