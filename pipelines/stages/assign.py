"""The M-step on Spark: penalised coordinate descent over partitions of the items (Deep Retrieval, Algorithm 2).

Each sweep, every partition takes one pass of the kernel over its items against the sizes broadcast before it; the new
paths are counted, and the next sweep starts from the new sizes. One partition is exact coordinate descent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dr_core.config import Config
from dr_core.paths.assignment import (
    changed_rows,
    coordinate_descent,
    log_score,
    rank_paths,
    sweep_partition,
)
from dr_core.paths.penalty import Penalty, correct_alpha, derive_alpha
from dr_core.paths.scores import PathCandidates
from dr_core.paths.sizes import PathSizes
from dr_core.paths.space import PathSpace
from pipelines.tables import Workdir

ITEM_SCHEMA = (
    "item_id int, part int, path_ids array<bigint>, scores array<double>, num_events double, current array<bigint>"
)
RESULT_SCHEMA = "item_id int, path_ids array<bigint>, gains array<double>"


class AssignmentConfig(Config):
    """The M-step (paper, Algorithm 2)."""

    num_sweeps: int = Field(4, ge=1)
    """Passes over all items; the paper says 3 to 5."""
    num_partitions: int = Field(1, ge=1)
    """Parts of the items swept side by side by Spark; 1 is exact coordinate descent in a single task."""
    refine_sweeps: int = Field(20, ge=0)
    """Sweeps after the descent in which items move to paths whose visitors the softmax wants them for; with J = 1 only.
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
    items = items.persist()
    try:
        totals = items.agg(F.sum("num_events").alias("weight"), F.count("*").alias("items")).first()
        if totals is None or totals["items"] != num_items:
            raise ValueError(f"{totals and totals['items']} items are to get paths after {parent_id}, not {num_items}")
        alpha = rule.start(max(float(totals["weight"] or 0.0), 1e-9) / num_items)
        before = item_sizes(items.select(F.col("current").alias("path_ids")))
        attempt = 0
        while True:
            penalty = Penalty(rule.power, alpha)
            result = sweep_all(items, before, penalty, num_paths, space, config).persist()
            sizes = item_sizes(result)
            measured = items_per_visited_path(sizes, visited_paths)
            corrected = rule.corrected(alpha, measured, attempt)
            if corrected is None:
                break
            result.unpersist()
            alpha, attempt = corrected, attempt + 1
        moved, placed, log_before, log_after = compare(items, result)
        rows = result.select(
            F.lit(release_id).alias("release_id"),
            "item_id",
            F.posexplode(F.arrays_zip("path_ids", "gains")).alias("rank", "pair"),
        ).select(
            "release_id", "item_id", "rank", F.col("pair.path_ids").alias("path_id"), F.col("pair.gains").alias("gain")
        )
        workdir.write_release(rows, "item_paths", release_id)
        result.unpersist()
    finally:
        items.unpersist()
    return AssignSummary(
        items_moved=moved,
        items_placed=placed,
        surrogate_before=log_before - penalty.total(before.occupied()[1]),
        surrogate_after=log_after - penalty.total(sizes.occupied()[1]),
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


def item_sizes(mapping: DataFrame) -> PathSizes:
    """Count the items on every path of a frame with a ``path_ids`` column."""
    paths = mapping.select(F.explode("path_ids").alias("path_id")).where("path_id >= 0")
    counts = paths.groupBy("path_id").count().toPandas()
    return PathSizes.from_table(counts["path_id"].to_numpy(np.int64), counts["count"].to_numpy(np.int64))


def items_per_visited_path(sizes: PathSizes, visited_paths: npt.NDArray[np.int64]) -> float:
    """Return the mean number of items on visited paths, int64 [U, B]; 0 where none was visited."""
    return float(sizes.of(visited_paths).mean()) if visited_paths.size else 0.0


def sweep_all(
    items: DataFrame, sizes: PathSizes, penalty: Penalty, num_paths: int, space: PathSpace, config: AssignmentConfig
) -> DataFrame:
    """Run all sweeps and return (item_id, path_ids in descending gain, gains)."""
    if config.num_partitions == 1:
        return items.groupBy("part").applyInArrow(_descend(penalty, num_paths, space, config.num_sweeps), RESULT_SCHEMA)
    mapping: DataFrame | None = None
    for _ in range(config.num_sweeps):
        frame = items
        if mapping is not None:
            frame = items.drop("current").join(
                mapping.select("item_id", F.col("path_ids").alias("current")), "item_id", how="inner"
            )
        swept = frame.groupBy("part").applyInArrow(_sweep(penalty, space, sizes, config.num_partitions), RESULT_SCHEMA)
        swept = swept.persist()
        sizes = item_sizes(swept)
        if mapping is not None:
            mapping.unpersist()
        mapping = swept
    if mapping is None:
        raise ValueError("num_sweeps must be at least 1")
    final = items.drop("current").join(
        mapping.select("item_id", F.col("path_ids").alias("current")), "item_id", how="inner"
    )
    return final.groupBy("part").applyInArrow(_rank(penalty, sizes), RESULT_SCHEMA)


def compare(items: DataFrame, result: DataFrame) -> tuple[int, int, float, float]:
    """Return (items whose set of paths changed, items that had none, sum N_v log s before, the same after)."""

    def measure(table: pa.Table) -> pa.Table:
        candidates, table = candidates_from_table(table, "current")
        new = _matrix(table.column("new"))
        is_placed = (candidates.current_paths < 0).all(axis=1)
        has_moved = changed_rows(candidates.current_paths, new) & ~is_placed
        return pa.table(
            {
                "moved": pa.array([int(has_moved.sum())], pa.int64()),
                "placed": pa.array([int(is_placed.sum())], pa.int64()),
                "before": [log_score(candidates, candidates.current_paths)],
                "after": [log_score(candidates, new)],
            }
        )

    joined = items.join(result.select("item_id", F.col("path_ids").alias("new")), "item_id", how="inner")
    sums = joined.groupBy("part").applyInArrow(measure, "moved bigint, placed bigint, before double, after double")
    sums = sums.toPandas()
    return int(sums["moved"].sum()), int(sums["placed"].sum()), float(sums["before"].sum()), float(sums["after"].sum())


def candidates_from_table(table: pa.Table, current: str) -> tuple[PathCandidates, pa.Table]:
    """Return a part's items as the kernel's CSR, in the order of item_id, and the table so ordered."""
    table = table.sort_by("item_id").combine_chunks()
    lists = table.column("path_ids").combine_chunks()
    lengths = np.asarray(lists.value_lengths().to_numpy(zero_copy_only=False), dtype=np.int64)
    candidates = PathCandidates(
        np.r_[0, np.cumsum(lengths)].astype(np.int64),
        np.asarray(lists.flatten().to_numpy(zero_copy_only=False), dtype=np.int64),
        np.asarray(table.column("scores").combine_chunks().flatten().to_numpy(zero_copy_only=False), dtype=np.float64),
        np.asarray(table.column("num_events").to_numpy(), dtype=np.float64),
        _matrix(table.column(current)),
        np.asarray(table.column("item_id").to_numpy(), dtype=np.int64),
    )
    return candidates, table


def _matrix(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    values = column.combine_chunks()
    return np.asarray(values.flatten().to_numpy(zero_copy_only=False), dtype=np.int64).reshape(len(values), -1)


def _result(item_ids: npt.NDArray[np.int64], paths: npt.NDArray[np.int64], gains: npt.NDArray[np.float64]) -> pa.Table:
    offsets = pa.array(np.arange(len(item_ids) + 1, dtype=np.int32) * paths.shape[1])
    return pa.table(
        {
            "item_id": pa.array(item_ids, pa.int32()),
            "path_ids": pa.ListArray.from_arrays(offsets, pa.array(paths.ravel())),
            "gains": pa.ListArray.from_arrays(offsets, pa.array(gains.ravel())),
        }
    )


def _descend(penalty: Penalty, num_paths: int, space: PathSpace, num_sweeps: int) -> Callable[[pa.Table], pa.Table]:
    def descend(table: pa.Table) -> pa.Table:
        candidates, _ = candidates_from_table(table, "current")
        done = coordinate_descent(candidates, penalty, num_paths=num_paths, num_sweeps=num_sweeps, space=space)
        return _result(candidates.item_ids, done.path_ids, done.gains)  # type: ignore[arg-type]

    return descend


def _sweep(penalty: Penalty, space: PathSpace, sizes: PathSizes, num_parts: int) -> Callable[[pa.Table], pa.Table]:
    def sweep(table: pa.Table) -> pa.Table:
        candidates, _ = candidates_from_table(table, "current")
        paths, _ = sweep_partition(candidates, candidates.current_paths, sizes, penalty, num_parts, space=space)
        return _result(candidates.item_ids, paths, np.zeros(paths.shape))  # type: ignore[arg-type]

    return sweep


def _rank(penalty: Penalty, sizes: PathSizes) -> Callable[[pa.Table], pa.Table]:
    def rank(table: pa.Table) -> pa.Table:
        candidates, _ = candidates_from_table(table, "current")
        paths, gains = rank_paths(candidates, candidates.current_paths, penalty, sizes=sizes)
        return _result(candidates.item_ids, paths, gains)  # type: ignore[arg-type]

    return rank
