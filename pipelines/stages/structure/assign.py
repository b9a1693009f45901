"""The M-step on Spark: penalised coordinate descent over partitions of the items (Deep Retrieval, Algorithm 2).

The candidates are shuffled once, to files of the partition that owns the item. Each sweep, every partition streams its
files through the kernel against the sizes broadcast before it and returns what changed in them; the next sweep starts
from the summed sizes. A task holds the sizes and two blocks of items. One partition is exact coordinate descent.
"""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dr_core.arrays import IntArray
from dr_core.learning.alpha import AlphaRule
from dr_core.learning.config import AssignmentConfig
from dr_core.learning.m_step import MStepFacts, m_step
from dr_core.learning.refine import Refinement
from dr_core.paths.space import PathSpace
from pipelines.stages.structure.parts import PartFiles
from pipelines.storage.workdir import Workdir


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
    visited_paths: IntArray,
    active: DataFrame | None = None,
    refinement: Refinement | None = None,
    only_new: bool = False,
) -> MStepFacts:
    """Move every item to better paths (:func:`dr_core.learning.m_step.m_step`) and write ``item_paths`` of ``release_id``.

    The column ``gain`` is what the surrogate would lose without that path alone, under the sizes of the mapping written.

    Args:
        release_id: its ``path_scores`` and ``item_stats`` are read, its ``item_paths`` written.
        parent_id: version whose ``item_paths`` are the current ones.
        num_items: items that get paths; those without scores keep their paths.
        rule: alpha.
        visited_paths: int64 [U, B], the paths that some users visit under the present model and mapping.
        active: item_id of the items that get paths, also where the parent has none for them; by default, the parent's.
        refinement: what follows the descent, on the driver, or None.
        only_new: whether items that have paths keep them.

    Raises:
        ValueError: the parent has paths for another number of items.
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
    parts = PartFiles(spark, workdir, f"runs/mstep-{release_id}", config.num_partitions, config.num_sweeps, space)
    try:
        parts.write(items, config.block_items)
        if parts.num_items != num_items:
            raise ValueError(f"{parts.num_items} items are to get paths after {parent_id}, not {num_items}")
        _, facts = m_step(parts, rule, visited_paths, refinement, only_new=only_new)
        rows = (
            parts.ranked()
            .where("path_id >= 0")
            .select(F.lit(release_id).alias("release_id"), "item_id", "rank", "path_id", "gain")
        )
        workdir.write_release(rows, "item_paths", release_id)
    finally:
        parts.remove()
    return facts


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
