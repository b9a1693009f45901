"""The M-step on Spark: penalised coordinate descent over partitions of the items (Deep Retrieval, Algorithm 2).

The candidates are shuffled once, to files of the partition that owns the item. Each sweep, every partition streams its
files through the kernel against the sizes broadcast before it and returns what changed in them; the next sweep starts
from the summed sizes. A task holds the sizes and two blocks of items. One partition is exact coordinate descent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from pydantic import Field
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dr_core.config import Config
from dr_core.paths.penalty import Penalty, correct_alpha, derive_alpha
from dr_core.paths.sizes import PathSizes
from dr_core.paths.space import PathSpace
from pipelines.stages.structure.candidate_files import BLOCK_ITEMS
from pipelines.stages.structure.parts import PartFiles
from pipelines.storage.workdir import Workdir


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
