"""The refinement of an M-step: items move to the paths whose visitors want them, by the softmax's own wishes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from dr_core.arrays import IntArray
from dr_core.learning.budget import StructureChoice
from dr_core.learning.config import AssignmentConfig
from dr_core.learning.energy_visitors import EnergyVisitors
from dr_core.learning.start import softmax_mass
from dr_core.model.energy_structure import EnergyStructure
from dr_core.model.objective import DeepRetrievalModel
from dr_core.paths.best_visits import BestVisitors
from dr_core.paths.coverage import captured_mass
from dr_core.paths.refinement import Visitors, refine_paths

BY_ENERGIES, BY_BEST = (5, 6.0), (20, 1.75)
"""Sweeps and capacity where fitted energies say what is visited, and where states visit their best paths."""
LARGEST_SHARE = 0.04
"""Share of the items on one path up to which a capacity that nobody set lets it grow: below what counts as a collapse."""
BEST_STATES = 8192
"""States that visit their best paths: the mass of each is held for many items."""
LISTED_SHARE, ALIKE_SHARE = 2 / 3, 1 / 4
"""Items that a state wants, and how many of them it also wants equally, in units of the candidates it pays for: what these
are to hold, no more (docs/decisions.md)."""
LISTED, ALIKE = (20, 300), (10, 200)
"""Fewest and most of them."""


@dataclass(frozen=True)
class Refinement:
    """Refines mappings (:func:`dr_core.paths.refinement.refine_paths`).

    Attributes:
        mass_NV: what a sample of user states wants, float32 [N, V], sparse.
        visitors: these states.
        num_paths: P.
        num_sweeps: of the refinement.
        capacity: largest path that takes items, as a multiple of the mean V / P.
        seed: of the items that a sweep considers.
    """

    mass_NV: csr_matrix
    visitors: Visitors
    num_paths: int
    num_sweeps: int
    capacity: float
    seed: int

    @classmethod
    def of(
        cls, model: DeepRetrievalModel, user_NE: Tensor, choice: StructureChoice, config: AssignmentConfig, seed: int
    ) -> Refinement:
        """Return the refinement for a model's softmax and a sample of user states, float32 [N, E].

        A structure of energies is served by price, so that energies fitted to each mapping say what is visited; for a
        product of layers every state visits its best paths, which are known where every item has one.
        """
        num_paths = choice.space.num_paths
        if isinstance(model.structure, EnergyStructure):
            mass_NV = wanted_lists(model, user_NE, choice.candidates)
            softmax = model.reranker.item_vectors()
            epochs = config.refine_epochs
            visitors: Visitors = EnergyVisitors(user_NE, mass_NV, *softmax, num_paths, choice.budgets, epochs, seed)
            by_default = BY_ENERGIES
        else:
            mass_NV = softmax_mass(model, user_NE[:BEST_STATES])
            visitors = BestVisitors(mass_NV, num_paths, choice.budgets)
            by_default = BY_BEST
        sweeps = by_default[0] if config.refine_sweeps == "auto" else config.refine_sweeps
        if config.refine_capacity == "auto":
            capacity = min(by_default[1], max(BY_BEST[1], LARGEST_SHARE * num_paths))
        else:
            capacity = config.refine_capacity
        return cls(mass_NV, visitors, num_paths, sweeps, capacity, seed)

    def refine(self, *starts: IntArray) -> IntArray:
        """Refine the best of several mappings, int64 [V, J]; return int64 [V, J].

        The best is the one whose visitors find most of what they want, for equal numbers of candidates. Of equal ones it
        is the first. A mapping that leaves an item on no path does not take part. Where items have several paths, each
        mapping also takes part with their first ones alone: a further path that was not chosen for what it covers costs
        more than it brings. The refinement fills the empty slots where that pays.

        Raises:
            ValueError: every mapping leaves an item on no path, or items have several and the visitors know only of one.
        """
        complete = [start for start in starts if (start >= 0).any(axis=1).all()]
        if not complete:
            raise ValueError("every mapping leaves an item on no path: nothing can be refined")
        if complete[0].shape[1] > 1:
            complete += [_first_alone(start) for start in complete]
        refined_VJ = refine_paths(
            self.mass_NV,
            max(complete, key=self._captured) if len(complete) > 1 else complete[0],
            self.num_paths,
            self.visitors,
            num_sweeps=self.num_sweeps,
            capacity=self.capacity,
            seed=self.seed,
        )
        return _filled_first(refined_VJ)

    def _captured(self, path_VJ: IntArray) -> float:
        return captured_mass(self.mass_NV, self.visitors.visit(path_VJ), path_VJ, self.num_paths)


@torch.inference_mode()
def wanted_lists(model: DeepRetrievalModel, user_NE: Tensor, candidates: float) -> csr_matrix:
    """Return what states want of their best items: half by the softmax's mass, half equally of the very best.

    Lists of recommendations are judged item by item, whatever the softmax's mass of each, so that mass alone asks for
    too little of the tail of a list (docs/decisions.md).

    Args:
        model: its softmax.
        user_NE: float32.
        candidates: C, that a state pays for: ``LISTED_SHARE`` C items are wanted, ``ALIKE_SHARE`` C of them equally too.

    Returns:
        float32 [N, V], sparse; every row sums to 1.
    """
    listed = min(_within(LISTED_SHARE * candidates, *LISTED), model.num_items)
    alike = min(_within(ALIKE_SHARE * candidates, *ALIKE), listed)
    shares, items = [], []
    for start in range(0, len(user_NE), 256):
        best = model.reranker.score_all(user_NE[start : start + 256]).topk(listed, dim=1)
        share_NK = 0.5 * torch.softmax(best.values, dim=1)
        share_NK[:, :alike] += 0.5 / alike
        shares.append(share_NK.numpy().ravel())
        items.append(best.indices.numpy().ravel().astype(np.int32))
    offsets = np.arange(len(user_NE) + 1) * listed
    return csr_matrix((np.concatenate(shares), np.concatenate(items), offsets), (len(user_NE), model.num_items))


def _filled_first(path_VJ: IntArray) -> IntArray:
    """Return the mapping with empty slots behind the others, which keep their order."""
    return np.take_along_axis(path_VJ, np.argsort(path_VJ < 0, axis=1, kind="stable"), axis=1)


def _first_alone(path_VJ: IntArray) -> IntArray:
    first_VJ = _filled_first(path_VJ)
    first_VJ[:, 1:] = -1
    return first_VJ


def _within(number: float, fewest: int, most: int) -> int:
    return max(fewest, min(most, round(number)))
