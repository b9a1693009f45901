"""The peers of :mod:`benchmarks.retrieval`: exact search, inverted lists, graphs and codes, each with its sweeps of widths.

Shape legend: V items, U users, E dimension, L inverted lists, k items returned.
"""

from __future__ import annotations

import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from rabitqlib import IvfIndex
from usearch.index import Index as USearchIndex

from benchmarks.vector_clusters import BUILD_THREADS, coarse_index, fit_clusters
from benchmarks.vector_worlds import World
from dr_core.arrays import FloatArray, IntArray

PROBES = (
    1,
    2,
    4,
    6,
    8,
    10,
    12,
    14,
    16,
    18,
    20,
    23,
    26,
    29,
    32,
    36,
    40,
    45,
    50,
    57,
    64,
    80,
    100,
    128,
    160,
    200,
    256,
    400,
    640,
)
EFFORTS = (200, 256, 320, 360, 400, 450, 512, 640, 800, 1024, 1400, 2000)


class VectorIndex(ABC):
    """Something that answers a block of users with k items each, more of the right ones the wider it searches."""

    method: str
    """Indexes of one method compete: at a recall, the fastest of them counts."""
    label: str
    build_seconds = 0.0
    index_mib = 0.0

    @property
    @abstractmethod
    def sweeps(self) -> list[list[str]]:
        """Widths as text, each sweep from narrow to wide."""

    @abstractmethod
    def search(self, user_UE: FloatArray, k: int, width: str) -> IntArray:
        """Return items int64 [U, k], -1 where fewer are found."""

    @abstractmethod
    def multiply_adds(self, user_UE: FloatArray, width: str) -> float | None:
        """Count the multiply-adds of a mean user's search; a looked-up part of a code counts as one. None: the library does
        not tell."""

    @property
    def notes(self) -> dict[str, Any]:
        """What else is worth knowing of how it was built."""
        return {}


class Exact(VectorIndex):
    """One matrix product and top k."""

    method = label = "exact"

    def __init__(self, world: World) -> None:
        self.items, self.index_mib = torch.from_numpy(world.item_VE), world.item_VE.nbytes / 2**20

    @property
    def sweeps(self) -> list[list[str]]:
        return [["all"]]

    def search(self, user_UE: FloatArray, k: int, width: str) -> IntArray:
        return (torch.from_numpy(user_UE) @ self.items.T).topk(k).indices.numpy()

    def multiply_adds(self, user_UE: FloatArray, width: str) -> float:
        return float(self.items.numel())


class Centroids:
    """The k-means centroids that all inverted lists of one number share, each index on its own copy."""

    def __init__(self, world: World) -> None:
        self.item_VE = world.item_VE
        self.of = cache(self._fit)

    def _fit(self, num_lists: int) -> tuple[FloatArray, Any, float]:
        """Return centroids float32 [L, E], an index that finds the nearest of them, and the seconds that it took."""
        started = time.perf_counter()
        return *fit_clusters(self.item_VE, num_lists, seed=0), time.perf_counter() - started


def num_lists(num_items: int) -> int:
    """Return the inverted lists of an index with a flat coarse quantiser; with a graph there are four times as many."""
    return 4096 if num_items >= 1_000_000 else max(int(2 * num_items**0.5) // 64 * 64, 64)


class InvertedLists(VectorIndex):
    """A faiss index of inverted lists, with or without codes and exact refinement.

    An item is on the list of the centroid that is nearest to it; a user probes the lists whose centroids score highest.

    Args:
        method: as in the JSON line.
        factory: of faiss, after ``IVF<L>,``.
        graph: whether a graph over four times as many centroids finds the lists, rather than a scan.
        code_work: steps of scoring one code, by default E.
        refinements: how many times k items are scored again exactly; none by default.
    """

    def __init__(
        self, method: str, world: World, centroids: Centroids, factory: str, *, graph: bool = False,
        code_work: int | None = None, refinements: tuple[int, ...] = (),
    ) -> None:  # fmt: skip
        num_items, self.dim = world.item_VE.shape
        self.num_lists = num_lists(num_items) * (4 if graph else 1)
        self.method, self.label = method, f"IVF{self.num_lists}{'_HNSW32' if graph else ''},{factory}"
        self.graph, self.code_work, self.refinements = graph, code_work or self.dim, refinements
        centroid_LE, self._nearest, seconds = centroids.of(self.num_lists)
        faiss.omp_set_num_threads(BUILD_THREADS)
        started = time.perf_counter()
        self.index: Any = faiss.index_factory(self.dim, f"IVF{self.num_lists},{factory}", faiss.METRIC_INNER_PRODUCT)
        self.ivf: Any = faiss.extract_index_ivf(self.index)
        self.ivf.own_fields = False
        self._best = coarse_index(centroid_LE, faiss.METRIC_INNER_PRODUCT, graph)
        self.ivf.quantizer = self._nearest
        self.index.train(world.item_VE[np.random.default_rng(0).permutation(num_items)[:200_000]])
        self.index.add(world.item_VE)
        self.ivf.quantizer = self._best
        self.build_seconds = seconds + time.perf_counter() - started
        self.index_mib = len(faiss.serialize_index(self.index)) / 2**20
        self.size_L = np.array([self.ivf.invlists.list_size(number) for number in range(self.num_lists)])
        self._space = faiss.ParameterSpace()

    @property
    def sweeps(self) -> list[list[str]]:
        probes = [probe for probe in PROBES if probe <= self.num_lists]
        if not self.refinements:
            return [[f"nprobe={probe}" for probe in probes]]
        return [[f"nprobe={probe},k_factor_rf={factor}" for probe in probes] for factor in self.refinements]

    def search(self, user_UE: FloatArray, k: int, width: str) -> IntArray:
        self._space.set_index_parameters(self.index, width)
        found: IntArray = self.index.search(user_UE, k)[1]
        return found

    def multiply_adds(self, user_UE: FloatArray, width: str) -> float:
        words = dict(word.split("=") for word in width.split(","))
        faiss.cvar.hnsw_stats.reset()
        probed_UB = self.ivf.quantizer.search(user_UE, int(words["nprobe"]))[1]
        routed = faiss.cvar.hnsw_stats.ndis / len(user_UE) if self.graph else self.num_lists
        scanned = self.size_L[probed_UB].sum(1).mean()
        refined = int(words.get("k_factor_rf", 0)) * 200
        return float((routed + refined) * self.dim + scanned * self.code_work)

    def list_of_items(self) -> IntArray:
        """Return the list that each item is on, int64 [V]."""
        list_V = np.empty(self.ivf.ntotal, dtype=np.int64)
        for number, size in enumerate(self.size_L):
            list_V[faiss.rev_swig_ptr(self.ivf.invlists.get_ids(number), int(size))] = number
        return list_V


class FaissGraph(VectorIndex):
    """A graph of near items (Malkov and Yashunin, 2016) as faiss builds it."""

    method, label = "hnsw", "HNSW32,Flat"

    def __init__(self, world: World) -> None:
        faiss.omp_set_num_threads(BUILD_THREADS)
        started = time.perf_counter()
        self.dim = world.item_VE.shape[1]
        self.index: Any = faiss.IndexHNSWFlat(self.dim, 32, faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = 128
        self.index.add(world.item_VE)
        self.build_seconds = time.perf_counter() - started
        self.index_mib = len(faiss.serialize_index(self.index)) / 2**20

    @property
    def sweeps(self) -> list[list[str]]:
        return [[f"efSearch={effort}" for effort in EFFORTS]]

    def search(self, user_UE: FloatArray, k: int, width: str) -> IntArray:
        self.index.hnsw.efSearch = int(width.removeprefix("efSearch="))
        found: IntArray = self.index.search(user_UE, k)[1]
        return found

    def multiply_adds(self, user_UE: FloatArray, width: str) -> float:
        faiss.cvar.hnsw_stats.reset()
        self.search(user_UE, 1, width)
        return float(faiss.cvar.hnsw_stats.ndis * self.dim / len(user_UE))


class USearchGraph(VectorIndex):
    """The same kind of graph as usearch builds it."""

    method, label = "usearch", "HNSW, connectivity 32"

    def __init__(self, world: World) -> None:
        started = time.perf_counter()
        self.dim = world.item_VE.shape[1]
        self.index = USearchIndex(ndim=self.dim, metric="ip", dtype="f32", connectivity=32, expansion_add=128)
        self.index.add(np.arange(len(world.item_VE)), world.item_VE, threads=BUILD_THREADS)
        self.build_seconds = time.perf_counter() - started
        self.index_mib = self.index.memory_usage / 2**20

    @property
    def sweeps(self) -> list[list[str]]:
        return [[f"expansion={effort}" for effort in EFFORTS]]

    def search(self, user_UE: FloatArray, k: int, width: str) -> IntArray:
        return np.asarray(self._found(user_UE, k, width).keys, dtype=np.int64).reshape(len(user_UE), k)

    def multiply_adds(self, user_UE: FloatArray, width: str) -> float:
        return float(self._found(user_UE, 1, width).computed_distances * self.dim / len(user_UE))

    def _found(self, user_UE: FloatArray, k: int, width: str) -> Any:
        self.index.expansion_search = int(width.removeprefix("expansion="))
        return self.index.search(user_UE, k, threads=1)


class RaBitQ(VectorIndex):
    """Inverted lists of RaBitQ codes of eight bits a dimension, whose first bits choose what is scored with the others (Gao et
    al., SIGMOD 2025), as its authors' library builds it."""

    method = "rabitq"

    def __init__(self, world: World, centroids: Centroids, *, bits: int = 8) -> None:
        num_items, dim = world.item_VE.shape
        self.num_lists = num_lists(num_items)
        self.label = f"IVF{self.num_lists}, {bits} bits"
        centroid_LE, nearest, seconds = centroids.of(self.num_lists)
        faiss.omp_set_num_threads(BUILD_THREADS)
        started = time.perf_counter()
        list_V = nearest.search(world.item_VE, 1)[1][:, 0].astype(np.uint32)
        self.index = IvfIndex(dim, num_items, self.num_lists, bits, metric="ip", initializer="flat")
        self.index.build(world.item_VE, centroid_LE, list_V, num_threads=BUILD_THREADS)
        self.build_seconds = seconds + time.perf_counter() - started
        with tempfile.TemporaryDirectory() as folder:
            self.index.save(f"{folder}/index")
            self.index_mib = Path(folder, "index").stat().st_size / 2**20

    @property
    def sweeps(self) -> list[list[str]]:
        return [[f"nprobe={probe}" for probe in PROBES if probe <= self.num_lists]]

    def search(self, user_UE: FloatArray, k: int, width: str) -> IntArray:
        found = self.index.search(user_UE, k, int(width.removeprefix("nprobe=")), num_threads=1)[0]
        return found.astype(np.int64)

    def multiply_adds(self, user_UE: FloatArray, width: str) -> None:
        """Return None: how many items need more than their first bits is not told."""


def peers(
    world: World, centroids: Centroids, routed: Callable[[InvertedLists], VectorIndex]
) -> dict[str, Callable[[], list[VectorIndex]]]:
    """Return how to build each method's indexes; ``routed`` adds learned routing to an index of plain vectors."""
    halves = world.item_VE.shape[1] // 2

    def lists(method: str, factory: str, **options: Any) -> list[VectorIndex]:
        return [InvertedLists(method, world, centroids, factory, graph=graph, **options) for graph in (False, True)]

    return {
        "exact": lambda: [Exact(world)],
        "ivf_flat": lambda: lists("ivf_flat", "Flat"),
        "ivf_sq8": lambda: lists("ivf_sq8", "SQ8"),
        "ivf_pq": lambda: lists("ivf_pq", f"PQ{halves}x4fs,RFlat", code_work=halves, refinements=(2, 4, 6, 8, 12)),
        "ivf_learned": lambda: [routed(InvertedLists("ivf_flat", world, centroids, "Flat"))],
        "rabitq": lambda: [RaBitQ(world, centroids)],
        "hnsw": lambda: [FaissGraph(world)],
        "usearch": lambda: [USearchGraph(world)],
    }
