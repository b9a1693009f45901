"""The paths that a state would visit if it knew what it wants: an oracle, by which mappings are compared.

A state visits the paths with the most mass per item until they hold C items, the last one in part: a fractional knapsack,
whose greedy answer is the best one (Dantzig 1957). A further candidate costs it the mass per item of its last path.

Shape legend: N states, V items, P paths, F budgets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.sparse import csr_matrix

from dr_core._heap import rise, sink
from dr_core.paths.coverage import PathVisits, captured_mass
from dr_core.paths.space import Int64Array


@dataclass(frozen=True)
class BestVisitors:
    """States that know the mass they want; visitors for :func:`dr_core.paths.refinement.refine_paths` with J = 1.

    Attributes:
        mass_NV: what they want, float [N, V]; CSR.
        num_paths: P.
        budgets: each C, items that a state visits.
    """

    mass_NV: csr_matrix
    num_paths: int
    budgets: Sequence[float]

    def visit(self, path_VJ: Int64Array) -> PathVisits:
        """Return the best visits under a mapping, int64 [V, 1].

        Raises:
            ValueError: an item has no path or several.
        """
        if path_VJ.shape[1] != 1 or path_VJ.min(initial=0) < 0:
            raise ValueError("the best visits are known only where every item has one path")
        size_P = np.bincount(path_VJ[:, 0], minlength=self.num_paths)
        wanted_F = np.asarray(self.budgets, dtype=np.float64)
        mass = self.mass_NV
        return PathVisits(*_visit(mass.data, mass.indices, mass.indptr, path_VJ[:, 0], size_P, wanted_F))

    def captured_mass(self, path_VJ: Int64Array) -> float:
        """Return the mean mass of a state on its best paths, as far as they hold the items of a budget; mean of the budgets."""
        return captured_mass(self.mass_NV, self.visit(path_VJ), path_VJ, self.num_paths) / len(self.budgets)


@njit(cache=True)
def _visit(data, indices, indptr, path_V, size_P, wanted_F):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    num_states, num_paths, num_budgets = len(indptr) - 1, len(size_P), len(wanted_F)
    offsets = np.zeros(num_states + 1, np.int64)
    paths = np.empty(64 * num_states, np.int64)
    times, prices = np.empty(len(paths), np.float32), np.empty(len(paths), np.float32)
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
            prices = np.concatenate((prices, np.empty(len(prices) + count, np.float32)))
        is_open_F[:] = True
        num_visited = 0
        for place in range(count):
            path, left = -key_H[0], count - place - 1
            sink(score_H, key_H, left, score_H[left], key_H[left])
            reached, paid = 0.0, 0.0
            for budget in range(num_budgets):
                if is_open_F[budget]:
                    share = min(1.0, (wanted_F[budget] - num_visited) / size_P[path])
                    reached += share
                    if num_visited + size_P[path] >= wanted_F[budget]:
                        is_open_F[budget] = False
                        price = mass_P[path] / size_P[path]
                        paid += share * price
                        for whole in range(offsets[state], filled):
                            prices[whole] += price
            if reached == 0:
                break
            paths[filled], times[filled], prices[filled] = path, reached, paid
            filled += 1
            num_visited += size_P[path]
        offsets[state + 1] = filled
        mass_P[touched[:count]] = 0.0
    return offsets, paths[:filled].copy(), times[:filled].copy(), prices[:filled].copy()
