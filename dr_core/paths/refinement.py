"""Refines a mapping so that the paths users visit hold more of what they want.

Not in the paper. Who visits what is asked of the structure model that serves, fitted to the mapping in force. An item moves
to the path on which its gain exceeds its cost the most (:mod:`dr_core.paths.coverage`). One small move brings what it
promises; many at once do not, so that a sweep looks at a share of the items, takes the best moves first and keeps to a
capacity, and visits are asked for again.

Shape legend: N states, V items, P paths, J paths an item, W moves.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from dr_core.arrays import BoolArray, DoubleArray
from dr_core.paths.coverage import FRACTION_BITS, Gains, PathVisits, captured_mass, visit_costs, visit_gains
from dr_core.paths.space import Int64Array

SHARE_MOVED = 0.5
"""Items considered in a sweep: all at once would rush to the same paths."""
ITEMS_AT_ONCE = 4096
"""Items whose gains are held."""
NEGLIGIBLE = 0.05
"""A mass below this share of what a visit costs on average is not looked at when moves are weighed."""
LEAST_PROFIT = 1e-12
"""A move that promises less is not made."""
_OFFERS = 4
"""Paths an item may fall back on, best first, when a better one has no room left."""


class Visitors(Protocol):
    """A sample of states that choose which paths to visit: a structure model's, or :class:`BestVisitors`."""

    def visit(self, path_VJ: Int64Array) -> PathVisits:
        """Return what the states visit once they have been fitted to a mapping, for the same mean candidates each time."""


class Moves(NamedTuple):
    """Moves worth making, at most a few an item, ascending by item and best first within it."""

    items: Int64Array
    """int64 [W]."""
    slots: Int64Array
    """int64 [W], which of the item's paths gives way; an empty slot is filled."""
    paths: Int64Array
    """int64 [W], where to; -1 leaves the slot empty."""
    profits: DoubleArray
    """float64 [W], what each is worth more than staying, in mass over all states and widths."""

    def select(self, rows: NDArray[Any]) -> Moves:
        """Return the moves of a mask or of positions."""
        return Moves(self.items[rows], self.slots[rows], self.paths[rows], self.profits[rows])


def best_moves(gains: Gains, cost_P: DoubleArray, path_VJ: Int64Array) -> Moves:
    """Return the most profitable moves of each item.

    An item with several paths may also leave one whose gain is below its cost.

    Args:
        gains: of the items, summed over all states.
        cost_P: float64 [P], what a further item costs on each path.
        path_VJ: int64 [V, J], the mapping that ``gains`` is of; rows are item ids.
    """
    gain = gains.fixed * 2.0**-FRACTION_BITS
    items = np.unique(gains.items)
    staying_VJ = np.where(path_VJ >= 0, -cost_P[path_VJ], 0.0)
    is_own = path_VJ[gains.items, gains.slots] == gains.paths
    staying_VJ[gains.items[is_own], gains.slots[is_own]] += gain[is_own]
    profit = gain - cost_P[gains.paths] - staying_VJ[gains.items, gains.slots]
    is_new = ~(path_VJ[gains.items] == gains.paths[:, None]).any(axis=1)
    leaves = (path_VJ[items] >= 0) & ((path_VJ[items] >= 0).sum(axis=1) > 1)[:, None]
    row, slot = leaves.nonzero()
    left = items[row]
    moves = Moves(
        np.concatenate((gains.items[is_new], left)),
        np.concatenate((gains.slots[is_new], slot)),
        np.concatenate((gains.paths[is_new], np.full(len(left), -1))),
        np.concatenate((profit[is_new], -staying_VJ[left, slot])),
    )
    return _first(moves.select(moves.profits > LEAST_PROFIT))


def _first(moves: Moves) -> Moves:
    """Keep the best ``_OFFERS`` of each item."""
    order = np.lexsort((moves.slots, moves.paths, -moves.profits, moves.items))
    items = moves.items[order]
    place = np.arange(len(items)) - np.searchsorted(items, items)
    return moves.select(order[place < _OFFERS])


def take(moves: Moves, path_VJ: Int64Array, num_paths: int, largest: int) -> Int64Array:
    """Return the mapping after the moves, the most profitable first, one an item, to paths that have room.

    Args:
        moves: in any order.
        path_VJ: int64 [V, J].
        num_paths: P.
        largest: items on a path up to which it takes more.
    """
    order = np.lexsort((moves.slots, moves.paths, moves.items, -moves.profits))
    moved_VJ = path_VJ.copy()
    size_P = np.bincount(path_VJ[path_VJ >= 0], minlength=num_paths)
    _take(moves.items[order], moves.slots[order], moves.paths[order], moved_VJ, size_P, largest)
    return moved_VJ


def sweep(
    mass_VN: csr_matrix, visits: PathVisits, path_VJ: Int64Array, num_paths: int, *, considered: BoolArray, largest: int
) -> Int64Array:
    """Return a mapping in which some of the items stand on better paths.

    Args:
        mass_VN: what the states want, by item; CSR.
        visits: of the N states.
        path_VJ: int64 [V, J], -1 = none.
        num_paths: P.
        considered: bool [V], the items that may move.
        largest: items on a path up to which it takes more.
    """
    cost_P = visit_costs(visits, num_paths)
    parts = []
    chosen = np.flatnonzero(considered)
    for start in range(0, len(chosen), ITEMS_AT_ONCE):
        items = chosen[start : start + ITEMS_AT_ONCE]
        gains = visit_gains(mass_VN[items], visits, path_VJ[items], num_paths, items)
        parts.append(best_moves(gains, cost_P, path_VJ))
    if not parts:
        return path_VJ.copy()
    return take(Moves(*(np.concatenate(column) for column in zip(*parts, strict=True))), path_VJ, num_paths, largest)


def refine_paths(
    mass_NV: csr_matrix,
    path_VJ: Int64Array,
    num_paths: int,
    visitors: Visitors,
    *,
    num_sweeps: int,
    capacity: float,
    seed: int,
) -> Int64Array:
    """Move items to paths whose visitors want them; keep the best mapping met.

    Args:
        mass_NV: how probable items are for a sample of states; CSR; the least probable may be left out.
        path_VJ: int64 [V, J], -1 = none.
        num_paths: P.
        visitors: these states.
        num_sweeps: each considers a share of the items and then asks the visitors again.
        capacity: largest path that takes items, as a multiple of the mean V J / P.
        seed: of the shares.

    Returns:
        int64 [V, J], whose visitors find at least the mass that those of ``path_VJ`` do
        (:func:`dr_core.paths.coverage.captured_mass`).
    """
    generator = np.random.default_rng(seed)
    largest = max(1, int(capacity * path_VJ.size / num_paths))
    visits = visitors.visit(path_VJ)
    best_VJ, best = path_VJ.copy(), captured_mass(mass_NV, visits, path_VJ, num_paths)
    mass_VN = _without_negligible(mass_NV.T.tocsr(), visits)
    for _ in range(num_sweeps):
        considered = generator.random(len(path_VJ)) < SHARE_MOVED
        path_VJ = sweep(mass_VN, visits, path_VJ, num_paths, considered=considered, largest=largest)
        visits = visitors.visit(path_VJ)
        captured = captured_mass(mass_NV, visits, path_VJ, num_paths)
        if captured > best:
            best_VJ, best = path_VJ.copy(), captured
    return best_VJ


def _without_negligible(mass_VN: csr_matrix, visits: PathVisits) -> csr_matrix:
    price = float(visits.prices.sum(dtype=np.float64)) / max(float(visits.times.sum(dtype=np.float64)), 1e-300)
    kept = mass_VN.copy()
    kept.data[kept.data < NEGLIGIBLE * price] = 0
    kept.eliminate_zeros()
    return kept


@njit(cache=True)
def _take(
    item_W: Int64Array,
    slot_W: Int64Array,
    path_W: Int64Array,
    path_VJ: Int64Array,
    size_P: Int64Array,
    largest: int,
) -> None:  # pragma: no cover - compiled
    """Make the moves in their order, one an item, to paths that have room; in place."""
    has_moved = np.zeros(len(path_VJ), dtype=np.bool_)
    for move in range(len(item_W)):
        item, slot, path = item_W[move], slot_W[move], path_W[move]
        if not has_moved[item] and (path < 0 or size_P[path] < largest):
            if path_VJ[item, slot] >= 0:
                size_P[path_VJ[item, slot]] -= 1
            if path >= 0:
                size_P[path] += 1
            path_VJ[item, slot] = path
            has_moved[item] = True
