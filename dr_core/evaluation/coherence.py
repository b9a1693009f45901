"""Coherence of paths: whether items on one path share labels that the model never saw, and the same users.

Shape legend: U users, V items, J paths an item.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from dr_core.arrays import DoubleArray, IntArray


def normalized_mutual_information(left: IntArray, right: IntArray) -> float:
    """Return I(left; right) / sqrt(H(left) H(right)) of two labellings int64 [n], in [0, 1]; 0 where one has a single label.

    Many small groups agree with anything by chance: compare with the same labelling shuffled.

    Raises:
        ValueError: the labellings are of different lengths.
    """
    if len(left) != len(right):
        raise ValueError(f"{len(left)} labels on one side, {len(right)} on the other")
    _, left = np.unique(left, return_inverse=True)
    _, right = np.unique(right, return_inverse=True)
    shape = (int(left.max(initial=-1)) + 1, int(right.max(initial=-1)) + 1)
    joint = sparse.coo_matrix((np.ones(len(left)), (left, right)), shape=shape).tocsr().tocoo()
    entropies = [_entropy(np.bincount(labels) / len(labels)) for labels in (left, right) if len(labels)]
    if not entropies or min(entropies) == 0:
        return 0.0
    mutual = sum(entropies) - _entropy(joint.data / len(left))
    return float(min(max(mutual / np.sqrt(entropies[0] * entropies[1]), 0.0), 1.0))


def _entropy(share: DoubleArray) -> float:
    positive = share[share > 0]
    return float(-(positive * np.log(positive)).sum())


def co_occurrence_lift(event_UV: sparse.csr_matrix, path_VJ: IntArray) -> float:
    """Return how many times more often two items of one path share a user than two independent items would.

    The sum of users with events on both, over all pairs of items that share a path, divided by what independence expects
    of the same pairs, c_i c_j / U. 1 is chance. A pair that shares several paths counts as often.

    Args:
        event_UV: 0 or 1, whether the user has an event on the item.
        path_VJ: int64 path ids, -1 for none.
    """
    num_users, num_items = event_UV.shape
    counts_V = np.asarray(event_UV.sum(axis=0), dtype=np.float64).ravel()
    item_M, slot_M = np.nonzero(path_VJ >= 0)
    paths, column_M = np.unique(path_VJ[item_M, slot_M], return_inverse=True)
    on_path_VP = sparse.csr_matrix((np.ones(len(item_M)), (item_M, column_M)), shape=(num_items, len(paths)))
    event_UP = event_UV.astype(np.float64) @ on_path_VP
    total_P = on_path_VP.T @ counts_V
    observed = float(event_UP.multiply(event_UP).sum() - total_P.sum())
    expected = float((total_P**2).sum() - (on_path_VP.T @ counts_V**2).sum()) / num_users
    return observed / expected if expected > 0 else float("nan")
