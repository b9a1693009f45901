"""States that visit the paths that energies fitted to a mapping send them to: who visits what, asked of a model.

Fitting energies is convex and takes seconds; they start by formula at every mapping, so that visits depend on the mapping
alone. Going on from the energies of the mapping before gives the same paths (docs/decisions.md).

Shape legend: N states, V items, E user dimension, P paths, J paths an item.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from dr_core.model.energy_structure import EnergyStructure
from dr_core.model.structure_config import StructureConfig
from dr_core.paths.coverage import PathVisits, log_prices
from dr_core.paths.space import Int64Array, PathSpace

LEARNING_RATE = 1e-2
STATES_PER_STEP = 256
PRICED_PATHS = 2**22
"""Paths of states on which the prices of the budgets are found: 4,096 states where there are 1,024 paths."""


@dataclass(frozen=True)
class EnergyVisitors:
    """Visitors for :func:`dr_core.paths.refinement.refine_paths` that behave as a served structure does.

    Attributes:
        user_NE: float32, the states.
        mass_NV: what they want, float [N, V]; CSR. Energies are fitted to its sums on the paths, each state counting once.
        vector_VE, bias_V: the softmax over the items, at which energies start.
        num_paths: P.
        budgets: each C, candidates that a state visits on average.
        epochs: passes over the states.
        seed: of their order.
    """

    user_NE: Tensor
    mass_NV: csr_matrix
    vector_VE: Tensor
    bias_V: Tensor
    num_paths: int
    budgets: tuple[float, ...]
    epochs: int = 2
    seed: int = 0

    def visit(self, path_VJ: Int64Array) -> PathVisits:
        """Return every state's visits at the prices of the budgets, with energies fitted to a mapping int64 [V, J]."""
        energies = self.fitted(path_VJ)
        size_P = np.bincount(path_VJ[path_VJ >= 0], minlength=self.num_paths)
        with np.errstate(divide="ignore"):
            log_size_P = torch.from_numpy(np.where(size_P > 0, np.log(size_P), np.inf).astype(np.float32))
        num_priced = max(1, PRICED_PATHS // self.num_paths)
        priced_NE = self.user_NE[:: max(1, len(self.user_NE) // num_priced)]
        density_NP = (_log_p(energies, priced_NE) - log_size_P).numpy()
        lambdas = log_prices(density_NP, np.broadcast_to(size_P, density_NP.shape), self.budgets)
        path_P, blocks = np.arange(self.num_paths), []
        for user_UE in torch.split(self.user_NE, STATES_PER_STEP):
            density_UP = (_log_p(energies, user_UE) - log_size_P).numpy()
            blocks.append(PathVisits.at_prices(np.broadcast_to(path_P, density_UP.shape), density_UP, lambdas))
        return PathVisits.joined(blocks)

    def fitted(self, path_VJ: Int64Array) -> EnergyStructure:
        """Return the energies of all paths that give a state's paths the mass that it wants there.

        They minimise the cross entropy against each state's shares of mass; an item on several paths counts for an equal
        part on each.
        """
        energies = EnergyStructure(StructureConfig(), PathSpace((self.num_paths,)), self.user_NE.shape[1])
        energies.start(self.user_NE.mean(0), self.vector_VE, self.bias_V, torch.from_numpy(path_VJ))
        share_NP = _shares(self.mass_NV, path_VJ, self.num_paths)
        steps = self.epochs * -(-len(self.user_NE) // STATES_PER_STEP)
        optimizer = torch.optim.Adam(energies.parameters(), lr=LEARNING_RATE)
        falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1.0 / max(steps, 1), total_iters=max(steps, 1))
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(self.epochs):
            for rows in torch.randperm(len(self.user_NE), generator=generator).split(STATES_PER_STEP):  # type: ignore[no-untyped-call]
                wanted_NP = torch.from_numpy(share_NP[rows.numpy()].toarray())
                energy_NP = self.user_NE[rows] @ energies.vectors[-1].T + energies.biases[-1]
                loss = -(torch.log_softmax(energy_NP, dim=1) * wanted_NP).sum() / len(rows)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                falling.step()
        return energies


@torch.no_grad()
def _log_p(energies: EnergyStructure, user_NE: Tensor) -> Tensor:
    return torch.log_softmax(torch.addmm(energies.biases[-1], user_NE, energies.vectors[-1].T), dim=1)


def _shares(mass_NV: csr_matrix, path_VJ: Int64Array, num_paths: int) -> csr_matrix:
    """Return the share of each state's mass on each path, float32 [N, P]; CSR."""
    item_M, slot_M = np.nonzero(path_VJ >= 0)
    part_M = (1.0 / (path_VJ >= 0).sum(axis=1))[item_M].astype(np.float32)
    on_path_VP = csr_matrix((part_M, (item_M, path_VJ[item_M, slot_M])), (len(path_VJ), num_paths))
    mass_NP = (mass_NV @ on_path_VP).tocsr()
    total_N = np.asarray(mass_NP.sum(axis=1)).ravel()
    mass_NP.data = (mass_NP.data / np.repeat(total_N, np.diff(mass_NP.indptr))).astype(np.float32)
    return mass_NP
