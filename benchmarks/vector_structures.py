"""Deep Retrieval over vectors for :mod:`benchmarks.retrieval`: paths from k-means, a structure model from formulas and lists.

Shape legend: V items, N training users, T targets, U users, E dimension, P paths, B paths visited.
"""

from __future__ import annotations

import copy
import time
from typing import Any

import faiss
import numpy as np
import torch

from benchmarks.vector_clusters import BUILD_THREADS, fit_clusters
from benchmarks.vector_indexes import InvertedLists, VectorIndex
from benchmarks.vector_worlds import BLOCK, World
from dr_core.arrays import FloatArray, IntArray
from dr_core.item_lists import ItemLists
from dr_core.learning.e_step import train_structure
from dr_core.learning.states import States, StateSource
from dr_core.learning.trainer import TrainingConfig
from dr_core.model.encoder import EncoderConfig
from dr_core.model.energy_structure import EnergyStructure
from dr_core.model.objective import DeepRetrievalModel
from dr_core.model.path_mapping import PathMapping
from dr_core.model.reranker import RerankerConfig
from dr_core.model.structure_config import StructureConfig
from dr_core.model.structures import PathModel
from dr_core.paths.health import measure_health
from dr_core.paths.index import build_index
from dr_core.paths.kmeans_tree import fit_kmeans_tree
from dr_core.paths.space import PathSpace
from dr_core.retrieval.from_model import compiled_structure
from dr_core.retrieval.prices import LIMIT, Offer, Prices
from dr_core.retrieval.rank import DotProductRanker
from dr_core.retrieval.router import Price, Width

BEAMS = (2, 4, 6, 8, 10, 13, 16, 20, 25, 30, 35, 40, 45, 50, 55, 60, 70, 80, 100, 130, 170, 220)
COARSE, STEPS = (1.0, 4.0, 16.0, 64.0, 256.0), (2.0, 2.0**0.5, 1.0)
"""Temperatures tried, and how far from the likeliest the next ones are."""
PRICED = 512
"""Training users on whom the prices to try are found."""
HELD_OUT = 2048


class StructureOverVectors(VectorIndex):
    """Paths, the items on them, and what leads a user there.

    Args:
        world: items and training users.
        structure: the structure model, trained.
        path_V1: int64, the path of each item.
        build_seconds: until here.
        notes: for the JSON line.
    """

    def __init__(
        self, world: World, structure: PathModel, path_V1: IntArray, build_seconds: float, notes: dict[str, Any]
    ) -> None:
        started = time.perf_counter()
        num_items, self.dim = world.item_VE.shape
        self.index = build_index(np.arange(num_items), path_V1)
        self.ranker = DotProductRanker.of(self.index, world.item_VE, np.zeros(num_items, np.float32))
        self.router = compiled_structure(structure, self.index)
        self.label = " x ".join(map(str, structure.space.nodes))
        self.build_seconds = build_seconds + time.perf_counter() - started
        arrays = (self.ranker.vector_QE, *self.ranker.rows, self.index.item_ids, self.index.offsets)
        weights = sum(weight.nbytes for weight in structure.parameters())
        self.index_mib = (sum(array.nbytes for array in arrays) + weights) / 2**20
        health = measure_health(path_V1, structure.space)
        self._notes = {"largest_path": health.largest_path, "mean_path": round(health.mean_path, 1), **notes}

    @property
    def notes(self) -> dict[str, Any]:
        return self._notes

    def search(self, user_UE: FloatArray, k: int, width: str) -> IntArray:
        path_UB = self.router.visit(user_UE, read_width(width)).path_UB
        nothing = ItemLists(np.zeros(len(user_UE) + 1, np.int64), np.zeros(0, np.int64))
        return self.ranker.rank(user_UE, path_UB, k, nothing).item_Uk

    def candidates(self, user_UE: FloatArray, width: str) -> float:
        """Return how many items a mean user's paths hold."""
        start_UB, end_UB = self.index.lookup(self.router.visit(user_UE, read_width(width)).path_UB)
        return float((end_UB - start_UB).sum(1).mean())

    def multiply_adds(self, user_UE: FloatArray, width: str) -> float:
        work_U = self.router.visit(user_UE, read_width(width)).work_U
        return float(work_U.mean()) + self.ranker.multiply_adds(self.candidates(user_UE, width))


class EnergiesOverVectors(StructureOverVectors):
    """One softmax over all paths, searched by price.

    Energies start as the tangents, at the mean training user, of the log-sums of the paths' scores times a temperature; the
    likeliest temperature counts. Some epochs on what an index finds for training users may follow.

    Args:
        world: items and training users.
        states: training users with some of their best items.
        nodes: sizes of the two layers.
        epochs: passes over the states; the best of them by those held out counts, the start included.
        seed: of the clusters and the order of users.
        list_seconds: what finding the states' items took.
    """

    method = "deep_retrieval"

    def __init__(
        self, world: World, states: States, nodes: tuple[int, int], *, epochs: int, seed: int, list_seconds: float
    ) -> None:
        started = time.perf_counter()
        space = PathSpace(nodes)
        path_V1 = clustered_paths(world.item_VE, world.train_NE, space, seed)
        kmeans_seconds = time.perf_counter() - started
        structure = EnergyStructure(StructureConfig(), space, world.item_VE.shape[1])
        temperature, likelihoods = fit_energies(structure, world.item_VE, path_V1, states, epochs, seed)
        seconds = time.perf_counter() - started
        notes = {
            "nodes": list(nodes), "temperature": round(temperature, 2), "log_likelihoods": likelihoods,
            "trained_on": len(states.user_NE), "lists_seconds": round(list_seconds, 1),
            "kmeans_seconds": round(kmeans_seconds, 1), "e_step_seconds": round(seconds - kmeans_seconds, 1),
        }  # fmt: skip
        super().__init__(world, structure, path_V1, list_seconds + seconds, notes)
        wanted_UK = states.target_NT[:PRICED].numpy()
        self._offers = Prices.of(self.router, self.index, world.train_NE[:PRICED], wanted_UK, self.dim).offers

    @property
    def sweeps(self) -> list[list[str]]:
        """At each opening worth trying, prices that find from .75 to .99 of the training users' lists."""
        return [
            [
                write_width(Price(offer.price_of(count), offer.opening, round(LIMIT * count)))
                for count in map(offer.candidates_for, np.linspace(0.75, 0.99, 25))
                if np.isfinite(count)
            ]
            for offer in self._worth_trying()
        ]

    def _worth_trying(self) -> list[Offer]:
        """Return the openings that are among the two of least work for some recall of the training users' lists."""
        kept = set()
        for recall in (0.8, 0.9, 0.95):
            work = [offer.work + self.dim * offer.candidates_for(recall) for offer in self._offers]
            kept.update(np.argsort(work)[:2].tolist())
        return [self._offers[place] for place in sorted(kept)]


class LayersOverVectors(StructureOverVectors):
    """The product of locally normalised layers, an MLP each, searched by a beam; a control.

    Args:
        world: items and training users.
        states: training users with some of their best items.
        num_nodes: K, nodes of each of the two layers.
        epochs: passes over the states.
        seed: of the clusters, the model and the order of users.
        list_seconds: what finding the states' items took.
    """

    method = "deep_retrieval_layers"

    def __init__(
        self, world: World, states: States, num_nodes: int, *, epochs: int, seed: int, list_seconds: float
    ) -> None:
        num_items, dim = world.item_VE.shape
        space, started = PathSpace.even(num_nodes, 2), time.perf_counter()
        path_V1 = clustered_paths(world.item_VE, world.train_NE, space, seed)
        kmeans_seconds = time.perf_counter() - started
        torch.set_num_threads(BUILD_THREADS)
        torch.manual_seed(seed)
        structure = StructureConfig(normaliser="layers", hidden=512, path_dim=128, path_vectors=0)
        model = DeepRetrievalModel(
            EncoderConfig(dim=dim, embedding_rows=1024), structure, RerankerConfig(), space, np.ones(num_items)
        )
        training = TrainingConfig(num_processes=1, learning_rate=3e-3)
        train_structure(model, states, path_V1, epochs=epochs, batch_states=BLOCK, training=training, seed=seed)
        seconds = time.perf_counter() - started
        notes = {
            "K": num_nodes, "D": 2, "trained_on": len(states.user_NE), "lists_seconds": round(list_seconds, 1),
            "kmeans_seconds": round(kmeans_seconds, 1), "e_step_seconds": round(seconds - kmeans_seconds, 1),
        }  # fmt: skip
        super().__init__(world, model.structure, path_V1, list_seconds + seconds, notes)

    @property
    def sweeps(self) -> list[list[str]]:
        return [[write_width(beam) for beam in BEAMS]]


def write_width(width: Width) -> str:
    """Return a width as the JSON line names it."""
    if isinstance(width, Price):
        return f"price={width.price:.4f},opening={width.opening:g},most={width.most}"
    return f"B={width}"


def read_width(text: str) -> Width:
    """Return the width of what :func:`write_width` made."""
    words = dict(word.split("=") for word in text.split(","))
    if "B" in words:
        return int(words["B"])
    return Price(float(words["price"]), float(words["opening"]), int(words["most"]))


def found_states(lists: InvertedLists, user_NE: FloatArray, num_targets: int, seed: int) -> States:
    """Return users with some of the top 200 that an index finds at a fiftieth of its lists, all of one weight."""
    faiss.omp_set_num_threads(BUILD_THREADS)
    rng, parts = np.random.default_rng(seed), []
    width = f"nprobe={max(16, lists.num_lists // 50)}"
    for start in range(0, len(user_NE), 20_000):
        item_Nk = lists.search(user_NE[start : start + 20_000], 200, width)
        picks = rng.random(item_Nk.shape).argsort(axis=1)[:, :num_targets]
        parts.append(np.take_along_axis(item_Nk, picks, axis=1))
    target_NT = np.concatenate(parts)
    weight_NT = (target_NT >= 0).astype(np.float32) / target_NT.shape[1]
    return States(*map(torch.from_numpy, (user_NE, target_NT, weight_NT)))


def clustered_paths(item_VE: FloatArray, user_NE: FloatArray, space: PathSpace, seed: int) -> IntArray:
    """Return paths int64 [V, 1]: the items' k-means clusters, as many as paths, whose centroids a balanced tree orders.

    Items are compared as users score them: after the square root of the users' second moment M, the squared distance of two
    items is their mean squared difference in score, E <x, e - e'>^2 = (e - e')' M (e - e').
    """
    values, vectors = np.linalg.eigh(user_NE.T @ user_NE / len(user_NE))
    scored_VE = item_VE @ ((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T).astype(np.float32)
    centroid_LE, nearest = fit_clusters(scored_VE, space.num_paths, seed)
    _, path_L = fit_kmeans_tree(centroid_LE, space, seed, capacity=1.0, refinement=10)
    path_V1: IntArray = path_L[nearest.search(scored_VE, 1)[1]]
    return path_V1


def fit_energies(
    structure: EnergyStructure, item_VE: FloatArray, path_V1: IntArray, states: States, epochs: int, seed: int
) -> tuple[float, list[float]]:
    """Start the energies at the likeliest temperature and train them; keep what makes the states held out likeliest.

    Returns:
        The temperature, and the log-likelihood of the held-out states at the start and after each epoch.
    """
    torch.set_num_threads(BUILD_THREADS)
    order = torch.randperm(len(states.user_NE), generator=torch.Generator().manual_seed(seed))
    size = min(HELD_OUT, len(order) // 10)
    held, kept = order[:size], order[size:]
    vectors, paths = torch.from_numpy(item_VE), torch.from_numpy(path_V1)
    placement, mean_E, no_bias_V = PathMapping(path_V1), states.user_NE.mean(0), torch.zeros(len(item_VE))

    @torch.inference_mode()
    def likelihood() -> float:
        total = sum(float(structure.loss(*_columns(states, rows), placement)) for rows in held.split(BLOCK))  # type: ignore[no-untyped-call]
        return -total / float(states.weight_NT[held].sum())

    tried: dict[float, float] = {}
    best, grid = 1.0, COARSE
    for step in STEPS:
        for temperature in grid:
            structure.start(mean_E, temperature * vectors, no_bias_V, paths)
            tried[temperature] = likelihood()
        best = max(tried, key=tried.__getitem__)
        grid = (best / step, best * step)
    structure.start(mean_E, best * vectors, no_bias_V, paths)
    likelihoods, kept_state = [tried[best]], copy.deepcopy(structure.state_dict())
    trained = States(*_columns(states, kept))
    source, optimizer = StateSource(trained, BLOCK, seed), torch.optim.Adam(structure.parameters(), lr=1e-2)
    for epoch in range(epochs):
        for batch in source.batches(epoch):
            optimizer.zero_grad()
            loss = structure.loss(batch.user_NE, batch.target_NT, batch.weight_NT, placement)
            (loss / batch.weight_NT.sum()).backward()
            optimizer.step()
        likelihoods.append(likelihood())
        if likelihoods[-1] == max(likelihoods):
            kept_state = copy.deepcopy(structure.state_dict())
    structure.load_state_dict(kept_state)
    return best, [round(value, 4) for value in likelihoods]


def _columns(states: States, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return states.user_NE[rows], states.target_NT[rows], states.weight_NT[rows]
