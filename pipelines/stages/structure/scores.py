"""s[v, c] and N_v by distributed inference (Deep Retrieval, section 3, "score function").

Every sample's user states are beam-searched; p(c|x) of the S beam paths, and of the target's own current paths, is
added to the target's scores. Partial sums are made per block as a sparse product in 64-bit fixed point, so the totals
do not depend on partitioning, order or retries. A task adds up its blocks before it hands them on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from dr_core.arrays import IntArray
from dr_core.errors import DeepRetrievalError
from dr_core.learning.config import ScoresConfig
from dr_core.learning.scoring import score_batch, sum_terms
from dr_core.model.objective import DeepRetrievalModel, StateBatch
from dr_core.model.path_mapping import PathMapping
from dr_core.paths.scores import FRACTION_BITS, BlockScores, ScoreRows, merge_blocks, merge_streaming
from dr_core.retrieval.from_model import compiled_structure
from pipelines.spark.worker_cache import cached_array, cached_model, file_identity, model_identity
from pipelines.stages.blocks import (
    block_batches,
    dealt_by_block,
    encode_batch,
    map_blocks,
    read_samples,
    whole_blocks,
)
from pipelines.storage.workdir import Workdir

MERGE_PARTS = 16
ROWS_HELD = 8_000_000
"""Sums that a task holds while it adds up its blocks: about 200 MB."""
SCORE_SCHEMA = "item_id int, path_id bigint, score bigint, is_current boolean"


@dataclass(frozen=True)
class FrozenModel:
    """A model on disk together with the pi it was trained on."""

    uri: str
    identity: str
    paths_uri: str
    paths_identity: str

    @staticmethod
    def of(workdir: Workdir, version_id: str) -> FrozenModel:
        """Return the model of a version; raise :class:`InputError` when it is not finished or its mapping is missing."""
        uri, paths_uri = workdir.path("models", version_id), workdir.path("models", version_id, "item_paths.npy")
        return FrozenModel(uri, model_identity(uri), paths_uri, file_identity(paths_uri))

    def load(self) -> tuple[DeepRetrievalModel, IntArray]:
        """Return the model, its paths set, and the paths; cached per worker process."""
        model = cached_model(self.uri, self.identity)
        paths = cached_array(self.paths_uri, self.paths_identity)
        if getattr(model, "paths_identity", "") != self.paths_identity:
            model.set_item_paths(paths)
            model.paths_identity = self.paths_identity  # type: ignore[assignment]
        return model, paths


@dataclass(frozen=True)
class Carried:
    """The release whose scores and N_v are carried on, and the decay eta of this merge."""

    release_id: str
    decay: float


def accumulate_scores(
    spark: SparkSession,
    workdir: Workdir,
    *,
    samples: str,
    model: FrozenModel,
    release_id: str,
    config: ScoresConfig,
    carried: Carried | None = None,
) -> dict[str, int]:
    """Write ``path_scores`` and ``item_stats`` of one release from all samples but the replayed ones.

    With ``carried``, both are merged into those of that release (section 3, streaming estimation).

    Returns:
        ``rows_in`` (sample rows) and ``rows_out`` (path_scores rows).
    """
    frame = read_samples(spark, workdir, samples)
    if "is_replay" in frame.columns:
        frame = frame.where(~F.col("is_replay"))
    scores, weights = path_scores(frame, model, config), item_weights(frame)
    if carried is not None:
        scores = merge_scores(spark, workdir, carried, scores, config.num_candidates)
        weights = merge_stats(workdir.read_release(spark, "item_stats", carried.release_id), weights, carried.decay)
    release = F.lit(release_id).alias("release_id")
    workdir.write_release(scores.select(release, "*"), "path_scores", release_id)
    workdir.write_release(weights.select(release, "*"), "item_stats", release_id)
    rows_in = frame.count()
    rows_out = workdir.read_release(spark, "path_scores", release_id).count()
    if rows_in and not rows_out:
        raise DeepRetrievalError(f"{rows_in} sample rows of {samples} gave no scores: the samples hold no targets")
    return {"rows_in": rows_in, "rows_out": rows_out}


def path_scores(
    samples: DataFrame, model: FrozenModel, config: ScoresConfig, *, rows_held: int = ROWS_HELD
) -> DataFrame:
    """s[v, c] = sum of w p(c|x) over the samples of each item: its S best paths and, always, its current ones.

    A task adds up its blocks as long as the sums stay below ``rows_held`` rows.
    """
    # Dealt out by item once: the sums and the best of each item below need no further shuffle.
    in_blocks = dealt_by_block(samples)
    partial = in_blocks.mapInArrow(score_blocks(model, config, rows_held), SCORE_SCHEMA).repartition("item_id")
    totals = partial.groupBy("item_id", "path_id").agg(
        F.sum("score").alias("score"), F.max("is_current").alias("is_current")
    )
    best = Window.partitionBy("item_id", "is_current").orderBy(F.col("score").desc(), F.col("path_id"))
    kept = totals.withColumn("place", F.row_number().over(best)).where(
        F.col("is_current") | (F.col("place") <= config.num_candidates)
    )
    score = F.col("score") / F.lit(float(2**FRACTION_BITS))
    return kept.select("item_id", "path_id", score.alias("score"), "is_current")


def merge_scores(
    spark: SparkSession, workdir: Workdir, carried: Carried, new: DataFrame, num_candidates: int
) -> DataFrame:
    """Merge new scores into a release's, item by item (:func:`dr_core.paths.scores.merge_streaming`).

    Args:
        new: item_id, path_id, score, is_current; current are that release's paths.
    """
    in_force = workdir.read_release(spark, "item_paths", carried.release_id).select(
        "item_id", "path_id", F.lit(True).alias("in_force")
    )
    old = (
        workdir.read_release(spark, "path_scores", carried.release_id)
        .select("item_id", "path_id", "score")
        .join(in_force, on=["item_id", "path_id"], how="left")
        .select("item_id", "path_id", "score", F.coalesce("in_force", F.lit(False)).alias("is_current"))
    )

    def merge(left: pa.Table, right: pa.Table) -> pa.Table:
        merged = merge_streaming(_as_rows(left), _as_rows(right), carried.decay, num_candidates)
        return pa.table(
            {
                "item_id": pa.array(merged.item_ids, pa.int32()),
                "path_id": pa.array(merged.path_ids, pa.int64()),
                "score": pa.array(merged.scores, pa.float64()),
                "is_current": pa.array(merged.is_current, pa.bool_()),
            }
        )

    part = F.pmod(F.xxhash64("item_id"), F.lit(MERGE_PARTS)).alias("part")
    schema = "item_id int, path_id bigint, score double, is_current boolean"
    return old.groupBy(part).cogroup(new.groupBy(part)).applyInArrow(merge, schema)


def _as_rows(table: pa.Table) -> ScoreRows:
    columns = [table.column(name).to_numpy() for name in ("item_id", "path_id", "score")]
    current = table.column("is_current").to_numpy(zero_copy_only=False).astype(np.bool_)
    return ScoreRows(columns[0].astype(np.int64), columns[1].astype(np.int64), columns[2].astype(np.float64), current)


def merge_stats(old: DataFrame, new: DataFrame, decay: float) -> DataFrame:
    """N_v carried on exactly like the scores: decay * old + new."""
    both = old.select("item_id", F.col("num_events").alias("old")).join(
        new.select("item_id", F.col("num_events").alias("new")), on="item_id", how="full_outer"
    )
    total = F.coalesce("old", F.lit(0.0)) * F.lit(decay) + F.coalesce("new", F.lit(0.0))
    return both.select("item_id", total.alias("num_events"))


def item_weights(samples: DataFrame) -> DataFrame:
    """N_v = sum of the weights of an item's targets, in fixed point so that its value does not depend on the order."""
    pairs = samples.select(F.explode(F.arrays_zip("targets", "weights")).alias("pair")).where(
        F.col("pair.targets") >= 0
    )
    fixed = F.sum(F.round(F.col("pair.weights").cast("double") * F.lit(float(2**FRACTION_BITS))).cast("bigint"))
    return (
        pairs.groupBy(F.col("pair.targets").alias("item_id"))
        .agg((fixed / F.lit(float(2**FRACTION_BITS))).alias("num_events"))
        .select("item_id", "num_events")
    )


def score_blocks(
    model: FrozenModel, config: ScoresConfig, rows_held: int
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return what a task does with its samples, sorted by block: rows of ``SCORE_SCHEMA``, scores in fixed point."""

    def score(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        network, _ = model.load()
        structure = compiled_structure(network.structure)
        held: list[BlockScores] = []
        for block in whole_blocks(batches):
            terms = [
                score_batch(network, structure, StateBatch(*encode_batch(network, batch)), config.num_candidates)
                for batch in block_batches(block)
            ]
            summed = sum_terms(terms)
            if config.candidates_per_block is not None:
                summed = _best_of_block(summed, config.candidates_per_block)
            held.append(summed)
            if sum(len(each.item_ids) for each in held) > rows_held:
                held = [merge_blocks(held)]
                if len(held[0].item_ids) > rows_held // 2:
                    yield from _as_batches(held.pop())
        if held:
            yield from _as_batches(merge_blocks(held))

    return score


def _as_batches(scores: BlockScores) -> list[pa.RecordBatch]:
    item = pa.array(scores.item_ids, pa.int32())
    columns = {
        "item_id": item,
        "path_id": scores.path_ids,
        "score": scores.scores_fixed,
        "is_current": scores.is_current,
    }
    batches: list[pa.RecordBatch] = pa.table(columns).to_batches(max_chunksize=65_536)
    return batches


def _best_of_block(scores: BlockScores, num_candidates: int) -> BlockScores:
    order = np.lexsort((scores.path_ids, -scores.scores_fixed, scores.item_ids))
    item, path, fixed, current = (column[order] for column in scores)
    starts = np.flatnonzero(np.r_[True, item[1:] != item[:-1]])
    place = np.arange(len(item)) - np.repeat(starts, np.diff(np.r_[starts, len(item)]))
    kept = (place < num_candidates) | current
    return BlockScores(item[kept], path[kept], fixed[kept], current[kept])


def measure_likelihood(
    spark: SparkSession,
    workdir: Workdir,
    *,
    samples: str,
    model: FrozenModel,
    paths_uris: list[str],
    max_blocks: int,
) -> list[float]:
    """Return the true mean log sum_j p(pi_j(y)|x) a unit of weight under several path tables, theta fixed.

    Computed on the first ``max_blocks`` blocks of users: the surrogate that the M-step raises is an upper bound, so
    whether the likelihood itself rose has to be measured.
    """

    mappings = [(uri, file_identity(uri)) for uri in paths_uris]

    def likelihood(table: pa.Table) -> pa.Table:
        network, _ = model.load()
        placements = [PathMapping(cached_array(*mapping)) for mapping in mappings]
        sums = np.zeros(len(placements) + 1)
        for batch in block_batches(table):
            user_NE, target_NT, weight_NT = encode_batch(network, batch)
            for number, placement in enumerate(placements):
                with torch.inference_mode():
                    log_p = network.structure.item_log_prob(user_NE, target_NT, placement)
                sums[number] += float((log_p * weight_NT).double().sum())
            sums[-1] += float(weight_NT.double().sum())
        return pa.table({"sums": pa.array([sums.tolist()], pa.list_(pa.float64()))})

    frame = read_samples(spark, workdir, samples).where(F.col("block") < max_blocks)
    rows = map_blocks(frame, likelihood, "sums array<double>").collect()
    sums = [math.fsum(column) for column in zip(*(row.sums for row in rows), strict=True)]
    return [float(value / sums[-1]) for value in sums[:-1]]
