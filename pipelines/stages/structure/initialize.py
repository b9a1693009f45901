"""pi_0: where the structure starts, at random or from the items' profiles under the warmed-up softmax."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from scipy.sparse import csr_matrix
from torch import Tensor

from dr_core.learning.checkpoint import load_model
from dr_core.learning.profiles import item_profiles
from dr_core.model.objective import DeepRetrievalModel, batch_from_arrays
from dr_core.paths.kmeans_tree import KMeansTree, fit_kmeans_tree, random_paths
from dr_core.paths.refinement import captured_mass
from dr_core.paths.space import PathSpace
from pipelines.config import PathsConfig
from pipelines.spark.worker_cache import cached_array
from pipelines.stages.blocks import encode_batch
from pipelines.stages.training.petastorm import read_files
from pipelines.storage.item_paths import _write, write_paths
from pipelines.storage.workdir import Workdir

COMPARED_STATES = 1024
SPREAD = 8
"""States looked through for one that is taken."""
MASS_ITEMS = 4096
"""Items a state whose mass counts."""
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
    chosen = np.sort(np.random.default_rng(seed).choice(num_items, config.kmeans_sample, replace=False))
    tree, _ = _fit(vectors[chosen], space, seed, config)
    uri = workdir.write_array(vectors, "models", model_id, "item_profiles.npy")
    frame = assign_on_spark(spark, uri, num_items, tree, num_paths)
    _write(frame.select("item_id", F.posexplode("path_ids").alias("rank", "path_id")), workdir, release_id)


def sample_states(workdir: Workdir, samples: str, model: DeepRetrievalModel, num_states: int) -> Tensor:
    """Return up to ``num_states`` user states [N, E] of the samples, read file by file in their order (that of a hash)."""
    states: list[Tensor] = []
    for columns in read_files(workdir.filesystem, workdir.table(samples)):
        states.append(encode_batch(model, batch_from_arrays(columns))[0])
        if sum(len(part) for part in states) >= SPREAD * num_states:
            break
    return spread(torch.cat(states), num_states)


def spread(user_NE: Tensor, num_states: int) -> Tensor:
    """Return ``num_states`` of the first ``SPREAD`` times as many states, in their order: few of each user, since one user's
    states resemble each other."""
    first = user_NE[: SPREAD * num_states]
    drawn = torch.randperm(len(first), generator=torch.Generator().manual_seed(0))[:num_states]
    return first[drawn.sort().values]


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
    budgets: Sequence[float],
) -> npt.NDArray[np.int64]:
    """Return the leaf of every item in the best of several balanced trees, then its J - 1 nearest other leaves.

    Args:
        user_NE: states on which the trees are compared, by the softmax's mass on the paths visited for
            ``budgets`` items (:func:`dr_core.paths.refinement.captured_mass`).

    Returns:
        int64 [V, J].
    """
    mass_NV = softmax_mass(model, spread(user_NE, COMPARED_STATES))
    best: tuple[float, KMeansTree, npt.NDArray[np.int64]] | None = None
    for restart in range(config.kmeans_restarts):
        tree, leaves = _fit(vectors, space, seed + restart * 1_000_003, config)
        captured = captured_mass(mass_NV, leaves, space.num_paths, budgets)
        if best is None or captured > best[0]:
            best = captured, tree, leaves
    if best is None:
        raise ValueError("kmeans_restarts must be at least 1")
    return best[1].assign(vectors, num_paths, first_paths=best[2])


@torch.inference_mode()
def softmax_mass(model: DeepRetrievalModel, user_NE: Tensor) -> csr_matrix:
    """Return each state's softmax mass on its best items, float32 [N, V], sparse."""
    top = min(MASS_ITEMS, model.num_items)
    masses, items = [], []
    for start in range(0, len(user_NE), 256):
        best = torch.softmax(model.reranker.score_all(user_NE[start : start + 256]), dim=1).topk(top, dim=1)
        masses.append(best.values.numpy().ravel())
        items.append(best.indices.numpy().ravel().astype(np.int32))
    offsets = np.arange(len(user_NE) + 1) * top
    return csr_matrix((np.concatenate(masses), np.concatenate(items), offsets), (len(user_NE), model.num_items))


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
