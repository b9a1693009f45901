"""pi_0: where the structure starts, at random or from the items' profiles under the warmed-up softmax."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dr_core.learning.checkpoint import load_model
from dr_core.learning.config import PathsConfig
from dr_core.learning.start import kmeans_paths, sampled_tree, starting_vectors
from dr_core.paths.kmeans_tree import KMeansTree, random_paths
from dr_core.paths.space import PathSpace
from pipelines.spark.worker_cache import cached_array, file_identity
from pipelines.stages.training.states import sample_states
from pipelines.storage.item_paths import _write, write_paths
from pipelines.storage.workdir import Workdir

ASSIGN_SCHEMA = "item_id int, path_ids array<bigint>"


def initialize_paths(
    spark: SparkSession,
    workdir: Workdir,
    *,
    model_id: str,
    samples: str,
    release_id: str,
    space: PathSpace,
    config: PathsConfig,
    budgets: Sequence[float],
    seed: int,
) -> None:
    """Write ``item_paths`` of ``release_id`` with the first paths of every item.

    With up to ``config.kmeans_sample`` items the balanced tree holds them all; beyond, it is learned on a sample and
    Spark assigns every item to its nearest leaves.
    """
    model = load_model(workdir.filesystem, workdir.path("models", model_id))
    num_items, num_paths = model.num_items, config.paths_per_item
    if config.start == "random":
        write_paths(spark, workdir, random_paths(num_items, num_paths, space, seed), release_id)
        return
    user_NE = sample_states(workdir, samples, model, config.profile_states)
    vectors = starting_vectors(model, user_NE, config, seed)
    if num_items <= config.kmeans_sample:
        paths = kmeans_paths(model, user_NE, vectors, space, num_paths, config, seed, budgets=budgets)
        write_paths(spark, workdir, paths, release_id)
        return
    tree = sampled_tree(vectors, space, config, seed)
    uri = workdir.write_array(vectors, "models", model_id, "item_profiles.npy")
    frame = assign_on_spark(spark, uri, num_items, tree, num_paths)
    _write(frame.select("item_id", F.posexplode("path_ids").alias("rank", "path_id")), workdir, release_id)


def assign_on_spark(
    spark: SparkSession, vectors_uri: str, num_items: int, tree: KMeansTree, num_paths: int
) -> DataFrame:
    """Return (item_id, path_ids) with every item's nearest leaves; each row depends on its own vector alone."""

    identity = file_identity(vectors_uri)

    def assign(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        vectors = cached_array(vectors_uri, identity)
        for batch in batches:
            items = batch.column(0).to_numpy()
            paths = tree.assign(vectors[items], num_paths, item_ids=items.astype(np.int64))
            yield pa.RecordBatch.from_arrays(
                [pa.array(items, pa.int32()), pa.array(list(paths), pa.list_(pa.int64()))], ["item_id", "path_ids"]
            )

    return spark.range(num_items).select(F.col("id").cast("int").alias("item_id")).mapInArrow(assign, ASSIGN_SCHEMA)
