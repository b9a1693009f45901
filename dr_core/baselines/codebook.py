"""One codebook of clusters that a stream of vectors keeps moving, and the clusters' items merged by their bias.

Bin et al., *Real-time Indexing for Large-scale Recommendation by Streaming Vector Quantization Retriever* (KDD 2025): moving
averages in which a vector weighs the interval between its item's occurrences, starved clusters that seem nearer than they are,
and a merge of the clusters' lists at <user, cluster> + bias.

Shape legend: U users, K clusters, V items, I listed items, N candidates a user, C vectors of a batch, E dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from torch import Tensor

from dr_core._heap import rise, sink
from dr_core.arrays import FloatArray, IntArray
from dr_core.retrieval.candidates import Candidates


@dataclass
class Codebook:
    """Clusters as moving averages.

    Attributes:
        vector_KE: float32, w_k / c_k of the paper: the weighted mean of what a cluster was given.
        weight_K: float64, c_k: the moving average of the weight that it was given.
        momentum: share of an average that a batch leaves.
        starved: s; a cluster with less than 1 / s of the mean weight draws from further away. None: no cluster does.
    """

    vector_KE: Tensor
    weight_K: Tensor
    momentum: float
    starved: float | None

    def assign(self, vector_CE: Tensor) -> Tensor:
        """Return the cluster of each vector, int64 [C]: argmin of ||e_k - v||^2 r_k, r_k = min(s c_k / mean c, 1)."""
        square_C1 = (vector_CE**2).sum(1, keepdim=True)
        square_CK = square_C1 - 2 * vector_CE @ self.vector_KE.T + (self.vector_KE**2).sum(1)
        code_C: Tensor = (square_CK.clamp_min(0) * self._discount()).argmin(1)
        return code_C

    def observe(self, vector_CE: Tensor, code_C: Tensor, weight_C: Tensor) -> None:
        """Move every cluster towards the vectors that it was given.

        w_k <- a w_k + (1 - a) sum of weight x vector, c_k <- a c_k + (1 - a) sum of weights; a cluster that was given
        nothing stays where it is and loses weight.

        Args:
            weight_C: float64, what each vector counts.
        """
        kept_K = self.momentum * self.weight_K
        given_C = (1 - self.momentum) * weight_C
        total_K = kept_K.index_add(0, code_C, given_C)
        is_given_K = torch.bincount(code_C, minlength=len(kept_K)) > 0
        moved_KE = (kept_K[:, None] * self.vector_KE).index_add(0, code_C, given_C[:, None] * vector_CE.double())
        moved_KE /= total_K[:, None].clamp_min(torch.finfo(torch.float64).tiny)
        self.vector_KE = torch.where(is_given_K[:, None], moved_KE.float(), self.vector_KE)
        self.weight_K = total_K

    def _discount(self) -> Tensor:
        if self.starved is None:
            return self.vector_KE.new_ones(len(self.weight_K))
        return (self.starved * self.weight_K / self.weight_K.mean()).clamp_max(1).float()


@dataclass(frozen=True)
class ClusterLists:
    """The items of every cluster, the highest bias first.

    Attributes:
        offsets: int64 [K + 1].
        item_ids: int64 [I].
        bias_I: float32, of the items as they are listed.
    """

    offsets: IntArray
    item_ids: IntArray
    bias_I: FloatArray

    @classmethod
    def build(cls, item_ids: IntArray, code_I: IntArray, bias_I: FloatArray, num_clusters: int) -> ClusterLists:
        """List items by cluster; equal biases by item id."""
        order = np.lexsort((item_ids, -bias_I, code_I))
        offsets = np.r_[0, np.cumsum(np.bincount(code_I, minlength=num_clusters))].astype(np.int64)
        return cls(offsets, item_ids[order].astype(np.int64), bias_I[order].astype(np.float32))

    def merge(self, score_UK: FloatArray, size: int) -> Candidates:
        """Return the ``size`` items of the highest score of their cluster + bias, best first, for each user.

        A heap holds the best item left in every cluster (the paper's merge sort), so a long list is cut where another
        cluster's items are worth more. The cost grows with K + N log K, not with the items on the lists.
        """
        size = min(size, len(self.item_ids))
        item_UN = _merge(np.ascontiguousarray(score_UK), self.offsets, self.item_ids, self.bias_I, size)
        offsets = np.arange(len(score_UK) + 1, dtype=np.int64) * size
        return Candidates(offsets, item_UN.ravel(), np.zeros(item_UN.size, dtype=np.int64))


@njit(cache=True, nogil=True)
def _merge(score_UK, offsets, item_ids, bias_I, size):  # type: ignore[no-untyped-def]
    num_users, num_clusters = score_UK.shape
    item_UN = np.empty((num_users, size), np.int64)
    costs, clusters = (
        np.empty(num_clusters, np.float32),
        np.empty(num_clusters, np.int64),
    )  # the best is the heap's worst
    place_K = np.empty(num_clusters, np.int64)
    for user in range(num_users):
        length = 0
        for cluster in range(num_clusters):
            place_K[cluster] = offsets[cluster]
            if offsets[cluster] < offsets[cluster + 1]:
                rise(costs, clusters, length, -score_UK[user, cluster] - bias_I[offsets[cluster]], cluster)
                length += 1
        for found in range(size):
            cluster = clusters[0]
            item_UN[user, found] = item_ids[place_K[cluster]]
            place_K[cluster] += 1
            if place_K[cluster] < offsets[cluster + 1]:
                sink(costs, clusters, length, -score_UK[user, cluster] - bias_I[place_K[cluster]], cluster)
            else:
                length -= 1
                sink(costs, clusters, length, costs[length], clusters[length])
    return item_UN
