"""Approximate nearest neighbours over item vectors, from faiss: what serves a two-tower model, and what the structure is held
against on its own softmax vectors.

All of them search by inner product. The items' mean is taken off every item, which lowers all scores of a user alike: else a
common direction, such as biases far below 0, draws clusters and graphs. An item may also get one more dimension that makes
all items equally long and that users do not have (Bachrach et al., RecSys 2014): no score changes, but the longest vectors
draw no more than others do. Where lengths differ too much it crowds the short ones together; it is a matter of trial.

Shape legend: U users, V items, E dimension, N items on a short list.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from dr_core.arrays import FloatArray, IntArray
from dr_core.paths.index import build_index
from dr_core.retrieval.candidates import Candidates, gather_candidates

TRAINING_POINTS = 100_000


@dataclass(frozen=True)
class Found:
    """What a search of some width looked at.

    Attributes:
        candidates: of each user, what its answer is chosen from.
        scored: mean items a user whose vectors were scored: those on the probed lists, those met in the graph.
        multiply_adds: mean of a user's search and the exact scoring of its candidates.
    """

    candidates: Candidates
    scored: float
    multiply_adds: float


class AnnIndex(ABC):
    """An index of item vectors.

    Args:
        item_VE: float32, scored by inner product.
        lengthened: whether all items are made equally long.
    """

    name: str

    def __init__(self, item_VE: FloatArray, *, lengthened: bool = True) -> None:
        self.num_items, self.dim = item_VE.shape
        item_VE = item_VE - item_VE.mean(axis=0)
        length_V = np.linalg.norm(item_VE, axis=1).astype(np.float32)
        rest_V = np.sqrt(np.maximum(length_V.max(initial=0) ** 2 - length_V**2, 0)) * lengthened
        self.item_VE = np.ascontiguousarray(np.column_stack([item_VE, rest_V]).astype(np.float32))
        self.faiss: Any = self.build()

    @abstractmethod
    def build(self) -> Any:
        """Return the faiss index of ``item_VE``."""

    @abstractmethod
    def widths(self) -> list[int]:
        """Return widths of the search, ascending."""

    @abstractmethod
    def find(self, user_UE: FloatArray, width: int) -> Found:
        """Return what a search looks at."""

    @abstractmethod
    def set_width(self, width: int) -> None:
        """Set the width of the next searches."""

    def search(self, user_UE: FloatArray, k: int, width: int) -> IntArray:
        """Return faiss's own answer, int64 [U, k], -1 where it found fewer: what a user's time is measured on."""
        self.set_width(width)
        items: IntArray = self.faiss.search(self.longer(user_UE), k)[1]
        return items

    def longer(self, user_UE: FloatArray) -> FloatArray:
        """Return users with a 0 for the items' added dimension."""
        return np.column_stack([user_UE, np.zeros(len(user_UE), dtype=np.float32)])

    def megabytes(self) -> float:
        """Return the index's size in MB."""
        return len(faiss.serialize_index(self.faiss)) / 1e6


def _growing(most: int, factor: float = 1.25) -> list[int]:
    widths = [1]
    while widths[-1] < most:
        widths.append(min(most, max(widths[-1] + 1, round(widths[-1] * factor))))
    return widths


class IVF(AnnIndex):
    """Clusters of the items; a search scores the items of the clusters nearest to the user."""

    name = "ivf"

    def __init__(self, item_VE: FloatArray, items_per_list: int = 16, *, lengthened: bool = True) -> None:
        self.num_lists = max(2, len(item_VE) // items_per_list)
        super().__init__(item_VE, lengthened=lengthened)

    def build(self) -> Any:
        quantizer = faiss.IndexFlatIP(self.dim + 1)
        index = faiss.IndexIVFFlat(quantizer, self.dim + 1, self.num_lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.spherical = True
        index.cp.min_points_per_centroid = 1
        index.cp.max_points_per_centroid = max(TRAINING_POINTS // self.num_lists, 64)
        index.train(self.item_VE)
        index.add(self.item_VE)
        self._keep = quantizer
        self.lists = build_index(np.arange(self.num_items), quantizer.search(self.item_VE, 1)[1][:, 0])
        return index

    def widths(self) -> list[int]:
        return _growing(self.num_lists)

    def set_width(self, width: int) -> None:
        self.faiss.nprobe = width

    def find(self, user_UE: FloatArray, width: int) -> Found:
        probed_UB = self.faiss.quantizer.search(self.longer(user_UE), width)[1]
        found = gather_candidates(probed_UB, self.lists.path_ids, self.lists.offsets, self.lists.item_ids)
        scored = len(found.item_ids) / max(len(user_UE), 1)
        return Found(found, scored, (self.num_lists + scored) * self.dim)


class ShortList(AnnIndex):
    """An index whose own scores only draw a short list, which is then scored exactly."""

    def short_list(self, user_UE: FloatArray, size: int) -> Candidates:
        """Return the ``size`` items that the index finds nearest."""
        item_UN = self.faiss.search(self.longer(user_UE), min(size, self.num_items))[1]
        is_found = item_UN >= 0
        offsets = np.r_[0, np.cumsum(is_found.sum(1))].astype(np.int64)
        slots = np.broadcast_to(np.arange(item_UN.shape[1]), item_UN.shape)[is_found]
        return Candidates(offsets, item_UN[is_found].astype(np.int64), slots.astype(np.int64))


class HNSW(ShortList):
    """A graph of near items; a search walks it with ``width`` items in sight (Malkov and Yashunin, 2016)."""

    name = "hnsw"

    def __init__(self, item_VE: FloatArray, neighbours: int = 16, *, lengthened: bool = True) -> None:
        self.neighbours = neighbours
        super().__init__(item_VE, lengthened=lengthened)

    def build(self) -> Any:
        index = faiss.IndexHNSWFlat(self.dim + 1, self.neighbours, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 200
        index.add(self.item_VE)
        return index

    def widths(self) -> list[int]:
        return [width for width in _growing(self.num_items) if width >= 4]

    def set_width(self, width: int) -> None:
        self.faiss.hnsw.efSearch = width

    def find(self, user_UE: FloatArray, width: int) -> Found:
        self.set_width(width)
        counts: Any = faiss.cvar
        counts.hnsw_stats.reset()
        found = self.short_list(user_UE, width)
        scored = counts.hnsw_stats.ndis / max(len(user_UE), 1)
        return Found(found, scored, scored * self.dim)


class IVFPQ(ShortList):
    """Clusters whose items are scored by product quantisation (Jegou et al., 2011), the best of them once more exactly."""

    name = "ivf_pq"

    def __init__(
        self, item_VE: FloatArray, items_per_list: int = 32, kept: int = 4, *, lengthened: bool = True
    ) -> None:
        self.num_lists, self.kept = max(2, len(item_VE) // items_per_list), kept
        super().__init__(item_VE, lengthened=lengthened)

    def build(self) -> Any:
        quantizer = faiss.IndexFlatIP(self.dim + 1)
        self.num_parts = next(m for m in (16, 13, 11, 8, 5, 4, 3, 2, 1) if (self.dim + 1) % m == 0)
        bits = 8 if self.num_items >= 10_000 else 6
        index = faiss.IndexIVFPQ(
            quantizer, self.dim + 1, self.num_lists, self.num_parts, bits, faiss.METRIC_INNER_PRODUCT
        )
        index.cp.spherical = True
        index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1
        index.train(self.item_VE)
        index.add(self.item_VE)
        self._keep = quantizer
        lists: Any = index.invlists
        sizes = [lists.list_size(number) for number in range(self.num_lists)]
        self.sizes = np.array(sizes, dtype=np.int64)
        return index

    def widths(self) -> list[int]:
        return _growing(self.num_lists)

    def set_width(self, width: int) -> None:
        self.faiss.nprobe = width

    def find(self, user_UE: FloatArray, width: int) -> Found:
        self.set_width(width)
        probed_UB = self.faiss.quantizer.search(self.longer(user_UE), width)[1]
        scored = float(self.sizes[probed_UB].sum(1).mean()) if len(user_UE) else 0.0
        size = max(1, round(scored / self.kept))
        work = self.num_lists * self.dim + 256 * self.dim + scored * self.num_parts + size * self.dim
        return Found(self.short_list(user_UE, size), scored, work)


class LSH(ShortList):
    """Signs of random projections; the ``width`` items that differ in the fewest bits are scored exactly (Charikar, 2002)."""

    name = "lsh"

    def __init__(self, item_VE: FloatArray, bits: int = 256, *, lengthened: bool = True) -> None:
        self.bits = bits
        super().__init__(item_VE, lengthened=lengthened)

    def build(self) -> Any:
        index = faiss.IndexLSH(self.dim + 1, self.bits)
        index.add(self.item_VE)
        return index

    def widths(self) -> list[int]:
        return _growing(self.num_items)

    def set_width(self, width: int) -> None:
        """The width is the length of the short list; nothing is kept."""

    def find(self, user_UE: FloatArray, width: int) -> Found:
        found = self.short_list(user_UE, width)
        words = self.num_items * self.bits / 64
        return Found(found, float(width), self.bits * self.dim + words + width * self.dim)
