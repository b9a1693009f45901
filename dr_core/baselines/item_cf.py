"""Item-based collaborative filtering: neighbours of the history's items.

Sarwar et al., *Item-Based Collaborative Filtering Recommendation Algorithms* (WWW 2001), with the shrinkage of Bell and
Koren (*Scalable Collaborative Filtering with Jointly Derived Neighborhood Interpolation Weights*, ICDM 2007).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field
from scipy import sparse

from dr_core.arrays import FloatArray
from dr_core.baselines.base import Events, HistoryBaseline, HistoryConfig, weighted
from dr_core.item_lists import ItemLists
from dr_core.progress import Progress

ITEMS_AT_ONCE = 2048


class ItemCFConfig(HistoryConfig):
    """Which neighbours count, and how much."""

    num_neighbours: int = Field(default=200, ge=1)
    """Most similar items that each item votes for."""
    shrinkage: float = Field(default=20.0, ge=0)
    """Common users at which a similarity counts half: n / (n + shrinkage)."""


class ItemCF(HistoryBaseline):
    """score(u, j) = sum over the history's i of w_i cos(i, j) n_ij / (n_ij + shrinkage), n_ij users who met both."""

    name = "item_cf"
    config: ItemCFConfig

    def __init__(self, config: ItemCFConfig | None = None) -> None:
        self.config = config or ItemCFConfig()

    def fit(self, events: Events) -> None:
        users = events.matrix
        by_item = users.T.tocsr()
        norms = np.sqrt(np.maximum(np.diff(by_item.indptr), 1)).astype(np.float32)
        kept = []
        progress = Progress(self.name, events.num_items)
        for start in range(0, events.num_items, ITEMS_AT_ONCE):
            common = (by_item[start : start + ITEMS_AT_ONCE] @ users).tocsr()
            items = np.repeat(np.arange(start, start + common.shape[0]), np.diff(common.indptr))
            similarity = common.data / (norms[items] * norms[common.indices])
            similarity *= common.data / (common.data + np.float32(self.config.shrinkage))
            similarity[items == common.indices] = 0
            common.data = similarity
            common.eliminate_zeros()
            kept.append(_largest(common, self.config.num_neighbours))
            progress.at(start + common.shape[0])
        self.similarity_VV = sparse.vstack(kept, format="csr")

    def scores(self, histories: ItemLists) -> FloatArray:
        scores: FloatArray = (
            weighted(histories, self.similarity_VV.shape[0], self.config.half_life) @ self.similarity_VV
        ).toarray()
        return scores

    def megabytes(self) -> float:
        matrix = self.similarity_VV
        return float(matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes) / 1e6

    def multiply_adds(self, histories: ItemLists) -> float:
        neighbours_V = np.diff(self.similarity_VV.indptr)
        return float(neighbours_V[histories.item_ids].sum()) / max(len(histories.offsets) - 1, 1)


def _largest(matrix: sparse.csr_matrix, count: int) -> sparse.csr_matrix:
    """Keep the ``count`` largest entries of each row; ties by column."""
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, row))
    rank = np.arange(len(order)) - np.repeat(matrix.indptr[:-1], np.diff(matrix.indptr))
    order = order[rank < count]
    return sparse.csr_matrix((matrix.data[order], (row[order], matrix.indices[order])), shape=matrix.shape)
