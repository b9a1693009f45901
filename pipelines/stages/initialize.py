"""pi_0: where the structure starts, at random or from the items' profiles under the warmed-up softmax."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from torch import Tensor

from dr_core.model.item_profiles import item_profiles
from dr_core.model.objective import DeepRetrievalModel, batch_from_arrays
from dr_core.paths.initialization import KMeansTree, fit_kmeans_tree, random_paths
from dr_core.paths.space import PathSpace
from dr_core.training.checkpoint import load_model
from pipelines.config import PathsConfig
from pipelines.inference import cached_array, encode_batch
from pipelines.reader import read_files
from pipelines.tables import Workdir

COMPARED_STATES = 1024
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
    candidates: float,
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
        paths = kmeans_paths(model, user_NE, vectors, space, num_paths, config, seed, candidates=candidates)
        write_paths(spark, workdir, paths, release_id)
        return
    chosen = np.sort(np.random.default_rng(seed).choice(num_items, config.kmeans_sample, replace=False))
    tree, _ = _fit(vectors[chosen], space, seed, config)
    uri = workdir.write_array(vectors, "models", model_id, "item_profiles.npy")
    frame = assign_on_spark(spark, uri, num_items, tree, num_paths)
    _write(frame.select("item_id", F.posexplode("path_ids").alias("rank", "path_id")), workdir, release_id)


def sample_states(workdir: Workdir, samples: str, model: DeepRetrievalModel, num_states: int) -> Tensor:
    """Return up to ``num_states`` user states [N, E] of the samples: whole files, in their order (that of a hash)."""
    states: list[Tensor] = []
    for columns in read_files(workdir.filesystem, workdir.table(samples)):
        states.append(encode_batch(model, batch_from_arrays(columns))[0])
        if sum(len(part) for part in states) >= num_states:
            break
    return torch.cat(states)[:num_states]


def starting_vectors(
    model: DeepRetrievalModel, user_NE: Tensor, config: PathsConfig, seed: int
) -> npt.NDArray[np.float32]:
    """Return what k-means clusters: the items' profiles under a sample of user states."""
    return item_profiles(
        model.reranker,
        user_NE,
        num_dimensions=config.profile_dimensions,
        popularity_weight=config.popularity_weight,
        seed=seed,
    )


def kmeans_paths(
    model: DeepRetrievalModel,
    user_NE: Tensor,
    vectors: npt.NDArray[np.float32],
    space: PathSpace,
    num_paths: int,
    config: PathsConfig,
    seed: int,
    *,
    candidates: float,
) -> npt.NDArray[np.int64]:
    """Return the leaf of every item in the best of several balanced trees, then its J - 1 nearest other leaves.

    Args:
        user_NE: states on which the trees are compared, by :func:`captured_mass` at ``candidates`` items.

    Returns:
        int64 [V, J].
    """
    best, best_mass = None, -1.0
    for restart in range(config.kmeans_restarts):
        tree, leaves = _fit(vectors, space, seed + restart * 1_000_003, config)
        paths = tree.assign(vectors, num_paths, first_paths=leaves)
        mass = captured_mass(model, user_NE[:COMPARED_STATES], paths, candidates) if config.kmeans_restarts > 1 else 0.0
        if mass > best_mass:
            best, best_mass = paths, mass
    if best is None:
        raise ValueError("kmeans_restarts must be at least 1")
    return best


@torch.inference_mode()
def captured_mass(
    model: DeepRetrievalModel, user_NE: Tensor, path_VJ: npt.NDArray[np.int64], candidates: float
) -> float:
    """Return the mean softmax mass on a state's best paths, visited until they hold ``candidates`` items.

    The best a perfect p(c|x) could do with this mapping: it compares mappings without training anything.
    """
    occupied, place = np.unique(path_VJ, return_inverse=True)
    place_W = torch.from_numpy(place.reshape(-1))
    item_W = torch.arange(len(path_VJ)).repeat_interleave(path_VJ.shape[1])
    size_P = torch.bincount(place_W, minlength=len(occupied)).float()
    total = 0.0
    for start in range(0, len(user_NE), 256):
        mass_NV = torch.softmax(model.reranker.score_all(user_NE[start : start + 256]), dim=1)
        mass_NP = torch.zeros(len(mass_NV), len(occupied)).index_add_(1, place_W, mass_NV[:, item_W])
        best = mass_NP.sort(dim=1, descending=True)
        before_NP = size_P[best.indices].cumsum(1) - size_P[best.indices]
        total += float((best.values * (before_NP < candidates)).sum())
    return total / len(user_NE)


def _fit(
    vectors: npt.NDArray[np.float32], space: PathSpace, seed: int, config: PathsConfig
) -> tuple[KMeansTree, npt.NDArray[np.int64]]:
    return fit_kmeans_tree(vectors, space, seed, capacity=config.kmeans_capacity, refinement=config.kmeans_refinement)


def assign_on_spark(
    spark: SparkSession, vectors_uri: str, num_items: int, tree: KMeansTree, num_paths: int
) -> DataFrame:
    """Return (item_id, path_ids) with every item's nearest leaves; each row depends on its own vector alone."""

    def assign(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        vectors = cached_array(vectors_uri, vectors_uri)
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
