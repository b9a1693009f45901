"""What share of its path an item has, whoever asks: by its bias, so that a price can cut inside paths.

That the items of a cluster are ordered by their bias and taken until the candidates are spent is Streaming VQ's (Bin et al.
2025), which merges clusters by a heap. Energies say what a path is worth, so that a share of it has a price, and one
threshold does what the heap does. Shape legend: V items, R rows of an index, P paths.
"""

from __future__ import annotations

import numpy as np

from dr_core.arrays import FloatArray
from dr_core.paths.index import PathIndex

TEMPERATURE = 2.0
"""Divides the biases: halfway between an even share and that of users of whom nothing is known (docs/decisions.md)."""


def log_shares(index: PathIndex, bias_V: FloatArray | None) -> FloatArray:
    """Return ln q_v of every row: q is the softmax of b_v / 2 over the items of a path.

    Shares are even without biases, and where an item lies on several paths, which are then visited whole.

    Args:
        index: paths to items.
        bias_V: float32, of every item of the index.

    Returns:
        float32 [R].
    """
    size_P = np.diff(index.offsets)
    if bias_V is None or not len(index.item_ids) or np.bincount(index.item_ids).max() > 1:
        return np.repeat(-np.log(size_P), size_P).astype(np.float32)
    score_R = bias_V[index.item_ids].astype(np.float64) / TEMPERATURE
    score_R -= np.repeat(np.maximum.reduceat(score_R, index.offsets[:-1]), size_P)
    log_sum_P = np.log(np.add.reduceat(np.exp(score_R), index.offsets[:-1]))
    log_share_R: FloatArray = (score_R - np.repeat(log_sum_P, size_P)).astype(np.float32)
    return log_share_R
