"""The Petastorm seam: everything the project knows about Petastorm is in this file.

The samples are Parquet files of nearly equal row groups. A reader is opened per epoch, seeded by (seed, epoch), with
one worker thread: the only setting whose order is the same every time. Each rank reads its share of the row groups,
and every rank runs the same number of steps, counted from the Parquet footers.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from dr_core.errors import InputError
from dr_core.model.objective import Batch, batch_from_arrays
from pipelines.storage.files import files_below, is_local
from pipelines.storage.samples_format import COLUMNS, list_column

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from petastorm import make_batch_reader
    from pyarrow.filesystem import DaskFileSystem

Columns = dict[str, npt.NDArray[np.generic]]
"""Some samples, by the columns of :data:`COLUMNS`."""


class _FsspecFiles(DaskFileSystem):  # type: ignore[misc]
    """An fsspec file system as the one kind that Petastorm 0.12 can read from, pyarrow's old interface."""

    def _there(self, path: str) -> str:
        return path if self.fs.root_marker == "/" else path.lstrip("/")

    def isdir(self, path: str) -> bool:
        return bool(self.fs.isdir(self._there(path)))

    def isfile(self, path: str) -> bool:
        return bool(self.fs.isfile(self._there(path)))

    def exists(self, path: str) -> bool:
        return bool(self.fs.exists(self._there(path)))

    def open(self, path: str, mode: str = "rb") -> Any:
        return self.fs.open(self._there(path), mode=mode)

    def walk(self, path: str) -> Iterator[tuple[str, list[str], list[str]]]:
        return iter(self.fs.walk(self._there(path)))


def row_group_sizes(filesystem: AbstractFileSystem, folder: str) -> list[int]:
    """Return the rows of every row group, files in the order of their names."""
    sizes = []
    for path in files_below(filesystem, folder, ".parquet"):
        with filesystem.open(path, "rb") as file:
            metadata = pq.ParquetFile(file).metadata
            sizes += [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    if not sizes:
        raise InputError(f"{folder} holds no Parquet file: the samples stage has not run")
    return sizes


def _shared_sizes(filesystem: AbstractFileSystem, folder: str, num_shards: int) -> list[int]:
    sizes = row_group_sizes(filesystem, folder)
    if len(sizes) < num_shards:
        raise InputError(f"{folder} has {len(sizes)} row groups for {num_shards} ranks: lower samples.rows_per_group")
    return sizes


def read_rows(
    filesystem: AbstractFileSystem,
    folder: str,
    *,
    shard: int,
    num_shards: int,
    seed: int,
    columns: tuple[str, ...] = COLUMNS,
) -> Iterator[Columns]:
    """Yield this shard's row groups as columns of arrays, each row of the table exactly once over all shards.

    Raises:
        InputError: there are fewer row groups than shards.
    """
    _shared_sizes(filesystem, folder, num_shards)
    # Petastorm takes the path out of the URL and the file system as it is given.
    path = str(filesystem._strip_protocol(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = make_batch_reader(
            f"file:///{path.lstrip('/')}",
            schema_fields=list(columns),
            reader_pool_type="thread",
            workers_count=1,
            cur_shard=shard if num_shards > 1 else None,
            shard_count=num_shards if num_shards > 1 else None,
            shuffle_row_groups=True,
            shard_seed=seed if num_shards > 1 else None,
            seed=seed,
            num_epochs=1,
            filesystem=None if is_local(filesystem) else _FsspecFiles(filesystem),
        )
        with reader:
            for group in reader:
                yield {name: np.asarray(getattr(group, name)) for name in columns}


def read_files(filesystem: AbstractFileSystem, folder: str, columns: tuple[str, ...] = COLUMNS) -> Iterator[Columns]:
    """Yield the table's files in the order of their names, straight from Parquet: for one process that wants a look."""
    for path in files_below(filesystem, folder, ".parquet"):
        with filesystem.open(path, "rb") as file:
            table = pq.read_table(file, columns=list(columns))
        yield {name: list_column(table, name) for name in columns}


class PetastormSource:
    """A rank's batches (a :class:`dr_core.learning.trainer.BatchSource`).

    Args:
        filesystem, folder: the samples.
        batch_rows: rows a batch.
        shard, num_shards: this rank and how many there are.
        seed: root of the order.
        window: row groups mixed before rows are drawn from them.

    Raises:
        InputError: there are fewer row groups than shards.
    """

    def __init__(
        self,
        filesystem: AbstractFileSystem,
        folder: str,
        batch_rows: int,
        *,
        shard: int = 0,
        num_shards: int = 1,
        seed: int = 0,
        window: int = 4,
    ) -> None:
        self.filesystem, self.folder, self.batch_rows = filesystem, folder, batch_rows
        self.shard, self.num_shards, self.seed, self.window = shard, num_shards, seed, window
        sizes = sorted(_shared_sizes(filesystem, folder, num_shards))
        # Whatever the shuffle deals a rank, it holds at least this many rows.
        fewest_rows = sum(sizes[: len(sizes) // num_shards])
        self.steps_per_epoch = -(-fewest_rows // batch_rows)

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield exactly ``steps_per_epoch - first_step`` batches, the same ones whether or not earlier ones were read."""
        for step, columns in enumerate(self._batches(epoch)):
            if step >= self.steps_per_epoch:
                return
            if step >= first_step:
                yield batch_from_arrays(columns)

    def _batches(self, epoch: int) -> Iterator[Columns]:
        generator = np.random.default_rng((self.seed, epoch, self.shard))
        epoch_seed = int(np.random.default_rng((self.seed, epoch)).integers(2**31))
        groups = read_rows(self.filesystem, self.folder, shard=self.shard, num_shards=self.num_shards, seed=epoch_seed)
        held: list[Columns] = []
        rest: Columns | None = None
        for group in groups:
            held.append(group)
            if len(held) == self.window:
                rest = yield from self._cut(held, rest, generator, last=False)
                held = []
        yield from self._cut(held, rest, generator, last=True)

    def _cut(
        self,
        held: list[Columns],
        rest: Columns | None,
        generator: np.random.Generator,
        *,
        last: bool,
    ) -> Generator[Columns, None, Columns | None]:
        """Yield whole batches of the rows in an order of their own; return the rows that are left."""
        parts = ([rest] if rest else []) + held
        if not parts:
            return None
        mixed = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
        num_rows = len(mixed["length"])
        order = generator.permutation(num_rows)
        end = num_rows if last else num_rows - num_rows % self.batch_rows
        for start in range(0, end, self.batch_rows):
            rows = order[start : min(start + self.batch_rows, end)]
            yield {name: values[rows] for name, values in mixed.items()}
        left = order[end:]
        return {name: values[left] for name, values in mixed.items()} if len(left) else None
