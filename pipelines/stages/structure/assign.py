"""The M-step on Spark: penalised coordinate descent over partitions of the items (Deep Retrieval, Algorithm 2).

The candidates are shuffled once, to files of the partition that owns the item. Each sweep, every partition streams its
files through the kernel against the sizes broadcast before it and returns what changed in them; the next sweep starts
from the summed sizes. A task holds the sizes and two blocks of items. One partition is exact coordinate descent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dr_core.learning.alpha import AlphaRule, items_per_visited_path
from dr_core.learning.config import AssignmentConfig
from dr_core.paths.penalty import Penalty
from dr_core.paths.sizes import PathSizes
from dr_core.paths.space import PathSpace
from pipelines.stages.structure.parts import PartFiles
from pipelines.storage.workdir import Workdir


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
