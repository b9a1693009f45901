"""pi_0: where the structure starts, at random or from the item vectors of the warmed-up softmax."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dr_core.paths.initialization import KMeansTree, fit_kmeans_tree, random_paths
from dr_core.paths.space import PathSpace
from dr_core.training.checkpoint import load_model
from pipelines.inference import cached_model
from pipelines.tables import Workdir

ASSIGN_SCHEMA = "item_id int, path_ids array<bigint>"


def initialize_paths(
    spark: SparkSession,
    workdir: Workdir,
    *,
    model_id: str,
    release_id: str,
    space: PathSpace,
    num_paths: int,
    start: str,
    capacity: float,
    sample: int,
    seed: int,
) -> None:
    """Write ``item_paths`` of ``release_id`` with the first paths of every item.

    With up to ``sample`` items the balanced tree holds them all; beyond, it is learned on a sample and Spark assigns
    every item to its nearest leaves.
    """
    model = load_model(workdir.filesystem, workdir.path("models", model_id))
    num_items = model.num_items
    if start == "random":
        paths = random_paths(num_items, num_paths, space, seed)
        write_paths(spark, workdir, paths, release_id)
        return
    vectors = model.reranker.item_vectors()[0].detach().numpy()
    if num_items <= sample:
        tree, leaves = fit_kmeans_tree(vectors, space, seed, capacity=capacity)
        write_paths(spark, workdir, tree.assign(vectors, num_paths, first_paths=leaves), release_id)
        return
    chosen = np.sort(np.random.default_rng(seed).choice(num_items, sample, replace=False))
    tree, _ = fit_kmeans_tree(vectors[chosen], space, seed, capacity=capacity)
    frame = assign_on_spark(spark, workdir.path("models", model_id), num_items, tree, num_paths)
    _write(frame.select("item_id", F.posexplode("path_ids").alias("rank", "path_id")), workdir, release_id)


def assign_on_spark(
    spark: SparkSession, model_uri: str, num_items: int, tree: KMeansTree, num_paths: int
) -> DataFrame:
    """Return (item_id, path_ids) with every item's nearest leaves; each row depends on its own vector alone."""

    def assign(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        vectors = cached_model(model_uri, "").reranker.item_vectors()[0].numpy()
        for batch in batches:
            items = batch.column(0).to_numpy()
            paths = tree.assign(vectors[items], num_paths, item_ids=items.astype(np.int64))
            yield pa.RecordBatch.from_arrays(
                [pa.array(items, pa.int32()), pa.array(list(paths), pa.list_(pa.int64()))], ["item_id", "path_ids"]
            )

    return spark.range(num_items).select(F.col("id").cast("int").alias("item_id")).mapInArrow(assign, ASSIGN_SCHEMA)


def write_paths(spark: SparkSession, workdir: Workdir, path_VJ: npt.NDArray[np.int64], release_id: str) -> None:
    """Write a mapping held in memory as ``item_paths`` of a release."""
    num_items, num_paths = path_VJ.shape
    table = pa.table(
        {
            "item_id": pa.array(np.repeat(np.arange(num_items), num_paths), pa.int32()),
            "rank": pa.array(np.tile(np.arange(num_paths), num_items), pa.int32()),
            "path_id": pa.array(path_VJ.ravel(), pa.int64()),
        }
    )
    _write(spark.createDataFrame(table), workdir, release_id)


def _write(rows: DataFrame, workdir: Workdir, release_id: str) -> None:
    columns = [F.lit(release_id).alias("release_id"), "item_id", "rank", "path_id", F.lit(0.0).alias("gain")]
    workdir.write_release(rows.select(*columns), "item_paths", release_id)


def read_paths(spark: SparkSession, workdir: Workdir, release_id: str) -> npt.NDArray[np.int64]:
    """Return a release's mapping, int64 [V, J], rows in order of item_id."""
    rows = workdir.read_release(spark, "item_paths", release_id).select("item_id", "rank", "path_id").toPandas()
    num_items, num_paths = int(rows["item_id"].max()) + 1, int(rows["rank"].max()) + 1
    paths = np.full((num_items, num_paths), -1, dtype=np.int64)
    paths[rows["item_id"].to_numpy(), rows["rank"].to_numpy()] = rows["path_id"].to_numpy()
    return paths
