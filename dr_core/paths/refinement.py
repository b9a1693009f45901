"""Refines a mapping so that the paths a user would visit hold more of what that user wants.

Not in the paper. Each user state visits the paths with the most mass per item, as retrieval does, until they hold C items,
the last one in part: a fractional knapsack, whose greedy answer is the best one (Dantzig 1957). So it does for several C at
once, because a structure is served at more than one width. By the knapsack's duality an item gains on a path the mass it
has with the states that visit the path, and costs each of them a candidate, at that state's own price: the mass per item of
its last path. That difference is what a small move brings.

Shape legend: N states, V items, P = K^D paths, F budgets, W moves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.sparse import csr_matrix

from dr_core._heap import rise, sink
from dr_core.paths.space import Int64Array, PathSpace

SHARE_MOVED = 0.3
"""Items considered in a sweep: all at once would rush to the same paths."""
NEGLIGIBLE = 0.05
"""A mass below this share of what a candidate costs at the widest budget is not looked at when moves are weighed."""
WORTH_A_SWEEP = 0.001
"""Sweeping ends when this many times the captured mass was not gained by the last ``_PATIENCE`` sweeps."""
_PATIENCE = 3
_OFFERS = 4
"""Paths an item may fall back on, best first, when a better one has no room left."""
Float64Array = npt.NDArray[np.float64]


def refine_paths(
    mass_NV: csr_matrix,
    path_V: Int64Array,
    space: PathSpace,
    *,
    budgets: Sequence[float],
    num_sweeps: int,
    capacity: float,
    seed: int,
) -> Int64Array:
    """Move items to paths whose visitors want them; keep the best mapping met.

    Args:
        mass_NV: how probable items are for a sample of states; the least probable may be left out.
        path_V: int64 [V], one path an item.
        space: [K]^D.
        budgets: each C, items a state visits.
        num_sweeps: passes at most; each considers a share of the items.
        capacity: largest path, as a multiple of the mean V / K^D; paths that are larger take no more items.
        seed: of the shares.

    Returns:
        int64 [V]; captures at least the mass that ``path_V`` does (:func:`captured_mass`).
    """
    generator = np.random.default_rng(seed)
    largest = max(1, int(capacity * len(path_V) / space.num_paths))
    path_V = path_V.astype(np.int64)
    by_item_VN = mass_NV.T.tocsr()
    price_F = _visits(mass_NV, path_V, space.num_paths, budgets)[4]
    by_item_VN.data[by_item_VN.data < NEGLIGIBLE * price_F.min()] = 0
    by_item_VN.eliminate_zeros()
    best_V, best = path_V.copy(), -1.0
    reached = []
    for sweep in range(num_sweeps + 1):
        offsets, paths, times, captured_F, _, cost_P = _visits(mass_NV, path_V, space.num_paths, budgets)
        if captured_F.mean() > best:
            best_V, best = path_V.copy(), captured_F.mean()
        reached.append(best)
        is_settled = sweep > _PATIENCE and best < (1 + WORTH_A_SWEEP) * reached[-1 - _PATIENCE]
        if sweep == num_sweeps or is_settled:
            break
        considered = np.flatnonzero(generator.random(len(path_V)) < SHARE_MOVED)
        item_W, path_W, profit_W = _offers(
            by_item_VN.data, by_item_VN.indices, by_item_VN.indptr, considered, path_V, offsets, paths, times, cost_P
        )
        order = np.lexsort((path_W, item_W, -profit_W))
        _take(item_W[order], path_W[order], path_V, np.bincount(path_V, minlength=space.num_paths), largest)
    return best_V


def captured_mass(mass_NV: csr_matrix, path_V: Int64Array, num_paths: int, budgets: Sequence[float]) -> float:
    """Return the mean mass of a state on its best paths, by mass per item, as far as they hold each of the budgets' items."""
    return float(_visits(mass_NV, path_V, num_paths, budgets)[3].mean())


def _visits(
    mass_NV: csr_matrix, path_V: Int64Array, num_paths: int, budgets: Sequence[float]
) -> tuple[Int64Array, Int64Array, npt.NDArray[np.float32], Float64Array, Float64Array, Float64Array]:
    """Return which paths each state visits as CSR with the sum over the budgets of the part that is visited, the mean mass
    captured and the mean price of a candidate under each budget, float64 [F], and what a further item on each path would
    cost all states and budgets, float64 [P]."""
    size_P = np.bincount(path_V, minlength=num_paths)
    wanted_F = np.asarray(budgets, dtype=np.float64)
    found = _visit(mass_NV.data, mass_NV.indices, mass_NV.indptr, path_V.astype(np.int64), size_P, wanted_F)
    offsets, paths, times, captured_F, price_F, cost_P = found
    num_states = max(mass_NV.shape[0], 1)
    return offsets, paths, times, captured_F / num_states, price_F / num_states, cost_P


@njit(cache=True)
def _visit(data, indices, indptr, path_V, size_P, wanted_F):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    num_states, num_paths, num_budgets = len(indptr) - 1, len(size_P), len(wanted_F)
    captured_F, price_F = np.zeros(num_budgets), np.zeros(num_budgets)
    cost_P = np.zeros(num_paths)
    offsets = np.zeros(num_states + 1, np.int64)
    paths, times = np.empty(64 * num_states, np.int64), np.empty(64 * num_states, np.float32)
    mass_P, touched = np.zeros(num_paths), np.empty(num_paths, np.int64)
    score_H, key_H = np.empty(num_paths), np.empty(num_paths, np.int64)  # the next path to visit is the heap's worst
    is_open_F = np.empty(num_budgets, np.bool_)
    filled = 0
    for state in range(num_states):
        count = 0
        for entry in range(indptr[state], indptr[state + 1]):
            path = path_V[indices[entry]]
            if mass_P[path] == 0.0 and data[entry] > 0:
                touched[count] = path
                count += 1
            mass_P[path] += data[entry]
        for place in range(count):
            rise(score_H, key_H, place, -mass_P[touched[place]] / size_P[touched[place]], -touched[place])
        if filled + count > len(paths):
            paths = np.concatenate((paths, np.empty(len(paths) + count, np.int64)))
            times = np.concatenate((times, np.empty(len(times) + count, np.float32)))
        is_open_F[:] = True
        num_visited = 0
        for place in range(count):
            path, left = -key_H[0], count - place - 1
            sink(score_H, key_H, left, score_H[left], key_H[left])
            reached = 0.0
            for budget in range(num_budgets):
                if is_open_F[budget]:
                    share = min(1.0, (wanted_F[budget] - num_visited) / size_P[path])
                    reached += share
                    captured_F[budget] += share * mass_P[path]
                    if num_visited + size_P[path] >= wanted_F[budget]:
                        is_open_F[budget] = False
                        price = mass_P[path] / size_P[path]
                        price_F[budget] += price
                        cost_P[path] += share * price
                        for whole in range(offsets[state], filled):
                            cost_P[paths[whole]] += price
            if reached == 0:
                break
            paths[filled], times[filled] = path, reached
            filled += 1
            num_visited += size_P[path]
        offsets[state + 1] = filled
        mass_P[touched[:count]] = 0.0
    return offsets, paths[:filled].copy(), times[:filled].copy(), captured_F, price_F, cost_P


@njit(cache=True)
def _offers(data, indices, indptr, considered, path_V, offsets, paths, times, cost_P):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Return the moves worth making, at most ``_OFFERS`` an item: items, paths and what each is worth more than staying."""
    item_W = np.empty(_OFFERS * len(considered), np.int64)
    path_W, profit_W = np.empty_like(item_W), np.empty(len(item_W))
    gain_P, is_touched_P, touched = (
        np.zeros(len(cost_P)),
        np.zeros(len(cost_P), np.bool_),
        np.empty(len(cost_P), np.int64),
    )
    filled = 0
    for item in considered:
        count = 0
        for entry in range(indptr[item], indptr[item + 1]):
            state, mass = indices[entry], data[entry]
            for visit in range(offsets[state], offsets[state + 1]):
                path = paths[visit]
                if not is_touched_P[path]:
                    is_touched_P[path] = True
                    touched[count] = path
                    count += 1
                gain_P[path] += mass * times[visit]
        staying = gain_P[path_V[item]] - cost_P[path_V[item]]
        first = filled
        for path in touched[:count]:
            profit = gain_P[path] - cost_P[path] - staying
            gain_P[path], is_touched_P[path] = 0.0, False
            if profit <= 1e-12:
                continue
            place = filled
            while place > first and (
                profit > profit_W[place - 1] or (profit == profit_W[place - 1] and path < path_W[place - 1])
            ):
                if place < first + _OFFERS:
                    profit_W[place], path_W[place] = profit_W[place - 1], path_W[place - 1]
                place -= 1
            if place < first + _OFFERS:
                profit_W[place], path_W[place] = profit, path
                filled = min(filled + 1, first + _OFFERS)
        item_W[first:filled] = item
    return item_W[:filled], path_W[:filled], profit_W[:filled]


@njit(cache=True)
def _take(
    item_W: Int64Array, path_W: Int64Array, path_V: Int64Array, size_P: Int64Array, largest: int
) -> None:  # pragma: no cover - compiled
    """Make the moves in their order, one an item, to paths that have room; in place."""
    has_moved = np.zeros(len(path_V), dtype=np.bool_)
    for move in range(len(item_W)):
        item, path = item_W[move], path_W[move]
        if not has_moved[item] and size_P[path] < largest:
            size_P[path_V[item]] -= 1
            size_P[path] += 1
            path_V[item] = path
            has_moved[item] = True
