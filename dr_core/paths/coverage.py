"""What items gain and cost on the paths that states visit.

Let state x visit path c at some of F widths, and let a further candidate cost e^lambda there. An item v on c is a
candidate of x at these widths. It gives x its mass m_xv at each, unless another of v's paths gives it already, and it
costs e^lambda at each: the dual of the knapsack that chooses paths (Dantzig 1957). A further path of an item is worth

    sum_x m_xv max(0, t_xc - max_{c' of v} t_xc') - sum_x price_xc,

where t_xc counts the widths at which x visits c; what x visits at a narrow width it visits at every wider one. The first
sum is the gain of a set function with diminishing returns, coverage (Nemhauser, Wolsey, Fisher 1978). Masses and times are
rounded to fixed point, so that gains summed over blocks of states are those of all states, bit for bit, in any order.

Shape legend: N states, U states of a block, B beam, V items, P paths, J paths an item, F widths, n visits or gains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike
from scipy.sparse import csr_matrix

from dr_core.arrays import AnyFloatArray, DoubleArray, FloatArray
from dr_core.paths.space import Int64Array, integer_array

MASS_BITS, TIMES_BITS = 32, 8
"""Bits after the binary point of a mass and of the times of a visit."""
FRACTION_BITS = MASS_BITS + TIMES_BITS
"""Bits after the binary point of the sums, which have room for 4 million states' whole mass."""


class PathVisits(NamedTuple):
    """Which paths each of N states visits, as CSR, and what a candidate there costs."""

    offsets: Int64Array
    """int64 [N + 1]."""
    paths: Int64Array
    """int64 [n], distinct for each state."""
    times: FloatArray
    """float32 [n], at how many of the widths the path is visited; a path visited in part counts in part."""
    prices: FloatArray
    """float32 [n], what a further item on the path costs the state, summed over these widths, in units of mass."""

    @property
    def num_states(self) -> int:
        """N."""
        return len(self.offsets) - 1

    @classmethod
    def joined(cls, blocks: Sequence[PathVisits]) -> PathVisits:
        """Return the visits of blocks of states, one after the other.

        Raises:
            ValueError: no blocks.
        """
        counts = np.concatenate([np.diff(block.offsets) for block in blocks])
        offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        paths, times, prices = (np.concatenate(column) for column in list(zip(*blocks, strict=True))[1:])
        return cls(offsets, paths, times, prices)

    @classmethod
    def at_prices(cls, path_UB: Int64Array, log_density_UB: FloatArray, log_prices: Sequence[float]) -> PathVisits:
        """Return the visits at several prices, from one search that is at least as wide as the widest.

        Args:
            path_UB: int64 paths of each state, distinct, -1 = none.
            log_density_UB: float, ln p(c|x) - ln|c| of these paths.
            log_prices: each lambda; a path is visited where its log density is at least lambda.
        """
        lambdas_F = np.sort(np.asarray(log_prices, dtype=np.float64))
        times_UB = np.where(path_UB >= 0, np.searchsorted(lambdas_F, log_density_UB, side="right"), 0)
        is_visited_UB = times_UB > 0
        summed_F = np.concatenate(([0.0], np.cumsum(np.exp(lambdas_F))))
        times = times_UB[is_visited_UB]
        offsets = np.concatenate(([0], np.cumsum(is_visited_UB.sum(axis=1)))).astype(np.int64)
        paths = path_UB[is_visited_UB].astype(np.int64)
        return cls(offsets, paths, times.astype(np.float32), summed_F[times].astype(np.float32))


def log_prices(log_density_UB: FloatArray, size_UB: Int64Array, budgets: Sequence[float]) -> list[float]:
    """Return for each budget C the lambda at which the states visit C candidates on average, the last path included.

    Args:
        log_density_UB: float, ln p(c|x) - ln|c| of each state's paths.
        size_UB: int64, |c| of these paths.
        budgets: each C.
    """
    order = np.argsort(-log_density_UB, axis=None, kind="stable")
    candidates = np.cumsum(size_UB.ravel()[order]) / len(size_UB)
    places = np.minimum(np.searchsorted(candidates, budgets), len(order) - 1)
    return [float(density) for density in log_density_UB.ravel()[order[places]]]


class Gains(NamedTuple):
    """What items gain on paths, one row for each (item, slot, path) with a gain, ascending."""

    items: Int64Array
    """int64 [n]."""
    slots: Int64Array
    """int64 [n], below J: the item's other slots keep their paths."""
    paths: Int64Array
    """int64 [n]."""
    fixed: Int64Array
    """int64 [n], the gain in units of 2^-FRACTION_BITS."""


def visit_gains(
    mass_VN: csr_matrix, visits: PathVisits, path_VJ: Int64Array, num_paths: int, item_ids: ArrayLike | None = None
) -> Gains:
    """Sum what items would gain on every path that a block of states visits.

    With J = 1 it is the sparse product of the masses with the visits. Of an item's empty slots only the first has rows.

    Args:
        mass_VN: float [V, N], what the states want of these items, by item; CSR.
        visits: of the N states.
        path_VJ: int64 [V, J], the paths of these items, -1 = none.
        num_paths: P.
        item_ids: int64 [V], ids of the items, ascending; by default 0 ... V - 1.

    Raises:
        ValueError: shapes do not fit together, a mass is negative or not finite, or a sum may overflow.
    """
    ids = np.arange(len(path_VJ)) if item_ids is None else integer_array(item_ids, "item_ids")
    num_items, num_states = mass_VN.shape
    if num_states != visits.num_states or path_VJ.ndim != 2 or not len(path_VJ) == len(ids) == num_items:
        raise ValueError(
            f"masses {mass_VN.shape}, paths {path_VJ.shape}, {len(ids)} ids and {visits.num_states} visitors do not fit"
        )
    total = float(mass_VN.data.sum(dtype=np.float64)) * float(visits.times.max(initial=0.0))
    if not np.isfinite(total) or mass_VN.data.min(initial=0.0) < 0:
        raise ValueError("masses must be finite and not negative")
    if total * 2.0**FRACTION_BITS >= 2.0**62:
        raise ValueError(f"masses and visits sum to {total}, too much for {FRACTION_BITS} fraction bits")
    mass, times = _fixed(mass_VN.data, MASS_BITS), _fixed(visits.times, TIMES_BITS)
    visitors = _by_path(visits, times, num_paths if path_VJ.shape[1] > 1 else 0)
    rows, slots, paths, fixed = _sum_gains(
        mass_VN.indptr, mass_VN.indices, mass, path_VJ, visits.offsets, visits.paths, times, visitors, num_paths
    )
    return Gains(ids[rows], slots, paths, fixed)


def merge_gains(blocks: Sequence[Gains]) -> Gains:
    """Sum the gains of several blocks of states, exactly in any order.

    Raises:
        ValueError: no blocks.
    """
    items, slots, paths, fixed = (np.concatenate(column) for column in zip(*blocks, strict=True))
    order = np.lexsort((paths, slots, items))
    items, slots, paths = items[order], slots[order], paths[order]
    is_new = (np.diff(items) != 0) | (np.diff(slots) != 0) | (np.diff(paths) != 0)
    starts = np.flatnonzero(np.concatenate((np.ones(min(len(items), 1), dtype=np.bool_), is_new)))
    summed = np.add.reduceat(fixed[order], starts) if len(starts) else fixed
    return Gains(items[starts], slots[starts], paths[starts], summed)


def visit_costs(visits: PathVisits, num_paths: int) -> DoubleArray:
    """Return what a further item on each path costs all states and widths, float64 [P]; costs of blocks add up."""
    fixed_P = np.zeros(num_paths, dtype=np.int64)
    np.add.at(fixed_P, visits.paths, _fixed(visits.prices, FRACTION_BITS))
    return fixed_P * 2.0**-FRACTION_BITS


def captured_mass(mass_NV: csr_matrix, visits: PathVisits, path_VJ: Int64Array, num_paths: int) -> float:
    """Return the mass of a state on the paths that it visits, an item counted once a width, summed over the widths.

    The mean over the states.

    Args:
        mass_NV: float [N, V], what the states want; CSR.
        visits: of the N states.
        path_VJ: int64 [V, J], -1 = none.
        num_paths: P.
    """
    summed = _captured(mass_NV.indptr, mass_NV.indices, mass_NV.data, path_VJ, *visits[:3], num_paths)
    return float(summed) / max(visits.num_states, 1)


def _by_path(visits: PathVisits, times: Int64Array, num_paths: int) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Return the visits by path, as CSR over the paths: offsets, states, times."""
    order = np.argsort(visits.paths, kind="stable") if num_paths else np.zeros(0, dtype=np.int64)
    states = np.repeat(np.arange(visits.num_states), np.diff(visits.offsets))[order]
    offsets = np.searchsorted(visits.paths[order], np.arange(num_paths + 1))
    return offsets.astype(np.int64), states, times[order]


def _fixed(values: AnyFloatArray, bits: int) -> Int64Array:
    fixed: Int64Array = np.rint(np.asarray(values, dtype=np.float64) * 2.0**bits).astype(np.int64)
    return fixed


@njit(cache=True)
def _captured(indptr, indices, data, path_VJ, offsets, paths, times, num_paths):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    captured, times_P = 0.0, np.zeros(num_paths)
    for state in range(len(indptr) - 1):
        for visit in range(offsets[state], offsets[state + 1]):
            times_P[paths[visit]] = times[visit]
        for entry in range(indptr[state], indptr[state + 1]):
            most = 0.0
            for path in path_VJ[indices[entry]]:
                if path >= 0:
                    most = max(most, times_P[path])
            captured += data[entry] * most
        for visit in range(offsets[state], offsets[state + 1]):
            times_P[paths[visit]] = 0.0
    return captured


@njit(cache=True)
def _sum_gains(indptr, indices, data, path_VJ, offsets, paths, times, visitors, num_paths):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    num_slots, capacity, filled = path_VJ.shape[1], 1024, 0
    out = np.empty((4, capacity), np.int64)  # item, slot, path, gain
    gain_P, touched = np.zeros(num_paths, np.int64), np.empty(num_paths, np.int64)
    covered_N, (path_offsets, path_states, path_times) = np.zeros(len(offsets) - 1, np.int64), visitors
    for item in range(len(indptr) - 1):
        has_empty = False
        for slot in range(num_slots):
            if path_VJ[item, slot] < 0:
                if has_empty:
                    continue
                has_empty = True
            for other in range(num_slots):
                path = path_VJ[item, other]
                if other != slot and path >= 0:
                    for visit in range(path_offsets[path], path_offsets[path + 1]):
                        state = path_states[visit]
                        covered_N[state] = max(covered_N[state], path_times[visit])
            count = 0
            for entry in range(indptr[item], indptr[item + 1]):
                state, mass = indices[entry], data[entry]
                covered = covered_N[state]
                for visit in range(offsets[state], offsets[state + 1]):
                    if times[visit] > covered and mass > 0:
                        path = paths[visit]
                        if gain_P[path] == 0:
                            touched[count] = path
                            count += 1
                        gain_P[path] += mass * (times[visit] - covered)
            for other in range(num_slots):
                path = path_VJ[item, other]
                if other != slot and path >= 0:
                    for visit in range(path_offsets[path], path_offsets[path + 1]):
                        covered_N[path_states[visit]] = 0
            if filled + count > capacity:
                capacity = max(2 * capacity, filled + count)
                grown = np.empty((4, capacity), np.int64)
                grown[:, :filled] = out[:, :filled]
                out = grown
            for path in np.sort(touched[:count]) if 16 * count < num_paths else np.flatnonzero(gain_P):
                out[0, filled], out[1, filled], out[2, filled], out[3, filled] = item, slot, path, gain_P[path]
                gain_P[path] = 0
                filled += 1
    return out[0, :filled].copy(), out[1, :filled].copy(), out[2, :filled].copy(), out[3, :filled].copy()
