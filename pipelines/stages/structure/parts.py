"""The items of an M-step as files, part by part, and the Spark jobs that sweep them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dr_core.arrays import AnyIntArray, IntArray
from dr_core.learning.scored_items import Ranked
from dr_core.paths.assignment import changed_rows, log_score, rank_paths
from dr_core.paths.penalty import Penalty
from dr_core.paths.scores import PathCandidates
from dr_core.paths.sizes import DENSE_LIMIT, PathSizes
from dr_core.paths.space import PathSpace
from dr_core.paths.streaming import StreamingDescent
from pipelines.stages.structure.candidate_files import CandidateFiles
from pipelines.storage.workdir import Workdir

DELTA_SCHEMA = "codes array<bigint>, deltas array<bigint>, changed bigint"


@dataclass(frozen=True)
class FileVersion:
    """A mapping in the files: the name of its arrays, and the items on each path by the numbers that the files hold."""

    name: str
    sizes: PathSizes


class PartFiles:
    """The items of an M-step as files: candidates written once, one folder a part, and the paths after every sweep.

    This is :class:`dr_core.learning.scored_items.ScoredItems` on Spark. :meth:`write` comes first.

    Args:
        spark: the session.
        workdir: the work folder.
        folder: below it, for these files alone.
        num_parts: parts of the items, swept side by side.
        num_sweeps: passes over all items at most.
        space: K and D.
    """

    def __init__(
        self, spark: SparkSession, workdir: Workdir, folder: str, num_parts: int, num_sweeps: int, space: PathSpace
    ) -> None:
        self.spark, self.uri, self.folder, self.num_parts, self.space = spark, workdir.uri, folder, num_parts, space
        self.workdir, self.num_sweeps = workdir, num_sweeps
        self.universe: IntArray | None = None
        """Path ids in use, ascending, where [K]^D has too many for a dense table; files hold positions in it."""
        self.num_items, self.mean_weight, self.start_log_score = 0, 0.0, 0.0
        self.start = FileVersion("0", PathSizes(np.zeros(0, dtype=np.int32)))
        self._num_descents = 0

    def write(self, items: DataFrame, block_items: int) -> None:
        """Write the items of :func:`pipelines.stages.structure.assign.item_rows`; count them, their weight and their sizes."""
        self.remove()
        if self.space.num_paths > DENSE_LIMIT:
            used = items.select(F.explode(F.array_union("path_ids", "current")).alias("path_id")).where("path_id >= 0")
            self.universe = np.sort(used.distinct().toPandas()["path_id"].to_numpy(np.int64))
        uri, folder, universe = self.uri, self.folder, self.universe

        def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            workdir = Workdir(uri)
            for part, block, table in blocks_of(batches, block_items):
                candidates = candidates_from_table(table)
                candidates.validate()
                candidates = coded(candidates, universe)
                _files(workdir, folder, part).write(block, candidates)
                yield pa.RecordBatch.from_pydict({
                    "items": [candidates.num_items],
                    "weight": [float(candidates.weights.sum())],
                    "log_score": [log_score(candidates, candidates.current_paths)],
                })  # fmt: skip

        placed = items.repartition(self.num_parts, "part").sortWithinPartitions("part", "item_id")
        rows = placed.mapInArrow(write, "items bigint, weight double, log_score double").toPandas()
        self.num_items, self.start_log_score = int(rows["items"].sum()), float(rows["log_score"].sum())
        self.mean_weight = max(float(rows["weight"].sum()), 1e-9) / max(self.num_items, 1)
        self.start = FileVersion("0", self._count("0"))

    def remove(self) -> None:
        """Remove all files."""
        if self.workdir.exists(self.folder):
            self.workdir.filesystem.rm(self.workdir.path(self.folder), recursive=True)

    def _count(self, name: str) -> PathSizes:
        """Return the items on each path of the arrays ``paths-<name>``."""

        def count(files: CandidateFiles) -> pa.RecordBatch:
            sizes = PathSizes(np.zeros(0, dtype=np.int32))
            for number in files.blocks():
                paths = files.read_array(number, f"paths-{name}").ravel()
                paths = paths[paths >= 0]
                sizes = sizes.add(paths, np.ones(len(paths), dtype=np.int64))
            return _delta(sizes.counts, 0)

        return self._add(self._each(count, DELTA_SCHEMA), PathSizes(np.zeros(0, dtype=np.int32)))

    def descend(self, penalty: Penalty) -> FileVersion:
        """Sweep from the start until nothing changes, ``num_sweeps`` times at most."""
        times, jobs = (
            (self.num_sweeps, 1) if self.num_parts == 1 else (1, self.num_sweeps)
        )  # a part alone waits for none
        version = self.start
        for number in range(jobs):
            version, changed = self._sweep(version, f"{self._num_descents}-{number}", penalty, times)
            if changed == 0:
                break
        self._num_descents += 1
        return version

    def _sweep(self, start: FileVersion, name: str, penalty: Penalty, num_sweeps: int) -> tuple[FileVersion, int]:
        """Sweep every part from the same sizes; return the version after it and the slots that changed last."""
        before, sizes = start.name, start.sizes
        table = self.spark.sparkContext.broadcast(sizes)
        num_parts = self.num_parts
        num_codes = self.space.num_paths if self.universe is None else len(self.universe)
        space = self.space if self.universe is None else PathSpace.even(max(num_codes, 2), 1)

        def sweep(files: CandidateFiles) -> pa.RecordBatch:
            with StreamingDescent(table.value, num_codes, penalty, scale=num_parts, space=space) as descent:
                counts = descent.sizes.counts.copy()
                for done in range(num_sweeps):
                    changed = 0
                    for number, block in files.stream(name if done else before):
                        paths, more = descent.sweep(block)
                        files.write_array(number, f"paths-{name}", paths)
                        changed += more
                    if changed == 0:
                        break
                delta = (descent.sizes.counts - counts) // num_parts
            return _delta(delta, changed)

        rows = self._each(sweep, DELTA_SCHEMA)
        table.unpersist()
        return FileVersion(name, self._add(rows, sizes)), int(rows["changed"].sum())

    def sizes(self, version: FileVersion) -> PathSizes:
        """Return the items on each path, by path id."""
        if self.universe is None:
            return version.sizes
        codes, counts = version.sizes.occupied()
        return PathSizes.from_table(self.universe[codes], counts)

    def paths(self, version: FileVersion) -> IntArray:
        """Return a mapping on the driver, int64 [V, J] by item id, -1 where an item is not among these."""
        name, universe = f"paths-{version.name}", self.universe

        def read(files: CandidateFiles) -> Iterator[pa.RecordBatch]:
            for number in files.blocks():
                paths = decoded(files.read_array(number, name), universe)
                yield pa.RecordBatch.from_pydict({
                    "item_id": files.item_ids(number).astype(np.int32),
                    "path_ids": pa.array(list(paths.astype(np.int64)), pa.list_(pa.int64())),
                })  # fmt: skip

        rows = self._parts().mapInArrow(self._over_parts(read), "item_id int, path_ids array<bigint>").toPandas()
        path_VJ = np.full((int(rows["item_id"].max()) + 1, len(rows["path_ids"].iloc[0])), -1, dtype=np.int64)
        path_VJ[rows["item_id"].to_numpy()] = np.stack(rows["path_ids"].to_list())
        return path_VJ

    def place(self, path_VJ: IntArray) -> FileVersion:
        """Write a mapping from the driver, int64 [V, J] by item id, to the parts' files."""
        table, universe = self.spark.sparkContext.broadcast(path_VJ), self.universe

        def place(files: CandidateFiles) -> pa.RecordBatch:
            for number in files.blocks():
                paths = table.value[files.item_ids(number)]
                files.write_array(number, "paths-placed", encoded(paths, universe))
            return _delta(np.zeros(0, dtype=np.int32), 0)

        self._each(place, DELTA_SCHEMA)
        table.unpersist()
        return FileVersion("placed", self._count("placed"))

    def rank(self, version: FileVersion, penalty: Penalty) -> Ranked:
        """Write every item's paths in order of gain with their gains; compare them with the start."""
        table, name = self.spark.sparkContext.broadcast(version.sizes), version.name

        def rank(files: CandidateFiles) -> pa.RecordBatch:
            moved = placed = 0
            total = 0.0
            for number, block in files.stream(name):
                before = files.read_array(number, "paths-0")
                was_nowhere = (before < 0).all(axis=1)
                placed += int(was_nowhere.sum())
                moved += int((changed_rows(before, block.current_paths) & ~was_nowhere).sum())
                total += log_score(block, block.current_paths)
                paths, gains = rank_paths(block, block.current_paths, penalty, sizes=table.value)
                files.write_array(number, "ranked", paths)
                files.write_array(number, "gains", gains)
            return pa.RecordBatch.from_pydict({"moved": [moved], "placed": [placed], "log_score": [total]})

        rows = self._each(rank, "moved bigint, placed bigint, log_score double")
        table.unpersist()
        return Ranked(int(rows["moved"].sum()), int(rows["placed"].sum()), float(rows["log_score"].sum()))

    def ranked(self) -> DataFrame:
        """Return (item_id, rank, path_id, gain) of what :meth:`rank` left."""
        universe = self.universe

        def read(files: CandidateFiles) -> Iterator[pa.RecordBatch]:
            for number in files.blocks():
                item_ids, paths, gains = (
                    files.item_ids(number),
                    files.read_array(number, "ranked"),
                    files.read_array(number, "gains"),
                )
                paths = decoded(paths, universe)
                num_items, num_paths = paths.shape
                yield pa.RecordBatch.from_pydict({
                    "item_id": np.repeat(item_ids, num_paths).astype(np.int32),
                    "rank": np.tile(np.arange(num_paths, dtype=np.int32), num_items),
                    "path_id": paths.ravel().astype(np.int64),
                    "gain": gains.ravel(),
                })  # fmt: skip

        return self._parts().mapInArrow(self._over_parts(read), "item_id int, rank int, path_id bigint, gain double")

    def _parts(self) -> DataFrame:
        return self.spark.range(0, self.num_parts, 1, self.num_parts)

    def _over_parts(
        self, work: Callable[[CandidateFiles], Iterator[pa.RecordBatch]]
    ) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
        uri, folder = self.uri, self.folder

        def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                for part in batch.column("id").to_pylist():
                    yield from work(_files(Workdir(uri), folder, part))

        return run

    def _each(self, work: Callable[[CandidateFiles], pa.RecordBatch], schema: str) -> pd.DataFrame:
        return self._parts().mapInArrow(self._over_parts(lambda files: iter([work(files)])), schema).toPandas()

    @staticmethod
    def _add(rows: pd.DataFrame, sizes: PathSizes) -> PathSizes:
        # A part in which nothing changed comes back as an empty list without a type.
        codes, deltas = (
            np.concatenate([np.zeros(0, np.int64), *(np.asarray(part, dtype=np.int64) for part in rows[name])])
            for name in ("codes", "deltas")
        )
        return sizes.add(codes, deltas)


def _files(workdir: Workdir, folder: str, part: int) -> CandidateFiles:
    return CandidateFiles(workdir, folder, f"part-{part:05d}")


def _delta(deltas: npt.NDArray[np.int32], changed: int) -> pa.RecordBatch:
    codes = np.flatnonzero(deltas)
    return pa.RecordBatch.from_pydict(
        {"codes": pa.array([codes]), "deltas": pa.array([deltas[codes].astype(np.int64)]), "changed": [changed]}
    )


def encoded(path_ids: IntArray, universe: IntArray | None) -> npt.NDArray[np.int32]:
    """Return path ids as the files hold them, int32: themselves, or positions in ``universe``; -1 stays."""
    if universe is not None:
        path_ids = np.where(path_ids >= 0, np.searchsorted(universe, path_ids), -1)
    return path_ids.astype(np.int32)


def decoded(codes: AnyIntArray, universe: IntArray | None) -> AnyIntArray:
    """Return the path ids of what :func:`encoded` made; -1 stays."""
    if universe is None:
        return codes
    return np.where(codes >= 0, universe[np.maximum(codes, 0)], -1)


def coded(candidates: PathCandidates, universe: IntArray | None) -> PathCandidates:
    """Return the items with path ids as the files hold them."""
    return replace(
        candidates,
        path_ids=encoded(candidates.path_ids, universe),  # type: ignore[arg-type]
        current_paths=encoded(candidates.current_paths, universe),  # type: ignore[arg-type]
    )


def blocks_of(batches: Iterable[pa.RecordBatch], block_items: int) -> Iterator[tuple[int, int, pa.Table]]:
    """Cut rows that are sorted by part into (part, number of the block, at most ``block_items`` rows of one part)."""
    part, number, kept, num_kept = -1, 0, list[pa.RecordBatch](), 0
    for batch in batches:
        parts = batch.column("part").to_numpy()
        edges = [0, *(np.flatnonzero(np.diff(parts)) + 1).tolist(), len(parts)]
        for first, last in zip(edges, edges[1:], strict=False):
            while first < last:
                if int(parts[first]) != part:
                    if kept:
                        yield part, number, pa.Table.from_batches(kept)
                    part, number, kept, num_kept = int(parts[first]), 0, [], 0
                taken = min(last - first, block_items - num_kept)
                kept.append(batch.slice(first, taken))
                first, num_kept = first + taken, num_kept + taken
                if num_kept == block_items:
                    yield part, number, pa.Table.from_batches(kept)
                    number, kept, num_kept = number + 1, [], 0
    if kept:
        yield part, number, pa.Table.from_batches(kept)


def candidates_from_table(table: pa.Table) -> PathCandidates:
    """Return rows of :func:`item_rows` as the kernel's CSR."""
    table = table.combine_chunks()
    lists = table.column("path_ids").combine_chunks()
    lengths = np.asarray(lists.value_lengths().to_numpy(zero_copy_only=False), dtype=np.int64)
    current = table.column("current").combine_chunks()
    return PathCandidates(
        np.r_[0, np.cumsum(lengths)].astype(np.int64),
        np.asarray(lists.flatten().to_numpy(zero_copy_only=False), dtype=np.int64),
        np.asarray(table.column("scores").combine_chunks().flatten().to_numpy(zero_copy_only=False), dtype=np.float64),
        np.asarray(table.column("num_events").to_numpy(), dtype=np.float64),
        np.asarray(current.flatten().to_numpy(zero_copy_only=False), dtype=np.int64).reshape(len(current), -1),
        np.asarray(table.column("item_id").to_numpy(), dtype=np.int64),
    )
