"""Compiled loops of the coordinate descent over items; ``assignment.py`` holds the public face.

Paths appear here as codes: positions in the table of path sizes, in the order of the path ids. One item has few
candidates (S + J), so that its penalties are gathered from the size table once and kept up while its slots move.
"""

import math
from typing import Any, TypeAlias

import numpy as np
from numba import njit
from numpy.typing import NDArray

SCORE_FLOOR = 2.0**-40
"""The score a path set has at least, so that the logarithm is defined: below the resolution of the summed scores."""

_SHARE_ALIKE = 0.25
"""Share of the other partitions that an item reckons with to make its move at the same time, before it moves."""

_OFF_LIST = -1
_NONE = -2

_Array: TypeAlias = NDArray[Any]


@njit(cache=True, inline="always")
def _marginal(size: float, factor: float, power: int) -> float:
    """factor * ((size + 1)^power - size^power), as Penalty.marginal sums it; sizes below 0 count as 0."""
    size = max(size, 0.0)
    total = 1.0
    size_power = 1.0
    for _ in range(power - 1):
        size_power *= size
        total = total * (size + 1.0) + size_power
    return factor * total


@njit(cache=True, inline="always")
def _best_candidate(
    codes: _Array,
    scores: _Array,
    cost: _Array,
    taken: _Array,
    weight: float,
    rest: float,
    incumbent: int,
    incumbent_sum: float,
    incumbent_cost: float,
) -> int:
    """Position of the largest N_v log(rest + s) - cost, or ``incumbent`` if none is larger; ties: the smaller path.

    log(b / a) <= b / a - 1 bounds what a candidate can gain, which spares most of the logarithms.
    """
    best, best_sum, best_cost = incumbent, incumbent_sum, incumbent_cost
    for i in range(len(codes)):
        if taken[i]:
            continue
        candidate_sum = max(rest + scores[i], SCORE_FLOOR)
        if best != _NONE:
            extra_cost = cost[i] - best_cost
            if weight * (candidate_sum - best_sum) < extra_cost * best_sum:
                continue
            advantage = weight * math.log(candidate_sum / best_sum) - extra_cost
            if advantage < 0.0 or (advantage == 0.0 and (best == incumbent or codes[i] > codes[best])):
                continue
        best, best_sum, best_cost = i, candidate_sum, cost[i]
    return best


@njit(cache=True, inline="always")
def _least_loaded(fillers: _Array, current: _Array, sizes: _Array) -> int:
    """The filler on the shortest path that is not among the item's ``current`` paths; ties: the first."""
    best = _NONE
    for filler in fillers:
        is_current = False
        for path in current:
            is_current = is_current or path == filler
        if not is_current and (best == _NONE or sizes[filler] < sizes[best]):
            best = filler
    return best


@njit(cache=True, nogil=True)
def sweep_items(
    offsets: _Array,
    codes: _Array,
    scores: _Array,
    weights: _Array,
    paths: _Array,
    sizes: _Array,
    scale: int,
    alpha: float,
    power: int,
    filler_row: _Array,
    fillers: _Array,
) -> int:
    """One pass over all items in row order; changes ``paths`` and ``sizes`` in place, returns the slots changed.

    Items with all their paths take one exact coordinate step a slot; items lacking some are built greedily
    (Algorithm 2). N_v = 0 or fewer than J candidates: complete items stay as they are.

    Args:
        offsets: int [V + 1], positions in ``codes``; need not begin with 0.
        codes: int [nnz].
        scores: float [nnz].
        weights: float [V].
        paths: int [V, J] codes, -1 = none.
        sizes: int32 [codes in use].
        scale: items that one moving item stands for in ``sizes``.
        alpha: penalty factor.
        power: penalty power.
        filler_row: int64 [V], row of ``fillers`` for items whose candidates may not suffice, else -1.
        fillers: int64 [F, Q], distinct codes in a row, at least J of them not on the item's list.
    """
    num_items, num_paths = paths.shape
    longest = 0
    for v in range(num_items):
        longest = max(longest, offsets[v + 1] - offsets[v])
    cost = np.empty(longest, dtype=np.float64)
    taken = np.empty(longest, dtype=np.bool_)
    position = np.empty(num_paths, dtype=np.int64)
    slot_score = np.empty(num_paths, dtype=np.float64)
    factor = alpha / power
    lag = _SHARE_ALIKE * (scale - 1)
    changed = 0
    for v in range(num_items):
        first, last = offsets[v], offsets[v + 1]
        weight = weights[v]
        missing = 0
        for j in range(num_paths):
            if paths[v, j] < 0:
                missing += 1
        if missing == 0 and (weight == 0.0 or last - first < num_paths):
            continue
        position[:] = _OFF_LIST
        slot_score[:] = 0.0
        for i in range(last - first):
            code = codes[first + i]
            taken[i] = False
            cost[i] = _marginal(sizes[code] + lag, factor, power)
            for j in range(num_paths):
                if code == paths[v, j]:
                    taken[i] = True
                    position[j] = i
                    slot_score[j] = scores[first + i]
        for j in range(num_paths):
            own = paths[v, j]
            if missing > 0 and own >= 0:
                continue
            rest = 0.0
            for other in range(num_paths):
                if other != j:
                    rest += slot_score[other]
            if own < 0:
                own_position, own_sum, own_cost = _NONE, 0.0, 0.0
            else:
                own_position = position[j]
                own_sum = max(rest + slot_score[j], SCORE_FLOOR)
                own_cost = _marginal(sizes[own] - 1 - lag, factor, power)
            chosen = _best_candidate(
                codes[first:last], scores[first:last], cost, taken, weight, rest, own_position, own_sum, own_cost
            )
            if chosen == _NONE:
                filler = _least_loaded(fillers[filler_row[v]], paths[v], sizes)
                paths[v, j] = filler
                sizes[filler] += scale
                changed += 1
            elif chosen != own_position:
                if own >= 0:
                    sizes[own] -= scale
                if own_position >= 0:
                    taken[own_position] = False
                    cost[own_position] = _marginal(sizes[own] + lag, factor, power)
                paths[v, j] = codes[first + chosen]
                sizes[codes[first + chosen]] += scale
                taken[chosen] = True
                slot_score[j] = scores[first + chosen]
                changed += 1
    return changed


@njit(cache=True, nogil=True)
def exchange_moves(sizes: _Array, before: _Array, after: _Array, scale: int) -> None:
    """Add to ``sizes``, int32 [codes in use], what changed between two mappings, int [n, J]."""
    num_items, num_paths = before.shape
    for v in range(num_items):
        for j in range(num_paths):
            if before[v, j] != after[v, j]:
                if before[v, j] >= 0:
                    sizes[before[v, j]] -= scale
                sizes[after[v, j]] += scale


@njit(cache=True, nogil=True)
def scores_of_paths(offsets: _Array, path_ids: _Array, scores: _Array, paths: _Array) -> _Array:
    """float64 [V, J], s[v, c] of each item's own paths; 0 where a path is not among its candidates."""
    num_items, num_paths = paths.shape
    found = np.zeros((num_items, num_paths), dtype=np.float64)
    for v in range(num_items):
        for i in range(offsets[v], offsets[v + 1]):
            for j in range(num_paths):
                if path_ids[i] == paths[v, j]:
                    found[v, j] = scores[i]
    return found
