"""Deep Retrieval over vectors for :mod:`benchmarks.retrieval`: paths from k-means, a structure model from formulas and lists.

Shape legend: V items, N training users, T targets, U users, E dimension, P paths.
"""

from __future__ import annotations

import time
from typing import Any

import faiss
import numpy as np
import torch

from benchmarks.vector_indexes import BUILD_THREADS, InvertedLists, VectorIndex
from benchmarks.vector_worlds import BLOCK, World
from dr_core.arrays import FloatArray, IntArray
from dr_core.item_lists import ItemLists
from dr_core.learning.e_step import train_structure
from dr_core.learning.states import States
from dr_core.learning.trainer import TrainingConfig
from dr_core.model.encoder import EncoderConfig
from dr_core.model.objective import DeepRetrievalModel
from dr_core.model.path_structure import StructureConfig
from dr_core.model.reranker import RerankerConfig
from dr_core.paths.health import measure_health
from dr_core.paths.index import PathIndex, build_index
from dr_core.paths.kmeans_tree import fit_kmeans_tree
from dr_core.paths.space import PathSpace
from dr_core.retrieval.from_model import compiled_structure
from dr_core.retrieval.rank import DotProductRanker

BEAMS = (2, 4, 6, 8, 10, 13, 16, 20, 25, 30, 35, 40, 45, 50, 55, 60, 70, 80, 100, 130, 170, 220)


class LayersOverVectors(VectorIndex):
    """The product of locally normalised layers, searched by a beam.

    Paths are k-means clusters of the items, numbered by a balanced tree over their centroids. The model learns from some of
    the items that an index of inverted lists finds for training users.

    Args:
        world: items and training users.
        lists: the index; finding the training users' lists counts as built with it.
        items_per_path: mean length of a path.
        targets: items of a training user's list.
        epochs: passes over the training users.
        seed: of the clusters, the model and the order of users.
    """

    method = "deep_retrieval_layers"

    def __init__(
        self, world: World, lists: InvertedLists, *, items_per_path: int, targets: int, epochs: int, seed: int
    ) -> None:
        num_items, dim = world.item_VE.shape
        space = PathSpace.even(max(round((num_items / items_per_path) ** 0.5), 4), 2)
        self.label = f"{space.num_nodes} x {space.num_nodes}"
        seconds, started = {}, time.perf_counter()
        target_NT = found_lists(lists, world.train_NE, targets, seed)
        seconds["lists"] = time.perf_counter() - started
        paths = clustered_paths(world.item_VE, space, seed)
        seconds["kmeans"] = time.perf_counter() - started - seconds["lists"]
        torch.set_num_threads(BUILD_THREADS)
        torch.manual_seed(seed)
        structure = StructureConfig(hidden=512, path_dim=128, path_vectors=0)
        model = DeepRetrievalModel(
            EncoderConfig(dim=dim, embedding_rows=1024), structure, RerankerConfig(), space, np.ones(num_items)
        )
        weight_NT = torch.from_numpy((target_NT >= 0).astype(np.float32))
        states = States(torch.from_numpy(world.train_NE), torch.from_numpy(target_NT), weight_NT)
        training = TrainingConfig(num_processes=1, learning_rate=3e-3)
        train_structure(model, states, paths, epochs=epochs, batch_states=BLOCK, training=training, seed=seed)
        self.build_seconds = lists.build_seconds + time.perf_counter() - started
        seconds["e_step"] = self.build_seconds - lists.build_seconds - seconds["lists"] - seconds["kmeans"]
        self.index = build_index(np.arange(num_items), paths)
        self.ranker = DotProductRanker.of(self.index, world.item_VE, np.zeros(num_items, np.float32))
        self.router = compiled_structure(model.structure, self.index.log_sizes(space.num_paths))
        self.index_mib = mebibytes(self.ranker, self.index)
        health = measure_health(paths, space)
        self._notes = {
            "K": space.num_nodes, "D": 2, "largest_path": health.largest_path, "mean_path": round(health.mean_path, 1),
            "trained_on": len(target_NT), **{f"{name}_seconds": round(value, 1) for name, value in seconds.items()},
        }  # fmt: skip

    @property
    def sweeps(self) -> list[list[str]]:
        return [[f"B={beam}" for beam in BEAMS]]

    @property
    def notes(self) -> dict[str, Any]:
        return self._notes

    def search(self, user_UE: FloatArray, k: int, width: str) -> IntArray:
        path_UB = self.router.visit(user_UE, int(width.removeprefix("B="))).path_UB
        return self.ranker.rank(user_UE, path_UB, k, no_items(len(user_UE))).item_Uk

    def multiply_adds(self, user_UE: FloatArray, width: str) -> float:
        beam = int(width.removeprefix("B="))
        start_UB, end_UB = self.index.lookup(self.router.visit(user_UE, beam).path_UB)
        scanned = float((end_UB - start_UB).sum(1).mean())
        return self.router.multiply_adds(beam) + self.ranker.multiply_adds(scanned)


def no_items(num_users: int) -> ItemLists:
    """Return nothing to leave out."""
    return ItemLists(np.zeros(num_users + 1, dtype=np.int64), np.zeros(0, dtype=np.int64))


def mebibytes(ranker: DotProductRanker, index: PathIndex) -> float:
    """Return what a search holds in memory, the structure model left out."""
    arrays = (ranker.vector_VE, *ranker.rows, index.item_ids, index.offsets)
    return sum(array.nbytes for array in arrays) / 2**20


def found_lists(lists: InvertedLists, user_NE: FloatArray, num_targets: int, seed: int) -> IntArray:
    """Return, for every user, some of the top 200 that an index finds, int64 [N, T], -1 where it finds fewer."""
    faiss.omp_set_num_threads(BUILD_THREADS)
    rng, parts = np.random.default_rng(seed), []
    for start in range(0, len(user_NE), 20_000):
        item_Nk = lists.search(user_NE[start : start + 20_000], 200, f"nprobe={min(16, lists.num_lists)}")
        picks = rng.random(item_Nk.shape).argsort(axis=1)[:, :num_targets]
        parts.append(np.take_along_axis(item_Nk, picks, axis=1))
    return np.concatenate(parts)


def clustered_paths(item_VE: FloatArray, space: PathSpace, seed: int) -> IntArray:
    """Return paths int64 [V, 1]: the items' k-means clusters, as many as paths, whose centroids a balanced tree orders."""
    faiss.omp_set_num_threads(BUILD_THREADS)
    clusters = faiss.Kmeans(item_VE.shape[1], space.num_paths, niter=10, max_points_per_centroid=64, seed=seed)
    clusters.train(item_VE)
    _, path_C = fit_kmeans_tree(clusters.centroids, space, seed, capacity=1.0, refinement=10)
    path_V1: IntArray = path_C[clusters.index.search(item_VE, 1)[1]]
    return path_V1
