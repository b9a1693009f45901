"""Refines a mapping so that the paths a user would visit hold more of what the softmax wants for that user.

Not in the paper. Each user state visits its best paths, by the softmax's mass on them, until they hold
C items. An item gains on a path the mass it has with the states that visit the path, and costs a candidate to each of
them; the price of a candidate is the mass a state's last visited path gives for one.

Shape legend: N states, V items, P occupied or possible paths.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.sparse import csr_matrix

from dr_core.paths.space import Int64Array, PathSpace

SHARE_MOVED = 0.3
"""Items considered in a sweep: all at once would rush to the same paths."""


def refine_paths(
    mass_NV: csr_matrix,
    path_V: Int64Array,
    space: PathSpace,
    *,
    candidates: float,
    num_sweeps: int,
    capacity: float,
    seed: int,
) -> Int64Array:
    """Move items to paths whose visitors want them; keep the best mapping met.

    Args:
        mass_NV: softmax mass of a sample of states on their best items (the rest may be left out).
        path_V: int64 [V], one path an item.
        space: [K]^D.
        candidates: C, items a state visits.
        num_sweeps: passes; each considers a share of the items.
        capacity: largest path, as a multiple of the mean V / K^D; paths that are larger take no more items.
        seed: of the shares.

    Returns:
        int64 [V]; captures at least the mass that ``path_V`` does (:func:`captured_mass`).
    """
    generator = np.random.default_rng(seed)
    largest = max(1, int(capacity * len(path_V) / space.num_paths))
    path_V = path_V.copy()
    best_V, best = path_V.copy(), -1.0
    for sweep in range(num_sweeps + 1):
        visits_NP, captured, price = _visits(mass_NV, path_V, space.num_paths, candidates)
        if captured > best:
            best_V, best = path_V.copy(), captured
        if sweep < num_sweeps:
            considered = generator.random(len(path_V)) < SHARE_MOVED
            _move(mass_NV, visits_NP, path_V, price, largest, considered)
    return best_V


def captured_mass(
    mass_NV: csr_matrix, path_V: Int64Array, num_paths: int, candidates: float, beam: int | None = None
) -> float:
    """Return the mean mass of a state on its best paths, visited until they hold ``candidates`` items or are ``beam``."""
    return _visits(mass_NV, path_V, num_paths, candidates, beam)[1]


def _visits(
    mass_NV: csr_matrix, path_V: Int64Array, num_paths: int, candidates: float, beam: int | None = None
) -> tuple[csr_matrix, float, float]:
    """Return which paths each state visits [N, P], the mean mass captured, and the mean price of a candidate."""
    num_items = len(path_V)
    member_VP = csr_matrix((np.ones(num_items), (np.arange(num_items), path_V)), (num_items, num_paths))
    size_P = np.bincount(path_V, minlength=num_paths)
    mass_NP = (mass_NV @ member_VP).tocsr()
    rows, columns, captured, price = [], [], 0.0, 0.0
    for state in range(mass_NP.shape[0]):
        part = slice(mass_NP.indptr[state], mass_NP.indptr[state + 1])
        order = np.argsort(-mass_NP.data[part], kind="stable")
        paths, mass = mass_NP.indices[part][order], mass_NP.data[part][order]
        held = np.cumsum(size_P[paths])
        count = min(int(np.searchsorted(held, candidates)) + 1, len(paths), beam or len(paths))
        if count:
            rows.append(np.full(count, state))
            columns.append(paths[:count])
            captured += mass[:count].sum()
            price += mass[count - 1] / size_P[paths[count - 1]]
    row, column = np.concatenate(rows), np.concatenate(columns)
    num_states = mass_NP.shape[0]
    visits_NP = csr_matrix((np.ones(len(row)), (row, column)), mass_NP.shape)
    return visits_NP, captured / num_states, price / num_states


def _move(
    mass_NV: csr_matrix,
    visits_NP: csr_matrix,
    path_V: Int64Array,
    price: float,
    largest: int,
    considered: npt.NDArray[np.bool_],
) -> None:
    """Move the considered items, the most profitable moves first, to the best path that has room; in place."""
    gain_VP = (mass_NV.T @ visits_NP).tocsr()
    cost_P = price * np.asarray(visits_NP.sum(axis=0)).ravel()
    size_P = np.bincount(path_V, minlength=len(cost_P))
    item_W = np.repeat(np.arange(len(path_V)), np.diff(gain_VP.indptr))
    worth_W = gain_VP.data - cost_P[gain_VP.indices]
    own_V = -cost_P[path_V]
    on_own = gain_VP.indices == path_V[item_W]
    own_V[item_W[on_own]] = worth_W[on_own]
    better = considered[item_W] & (worth_W > own_V[item_W] + 1e-12)
    item_W, path_W, profit_W = item_W[better], gain_VP.indices[better], (worth_W - own_V[item_W])[better]
    order = np.lexsort((path_W, item_W, -profit_W))
    _take(item_W[order], path_W[order].astype(np.int64), path_V, size_P, largest)


@njit(cache=True)
def _take(
    item_W: Int64Array, path_W: Int64Array, path_V: Int64Array, size_P: Int64Array, largest: int
) -> None:  # pragma: no cover - compiled
    has_moved = np.zeros(len(path_V), dtype=np.bool_)
    for move in range(len(item_W)):
        item, path = item_W[move], path_W[move]
        if not has_moved[item] and size_P[path] < largest:
            size_P[path_V[item]] -= 1
            size_P[path] += 1
            path_V[item] = path
            has_moved[item] = True
