"""s[v, c] and N_v by distributed inference (Deep Retrieval, section 3, "score function").

Every sample's user states are beam-searched; p(c|x) of the S beam paths, and of the target's own current paths, is
added to the target's scores. Partial sums are made per block as a sparse product in 64-bit fixed point, so the totals
do not depend on partitioning, order or retries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from pydantic import Field
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from dr_core.config import Config
from dr_core.errors import DeepRetrievalError
from dr_core.model.objective import DeepRetrievalModel, StateBatch, decode_paths
from dr_core.paths.scores import FRACTION_BITS
from pipelines.inference import block_batches, cached_array, cached_model, encode_batch
from pipelines.local_em import score_batch
from pipelines.tables import Workdir

SCORE_SCHEMA = "item_id int, path_id bigint, score bigint, is_current boolean"


class ScoresConfig(Config):
    """How s[v, c] is collected."""

    num_candidates: int = Field(20, ge=1)
    """S: beam of the inference, and paths kept an item besides its current ones."""
    candidates_per_block: int | None = Field(None, ge=1)
    """S': keep only this many paths an item in each block before the shuffle (approximate); none is exact."""


@dataclass(frozen=True)
class FrozenModel:
    """A model on disk together with the pi it was trained on."""

    uri: str
    sha256: str
    paths_uri: str

    def load(self) -> tuple[DeepRetrievalModel, npt.NDArray[np.int64]]:
        """Return the model, its paths set, and the paths; cached per worker process."""
        model = cached_model(self.uri, self.sha256)
        paths = cached_array(self.paths_uri, self.sha256)
        if model.item_path_VJ.shape != paths.shape or getattr(model, "paths_uri", "") != self.paths_uri:
            model.set_item_paths(np.array(paths))
            model.paths_uri = self.paths_uri  # type: ignore[assignment]
        return model, paths


def read_samples(spark: SparkSession, workdir: Workdir, name: str) -> DataFrame:
    """Return a samples table (Parquet)."""
    return spark.read.parquet(workdir.table(name))


def accumulate_scores(
    spark: SparkSession, workdir: Workdir, *, samples: str, model: FrozenModel, release_id: str, config: ScoresConfig
) -> dict[str, int]:
    """Write ``path_scores`` and ``item_stats`` of one release from all samples.

    Returns:
        ``rows_in`` (sample rows) and ``rows_out`` (path_scores rows).
    """
    frame = read_samples(spark, workdir, samples)
    scores = path_scores(frame, model, config).select(F.lit(release_id).alias("release_id"), "*")
    workdir.write_release(scores, "path_scores", release_id)
    workdir.write_release(item_weights(frame, release_id), "item_stats", release_id)
    rows_in = frame.count()
    rows_out = workdir.read_release(spark, "path_scores", release_id).count()
    if rows_in and not rows_out:
        raise DeepRetrievalError(f"{rows_in} sample rows of {samples} gave no scores: the samples hold no targets")
    return {"rows_in": rows_in, "rows_out": rows_out}


def path_scores(samples: DataFrame, model: FrozenModel, config: ScoresConfig) -> DataFrame:
    """s[v, c] = sum of w p(c|x) over the samples of each item: its S best paths and, always, its current ones."""
    partial = samples.groupBy("block").applyInArrow(_score_block(model, config), SCORE_SCHEMA)
    totals = partial.groupBy("item_id", "path_id").agg(
        F.sum("score").alias("score"), F.max("is_current").alias("is_current")
    )
    best = Window.partitionBy("item_id", "is_current").orderBy(F.col("score").desc(), F.col("path_id"))
    kept = totals.withColumn("place", F.row_number().over(best)).where(
        F.col("is_current") | (F.col("place") <= config.num_candidates)
    )
    score = F.col("score") / F.lit(float(2**FRACTION_BITS))
    return kept.select("item_id", "path_id", score.alias("score"), "is_current")


def item_weights(samples: DataFrame, release_id: str) -> DataFrame:
    """N_v = sum of the weights of an item's targets, in fixed point so that its value does not depend on the order."""
    pairs = samples.select(F.explode(F.arrays_zip("targets", "weights")).alias("pair")).where(
        F.col("pair.targets") >= 0
    )
    fixed = F.sum(F.round(F.col("pair.weights").cast("double") * F.lit(float(2**FRACTION_BITS))).cast("bigint"))
    return (
        pairs.groupBy(F.col("pair.targets").alias("item_id"))
        .agg((fixed / F.lit(float(2**FRACTION_BITS))).alias("num_events"))
        .select(F.lit(release_id).alias("release_id"), "item_id", "num_events")
    )


def _score_block(model: FrozenModel, config: ScoresConfig) -> Callable[[pa.Table], pa.Table]:
    def score(table: pa.Table) -> pa.Table:
        network, _ = model.load()
        parts = [
            score_batch(network, StateBatch(*encode_batch(network, batch)), config.num_candidates)
            for batch in block_batches(table)
        ]
        item, path, fixed, current = (np.concatenate(column) for column in zip(*parts, strict=True))
        frame = pa.table(
            {"item_id": pa.array(item, pa.int32()), "path_id": path, "score": fixed, "is_current": current}
        )
        summed = frame.group_by(["item_id", "path_id"]).aggregate([("score", "sum"), ("is_current", "max")])
        summed = summed.select(["item_id", "path_id", "score_sum", "is_current_max"])
        summed = summed.rename_columns(["item_id", "path_id", "score", "is_current"])
        if config.candidates_per_block is not None:
            summed = _best_of_block(summed, config.candidates_per_block)
        return summed

    return score


def _best_of_block(table: pa.Table, num_candidates: int) -> pa.Table:
    ordered = table.sort_by([("item_id", "ascending"), ("score", "descending"), ("path_id", "ascending")])
    item = ordered.column("item_id").to_numpy()
    starts = np.flatnonzero(np.r_[True, item[1:] != item[:-1]])
    place = np.arange(len(item)) - np.repeat(starts, np.diff(np.r_[starts, len(item)]))
    return ordered.filter(
        pa.array((place < num_candidates) | ordered.column("is_current").to_numpy(zero_copy_only=False))
    )


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

    def likelihood(table: pa.Table) -> pa.Table:
        network, _ = model.load()
        tables = [torch.from_numpy(np.array(cached_array(uri, uri))) for uri in paths_uris]
        sums = np.zeros(len(tables) + 1)
        for batch in block_batches(table):
            user_NE, target_NT, weight_NT = encode_batch(network, batch)
            for number, path_VJ in enumerate(tables):
                path_NTJ = path_VJ[target_NT.clamp_min(0)]
                nodes = decode_paths(path_NTJ, network.space).flatten(1, 2)
                with torch.inference_mode():
                    log_p = network.structure.log_prob(user_NE, nodes).view(path_NTJ.shape).logsumexp(-1)
                sums[number] += float((log_p * weight_NT).double().sum())
            sums[-1] += float(weight_NT.double().sum())
        return pa.table({"sums": pa.array([sums.tolist()], pa.list_(pa.float64()))})

    frame = read_samples(spark, workdir, samples).where(F.col("block") < max_blocks)
    rows = frame.groupBy("block").applyInArrow(likelihood, "sums array<double>").collect()
    sums = np.sum([row.sums for row in rows], axis=0)
    return [float(value / sums[-1]) for value in sums[:-1]]
