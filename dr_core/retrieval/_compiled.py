"""What both kernels are made of: 2^x as a polynomial, and the best of some scores."""

from __future__ import annotations

import numpy as np
from numba import njit

from dr_core._heap import is_worse, rise, sink, unwind

_FEW = 256
"""So many scores are ranked by counting the better ones; more go through a heap."""
LOG2_E = np.float32(1.4426950408889634)
LOWEST = np.float32(-120)
EXPONENT, BIAS = np.float32(2.0**23), np.float32(127 * 2.0**23)
"""A float32 whose bits are n * 2^23 + 127 * 2^23 is 2^n."""
_FIT = np.polynomial.Chebyshev.interpolate(np.exp2, 5, domain=[0, 1])  # type: ignore[no-untyped-call]
_C0, _C1, _C2, _C3, _C4, _C5 = _FIT.convert(kind=np.polynomial.Polynomial).coef.astype(np.float32)
"""Coefficients of 2^f for f in [0, 1], relative error below 3e-7."""


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def mantissa(rest):  # type: ignore[no-untyped-def]
    """Return 2^rest for a rest in [0, 1]."""
    return ((((_C5 * rest + _C4) * rest + _C3) * rest + _C2) * rest + _C1) * rest + _C0


@njit(cache=True, nogil=True)
def count_higher(scores, score):  # type: ignore[no-untyped-def]
    """Return how many scores are higher, without a branch."""
    higher = np.int32(0)
    for entry in range(len(scores)):
        higher += np.int32(scores[entry] > score)
    return higher


@njit(cache=True, nogil=True)
def thin(scores, paths, beam):  # type: ignore[no-untyped-def]
    """Move the entries above a bound to the front, at least ``beam`` and seldom many more; return how many."""
    low, high, bound = scores.min(), scores.max(), np.float32(-np.inf)
    for _ in range(12):
        middle = np.float32(0.5) * (low + high)
        higher = count_higher(scores, middle)
        if higher < beam:
            high = middle
            continue
        low = bound = middle
        if higher <= beam + beam // 4:
            break
    if bound == -np.inf:
        return len(scores)
    size = 0
    for entry in range(len(scores)):
        score, path = scores[entry], paths[entry]
        scores[size], paths[size] = score, path
        size += score > bound
    return size


@njit(cache=True, nogil=True)
def keep_best(scores, paths, path_B, score_B):  # type: ignore[no-untyped-def]
    """Write the best entries, best first; return how many. What stands in ``scores`` and ``paths`` afterwards is of no use."""
    beam, size = len(path_B), 0
    if len(scores) > beam + beam // 2:
        left = thin(scores, paths, beam)
        scores, paths = scores[:left], paths[:left]
    if len(scores) > _FEW:
        for entry in range(len(scores)):
            if size < beam:
                rise(score_B, path_B, size, scores[entry], paths[entry])
                size += 1
            elif is_worse(score_B[0], path_B[0], scores[entry], paths[entry]):
                sink(score_B, path_B, size, scores[entry], paths[entry])
        unwind(score_B, path_B, size)
        return size
    path_B[:] = -1
    for entry in range(len(scores)):
        rank, path = count_higher(scores, scores[entry]), paths[entry]
        while rank < beam and path_B[rank] >= 0:  # taken by an equal score: the smaller path goes first
            path_B[rank], path = min(path_B[rank], path), max(path_B[rank], path)
            rank += 1
        if rank < beam:
            path_B[rank], score_B[rank] = path, scores[entry]
    return min(len(scores), beam)
