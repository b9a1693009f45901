"""The M-step on Spark: penalised coordinate descent over partitions of the items (Deep Retrieval, Algorithm 2).

The candidates are shuffled once, to files of the partition that owns the item. Each sweep, every partition streams its
files through the kernel against the sizes broadcast before it and returns what changed in them; the next sweep starts
from the summed sizes. A task holds the sizes and two blocks of items. One partition is exact coordinate descent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pydantic import Field
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dr_core.config import Config
from dr_core.paths.assignment import changed_rows, log_score, rank_paths
from dr_core.paths.penalty import Penalty, correct_alpha, derive_alpha
from dr_core.paths.scores import PathCandidates
from dr_core.paths.sizes import DENSE_LIMIT, PathSizes
from dr_core.paths.space import PathSpace
from dr_core.paths.streaming import StreamingDescent
from pipelines.candidate_files import BLOCK_ITEMS, CandidateFiles
from pipelines.storage.workdir import Workdir

DELTA_SCHEMA = "codes array<bigint>, deltas array<bigint>, changed bigint"


class AssignmentConfig(Config):
    """The M-step (paper, Algorithm 2)."""

    num_sweeps: int = Field(4, ge=1)
    """Passes over all items; the paper says 3 to 5."""
    num_partitions: int = Field(1, ge=1)
    """Parts of the items swept side by side by Spark; 1 is exact coordinate descent in a single task."""
    block_items: int = Field(BLOCK_ITEMS, ge=1)
    """Items that a task holds at a time."""
    refine_sweeps: int = Field(20, ge=0)
    """Sweeps after the descent in which items move to paths whose visitors want them; with J = 1 only.
    0 leaves the descent's paths as they are."""
    refine_capacity: float = Field(1.75, ge=1)
    """Largest path that still takes items in these sweeps, as a multiple of the mean V / K^D."""
    refine_items: int = Field(500_000, ge=1)
    """With more items than this there is no refinement: it runs in one process."""


@dataclass(frozen=True)
class AssignSummary:
    """What an M-step did; the surrogate is that of the same scores and alpha before and after."""

    items_moved: int
    """Items that had paths and got other ones."""
    items_placed: int
    """Items that had none."""
    surrogate_before: float
    surrogate_after: float
    alpha: float
    items_per_visited_path: float
    corrections: int


@dataclass(frozen=True)
class AlphaRule:
    """Where alpha comes from: given, or derived from the budget and corrected by measurement (docs/algorithm.md).

    Attributes:
        alpha: the start, or None to derive it from the mean N_v.
        wanted: items wanted on a visited path, or None when alpha is given and stands.
        corrections: M-step repetitions allowed.
    """

    alpha: float | None
    wanted: float | None
    corrections: int = 3
    power: int = 4

    def start(self, mean_weight: float) -> float:
        """Return the first alpha to try."""
        if self.alpha is not None:
            return self.alpha
        if self.wanted is None:
            raise ValueError("alpha is neither given nor can it be derived: items wanted on a visited path are missing")
        return derive_alpha(mean_weight, self.wanted)

    def starting_at(self, alpha: float) -> AlphaRule:
        """Return the same rule with the alpha of an earlier round as its start."""
        return replace(self, alpha=alpha)

    def corrected(self, alpha: float, measured: float, attempt: int) -> float | None:
        """Return the next alpha to try, or None when the measurement is near enough, tells nothing, or no attempt is left."""
        if self.wanted is None or attempt >= self.corrections or measured <= 0:
            return None
        if abs(measured / self.wanted - 1) < 0.1:
            return None
        return correct_alpha(alpha, measured, self.wanted)

    def is_nearer(self, measured: float, before: float) -> bool:
        """Tell whether a correction brought the measurement at least a twentieth nearer to what is wanted.

        Where it does not, the paths that would have to grow or shrink are out of its reach, and alpha stays: corrected
        again from day to day it would leave all proportion.
        """
        if self.wanted is None or measured <= 0:
            return False
        return abs(math.log(measured / self.wanted)) < 0.95 * abs(math.log(before / self.wanted))


def assign_paths(
    spark: SparkSession,
    workdir: Workdir,
    *,
    release_id: str,
    parent_id: str,
    num_items: int,
    num_paths: int,
    space: PathSpace,
    config: AssignmentConfig,
    rule: AlphaRule,
    visited_paths: npt.NDArray[np.int64],
    active: DataFrame | None = None,
) -> AssignSummary:
    """Move every item to better paths and write ``item_paths`` of ``release_id``.

    Args:
        release_id: its ``path_scores`` and ``item_stats`` are read, its ``item_paths`` written.
        parent_id: release whose ``item_paths`` are the current ones.
        num_items: items that get paths; those without scores keep their paths.
        rule: alpha.
        visited_paths: int64 [U, B], the beams of some users under the present model: what "visited" means.
        active: item_id of the items that get paths, also where the parent has none for them; by default, the parent's.
    """
    items = item_rows(
        spark,
        workdir,
        release_id=release_id,
        parent_id=parent_id,
        num_parts=config.num_partitions,
        num_paths=num_paths,
        active=active,
    )
    parts = PartFiles(spark, workdir, f"runs/mstep-{release_id}", config.num_partitions, space)
    try:
        written = parts.write(items, config.block_items)
        if written["items"] != num_items:
            raise ValueError(f"{written['items']:.0f} items are to get paths after {parent_id}, not {num_items}")
        alpha = rule.start(max(written["weight"], 1e-9) / num_items)
        before = parts.sizes()
        attempt = 0

        def descend(alpha: float) -> tuple[PathSizes, str, float]:
            sizes, version = parts.descend(f"{attempt}", before, Penalty(rule.power, alpha), config.num_sweeps)
            return sizes, version, items_per_visited_path(parts.decoded(sizes), visited_paths)

        sizes, version, measured = descend(alpha)
        while (corrected := rule.corrected(alpha, measured, attempt)) is not None:
            attempt += 1
            tried = descend(corrected)
            if not rule.is_nearer(tried[2], measured):
                break
            alpha, (sizes, version, measured) = corrected, tried
        penalty = Penalty(rule.power, alpha)
        ranked = parts.rank(version, sizes, penalty)
        rows = parts.ranked().select(F.lit(release_id).alias("release_id"), "item_id", "rank", "path_id", "gain")
        workdir.write_release(rows, "item_paths", release_id)
    finally:
        parts.remove()
    return AssignSummary(
        items_moved=int(ranked["moved"]),
        items_placed=int(ranked["placed"]),
        surrogate_before=written["log_score"] - penalty.total(before.occupied()[1]),
        surrogate_after=ranked["log_score"] - penalty.total(sizes.occupied()[1]),
        alpha=alpha,
        items_per_visited_path=measured,
        corrections=attempt,
    )


def item_rows(
    spark: SparkSession,
    workdir: Workdir,
    *,
    release_id: str,
    parent_id: str,
    num_parts: int,
    num_paths: int,
    active: DataFrame | None = None,
) -> DataFrame:
    """Return one row an item: its candidates with scores, N_v, current paths (-1 where it has none yet) and part."""
    scores = (
        workdir.read_release(spark, "path_scores", release_id)
        .groupBy("item_id")
        .agg(F.sort_array(F.collect_list(F.struct("path_id", "score"))).alias("pairs"))
    )
    stats = workdir.read_release(spark, "item_stats", release_id).select("item_id", "num_events")
    current = (
        workdir.read_release(spark, "item_paths", parent_id)
        .groupBy("item_id")
        .agg(F.sort_array(F.collect_list(F.struct("rank", "path_id"))).alias("places"))
    )
    if active is not None:
        current = active.select("item_id").join(current, "item_id", how="left")
    nowhere = F.array_repeat(F.lit(-1).cast("bigint"), num_paths)
    return (
        current.join(scores, "item_id", how="left")
        .join(stats, "item_id", how="left")
        .select(
            "item_id",
            F.pmod(F.xxhash64("item_id"), F.lit(num_parts)).cast("int").alias("part"),
            F.coalesce(F.col("pairs.path_id"), F.array().cast("array<bigint>")).alias("path_ids"),
            F.coalesce(F.col("pairs.score"), F.array().cast("array<double>")).alias("scores"),
            F.coalesce("num_events", F.lit(0.0)).alias("num_events"),
            F.coalesce(F.col("places.path_id"), nowhere).alias("current"),
        )
    )


def items_per_visited_path(sizes: PathSizes, visited_paths: npt.NDArray[np.int64]) -> float:
    """Return the mean number of items on visited paths, int64 [U, B]; 0 where none was visited."""
    return float(sizes.of(visited_paths).mean()) if visited_paths.size else 0.0


class PartFiles:
    """The items of an M-step as files: candidates written once, one folder a part, and the paths after every sweep."""

    def __init__(self, spark: SparkSession, workdir: Workdir, folder: str, num_parts: int, space: PathSpace) -> None:
        self.spark, self.uri, self.folder, self.num_parts, self.space = spark, workdir.uri, folder, num_parts, space
        self.workdir = workdir
        self.universe: npt.NDArray[np.int64] | None = None
        """Path ids in use, ascending, where [K]^D has too many for a dense table; files hold positions in it."""

    def write(self, items: DataFrame, block_items: int) -> dict[str, float]:
        """Write the items of :func:`item_rows`; return their number, weight and sum of N_v log s."""
        self.remove()
        if self.space.num_paths > DENSE_LIMIT:
            used = items.select(F.explode(F.array_union("path_ids", "current")).alias("path_id")).where("path_id >= 0")
            self.universe = np.sort(used.distinct().toPandas()["path_id"].to_numpy(np.int64))
        uri, folder, universe = self.uri, self.folder, self.universe

        def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
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
        return {name: rows[name].sum().item() for name in rows.columns}

    def remove(self) -> None:
        """Remove all files."""
        if self.workdir.exists(self.folder):
            self.workdir.filesystem.rm(self.workdir.path(self.folder), recursive=True)

    def sizes(self) -> PathSizes:
        """Return |c| of the paths before the first sweep."""
        return self._add(self._each(_count_paths, DELTA_SCHEMA), PathSizes(np.zeros(0, dtype=np.int32)))

    def descend(self, name: str, sizes: PathSizes, penalty: Penalty, num_sweeps: int) -> tuple[PathSizes, str]:
        """Sweep until nothing changes, ``num_sweeps`` times at most.

        Returns:
            The sizes after it, and the version of the paths, which begins with ``name``.
        """
        times, jobs = (num_sweeps, 1) if self.num_parts == 1 else (1, num_sweeps)  # a part alone waits for no other
        here = "0"
        for number in range(jobs):
            there = f"{name}-{number}"
            sizes, changed = self._sweep(here, there, sizes, penalty, times)
            here = there
            if changed == 0:
                break
        return sizes, here

    def _sweep(
        self, here: str, there: str, sizes: PathSizes, penalty: Penalty, num_sweeps: int
    ) -> tuple[PathSizes, int]:
        """Sweep every part from the same sizes; return the sizes after it and the slots that changed last."""
        table = self.spark.sparkContext.broadcast(sizes)
        num_parts = self.num_parts
        num_codes = self.space.num_paths if self.universe is None else len(self.universe)
        space = self.space if self.universe is None else PathSpace(max(num_codes, 2), 1)

        def sweep(files: CandidateFiles) -> pa.RecordBatch:
            with StreamingDescent(table.value, num_codes, penalty, scale=num_parts, space=space) as descent:
                before = descent.sizes.counts.copy()
                for done in range(num_sweeps):
                    changed = 0
                    for number, block in files.stream(there if done else here):
                        paths, more = descent.sweep(block)
                        files.write_array(number, f"paths-{there}", paths)
                        changed += more
                    if changed == 0:
                        break
                delta = (descent.sizes.counts - before) // num_parts
            return _delta(delta, changed)

        rows = self._each(sweep, DELTA_SCHEMA)
        table.unpersist()
        return self._add(rows, sizes), int(rows["changed"].sum())

    def rank(self, version: str, sizes: PathSizes, penalty: Penalty) -> dict[str, float]:
        """Order every item's paths by gain; return items moved and placed, and the sum of N_v log s."""
        table = self.spark.sparkContext.broadcast(sizes)

        def rank(files: CandidateFiles) -> pa.RecordBatch:
            moved = placed = 0
            total = 0.0
            for number, block in files.stream(version):
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
        return {name: rows[name].sum().item() for name in rows.columns}

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
                paths = paths if universe is None else universe[paths]
                num_items, num_paths = paths.shape
                yield pa.RecordBatch.from_pydict({
                    "item_id": np.repeat(item_ids, num_paths).astype(np.int32),
                    "rank": np.tile(np.arange(num_paths, dtype=np.int32), num_items),
                    "path_id": paths.ravel().astype(np.int64),
                    "gain": gains.ravel(),
                })  # fmt: skip

        return self._parts().mapInArrow(self._over_parts(read), "item_id int, rank int, path_id bigint, gain double")

    def decoded(self, sizes: PathSizes) -> PathSizes:
        """Return sizes by path id."""
        if self.universe is None:
            return sizes
        codes, counts = sizes.occupied()
        return PathSizes.from_table(self.universe[codes], counts)

    def _parts(self) -> DataFrame:
        return self.spark.range(0, self.num_parts, 1, self.num_parts)

    def _over_parts(
        self, work: Callable[[CandidateFiles], Iterator[pa.RecordBatch]]
    ) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
        uri, folder = self.uri, self.folder

        def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                for part in batch.column("id").to_pylist():
                    yield from work(_files(Workdir(uri), folder, part))

        return run

    def _each(self, work: Callable[[CandidateFiles], pa.RecordBatch], schema: str) -> pd.DataFrame:
        return self._parts().mapInArrow(self._over_parts(lambda files: iter([work(files)])), schema).toPandas()

    @staticmethod
    def _add(rows: pd.DataFrame, sizes: PathSizes) -> PathSizes:
        return sizes.add(
            np.concatenate([*rows["codes"], np.zeros(0, np.int64)]),
            np.concatenate([*rows["deltas"], np.zeros(0, np.int64)]),
        )


def _files(workdir: Workdir, folder: str, part: int) -> CandidateFiles:
    return CandidateFiles(workdir, folder, f"part-{part:05d}")


def _count_paths(files: CandidateFiles) -> pa.RecordBatch:
    sizes = PathSizes(np.zeros(0, dtype=np.int32))
    for number in files.blocks():
        paths = files.read_array(number, "paths-0").ravel()
        paths = paths[paths >= 0]
        sizes = sizes.add(paths, np.ones(len(paths), dtype=np.int64))
    return _delta(sizes.counts, 0)


def _delta(deltas: npt.NDArray[np.int32], changed: int) -> pa.RecordBatch:
    codes = np.flatnonzero(deltas)
    return pa.RecordBatch.from_pydict(
        {"codes": pa.array([codes]), "deltas": pa.array([deltas[codes].astype(np.int64)]), "changed": [changed]}
    )


def coded(candidates: PathCandidates, universe: npt.NDArray[np.int64] | None) -> PathCandidates:
    """Return the items with path ids as int32: themselves, or positions in ``universe``."""

    def code(path_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        if universe is not None:
            path_ids = np.where(path_ids >= 0, np.searchsorted(universe, path_ids), -1)
        return path_ids.astype(np.int32)

    return replace(candidates, path_ids=code(candidates.path_ids), current_paths=code(candidates.current_paths))  # type: ignore[arg-type]


def blocks_of(batches: Iterator[pa.RecordBatch], block_items: int) -> Iterator[tuple[int, int, pa.Table]]:
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
