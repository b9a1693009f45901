"""Small worlds of states that visit paths, for the tests of coverage and refinement."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from dr_core.paths.coverage import PathVisits

NUM_PATHS = 7
LOG_PRICES = (-3.2, -2.0, -4.5)


class Case(NamedTuple):
    """N states, V items on up to J of seven paths, F = 3 widths."""

    mass_NV: np.ndarray
    path_VJ: np.ndarray
    density_NP: np.ndarray

    @property
    def visits(self) -> PathVisits:
        path_NP = np.broadcast_to(np.arange(NUM_PATHS), self.density_NP.shape)
        return PathVisits.at_prices(path_NP, self.density_NP, LOG_PRICES)

    @property
    def by_item(self) -> csr_matrix:
        return csr_matrix(self.mass_NV.T)

    def is_visited(self, price: float) -> np.ndarray:
        """bool [N, P]."""
        return self.density_NP >= price


def draw_case(seed: int, *, num_states: int = 9, num_items: int = 14, num_slots: int = 1, holes: float = 0.3) -> Case:
    """Draw a case; with several slots some but the first are empty."""
    rng = np.random.default_rng(seed)
    mass_NV = rng.dirichlet(np.full(num_items, 0.3), size=num_states)
    mass_NV[rng.random(mass_NV.shape) < 0.3] = 0
    path_VJ = np.stack([rng.permutation(NUM_PATHS)[:num_slots] for _ in range(num_items)])
    path_VJ[:, 1:][rng.random((num_items, num_slots - 1)) < holes] = -1
    return Case(mass_NV, path_VJ.astype(np.int64), rng.normal(-3, 1.2, size=(num_states, NUM_PATHS)))


def net_mass(case: Case, path_VJ: np.ndarray) -> float:
    """What the visitors get less what they pay, by plain loops over widths, states and items."""
    net = 0.0
    for price in LOG_PRICES:
        is_visited_NP = case.is_visited(price)
        for item, paths in enumerate(path_VJ):
            seen_NJ = is_visited_NP[:, paths[paths >= 0]]
            net += float(case.mass_NV[seen_NJ.any(axis=1), item].sum() - np.exp(price) * seen_NJ.sum())
    return net
