"""Learned routing of inverted lists: a linear layer, not the lists' centroids, says which of them hold a user's best items.

Vecchiato, Lucchese, Nardini and Bruch, *A Learning-to-Rank Formulation of Clustering-Based Approximate Nearest Neighbor Search*
(SIGIR 2024). Shape legend: N training users, U users, L lists, B probed lists, E dimension, K best items of a training user.
"""

from __future__ import annotations

import copy
import time
from typing import Any

import numpy as np
import torch
from faiss.contrib.ivf_tools import search_preassigned
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from benchmarks.vector_clusters import BUILD_THREADS
from benchmarks.vector_indexes import InvertedLists, VectorIndex
from dr_core.arrays import FloatArray, IntArray

BATCH_USERS = 256
SCALES = tuple(2.0**power for power in range(8))


class LearnedLists(VectorIndex):
    """The lists of a faiss index, probed in the order of <x, w_l> + b_l instead of <x, centroid>.

    Args:
        lists: the index; it stays as it is.
        user_NE: training users.
        truth_NK: their exact best items.
        epochs: passes over the training users; the best of them by the users held out counts.
    """

    method = "ivf_learned"

    def __init__(self, lists: InvertedLists, user_NE: FloatArray, truth_NK: IntArray, *, epochs: int = 6) -> None:
        torch.set_num_threads(BUILD_THREADS)
        self.lists, self.label, self.index_mib = lists, lists.label, lists.index_mib
        started = time.perf_counter()
        self.layer = fit_layer(lists, user_NE, lists.list_of_items()[truth_NK], epochs)
        self.routing_seconds = time.perf_counter() - started
        self.build_seconds = lists.build_seconds + self.routing_seconds
        self.num_users = len(user_NE)

    @property
    def sweeps(self) -> list[list[str]]:
        return self.lists.sweeps

    @property
    def notes(self) -> dict[str, Any]:
        return {"trained_on": self.num_users, "routing_seconds": round(self.routing_seconds, 1)}

    def search(self, user_UE: FloatArray, k: int, width: str) -> IntArray:
        probed_UB = self._probed(user_UE, width)
        self.lists.ivf.nprobe = probed_UB.shape[1]
        found: IntArray = search_preassigned(self.lists.ivf, user_UE, k, probed_UB)[1]
        return found

    def multiply_adds(self, user_UE: FloatArray, width: str) -> float:
        scanned = self.lists.size_L[self._probed(user_UE, width)].sum(1).mean()
        return float(self.lists.dim * (self.lists.num_lists + scanned))

    @torch.inference_mode()
    def _probed(self, user_UE: FloatArray, width: str) -> IntArray:
        logit_UL = self.layer(torch.from_numpy(user_UE))
        return logit_UL.topk(int(width.removeprefix("nprobe="))).indices.numpy()


def fit_layer(lists: InvertedLists, user_NE: FloatArray, list_NK: IntArray, epochs: int, seed: int = 0) -> nn.Linear:
    """Fit list logits by the cross entropy of where the best items of users lie.

    The weights start at the centroids times the likeliest of :data:`SCALES`, the biases at the logarithms of the lists'
    lengths. Every tenth user is held out; the epoch, the start included, under which these are likeliest is kept.
    """
    users, target_NK = torch.from_numpy(user_NE), torch.from_numpy(list_NK)
    order = torch.randperm(len(users), generator=torch.Generator().manual_seed(seed))
    held, kept = order[: len(order) // 10], order[len(order) // 10 :]
    centroid_LE = torch.from_numpy(lists.ivf.quantizer.reconstruct_n(0, lists.num_lists))
    layer = nn.Linear(lists.dim, lists.num_lists)

    def loss(rows: Tensor) -> Tensor:
        return -log_softmax(layer(users[rows]), dim=1).gather(1, target_NK[rows]).mean()

    @torch.inference_mode()
    def held_out() -> float:
        return float(np.mean([float(loss(rows)) for rows in held.split(BATCH_USERS)]))  # type: ignore[no-untyped-call]

    starts = {}
    with torch.no_grad():
        layer.bias.copy_(torch.from_numpy(np.log(lists.size_L + 1.0)))
        for scale in SCALES:
            layer.weight.copy_(scale * centroid_LE)
            starts[scale] = held_out()
        layer.weight.copy_(min(starts, key=starts.__getitem__) * centroid_LE)
    least, best = min(starts.values()), copy.deepcopy(layer)
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
    for epoch in range(epochs):
        shuffled = kept[torch.randperm(len(kept), generator=torch.Generator().manual_seed(seed + epoch + 1))]
        for rows in shuffled.split(BATCH_USERS):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            loss(rows).backward()
            optimizer.step()
        if (now := held_out()) < least:
            least, best = now, copy.deepcopy(layer)
    return best
