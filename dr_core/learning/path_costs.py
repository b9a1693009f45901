"""What a search costs with more and with fewer paths, measured on the warmed-up softmax before there are any.

Items are clustered with each number of paths; the energies that a structure over these clusters starts from
(:meth:`dr_core.model.energy_structure.EnergyStructure.start`) are searched by a sample of user states as a release is: open
the prefixes that are probable enough, visit the paths with most probability an item, down to one price for all states,
until they hold the share wanted of the softmax's best k items.

Shape legend: N states, V items, P paths, Q prefixes of some depth, E user dimension, k items wanted of a state, R visits
(pairs of a state and a path).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dr_core.arrays import BoolArray, DoubleArray, FloatArray, IntArray
from dr_core.learning.budget import StructureChoice, cheapest_paths, choose_structure, needs_costs
from dr_core.learning.config import LearningConfig
from dr_core.learning.start import spread, starting_vectors
from dr_core.model.energy_structure import EnergyStructure
from dr_core.model.objective import DeepRetrievalModel
from dr_core.paths.kmeans_tree import fit_kmeans_tree
from dr_core.paths.length import CostGrowth, SizeCost, children, clip_num_paths, fit_growth, layers, usual_growth
from dr_core.paths.space import PathSpace

logger = logging.getLogger(__name__)

VECTOR_STATES = 2048
"""States on which the clustered profiles are taken: fewer than for the paths themselves, since two powers are all that is read."""
STATES, FEWEST_STATES, MOST_VISITS = 1024, 128, 2**22
"""States that search: ``STATES``, or as many as make ``MOST_VISITS`` pairs of a state and a path, not fewer than ``FEWEST_STATES``."""
OPENINGS = (-3.0, -4.0, -5.0, -6.0, -7.0, -8.0, -9.0, -np.inf)
"""Least logarithms of probability at which prefixes are tried open; the one of least work counts."""
SPAN = 4.0
"""The larger number of paths, in units of the smaller one."""


def choose_paths(
    model: DeepRetrievalModel, user_NE: Tensor, config: LearningConfig, seed: int
) -> tuple[StructureChoice, CostGrowth | None]:
    """Choose the structure of a warmed-up model, and measure what the choice needs.

    Args:
        model: warmed up; its own structure plays no part.
        user_NE: float32, a sample of user states.
        config: of the run.
        seed: of the measurement.

    Returns:
        The choice; and the growth that it rests on, None where nothing was measured: it is given by the user, follows a rule
        without costs, or there are more items than k-means holds (``paths.kmeans_sample``).
    """
    growth = None
    if needs_costs(config) and model.num_items <= config.paths.kmeans_sample:
        growth = measure_growth(model, user_NE, config, seed)
    return choose_structure(config, model.num_items, config.paths.paths_per_item, growth), growth


def measure_growth(model: DeepRetrievalModel, user_NE: Tensor, config: LearningConfig, seed: int) -> CostGrowth:
    """Measure the cost of two numbers of paths, ``SPAN`` apart around the one that is expected, and fit its growth.

    The recall is ``budget.recall``, or the mean of what the budget's candidates hold with both. Where the cheapest number of
    paths turns out to lie outside of the two, two around it are measured in their place, once.

    Args:
        model: warmed up.
        user_NE: float32, a sample of user states.
        config: its budget, k (``training.validation_k``) and k-means.
        seed: of profiles and k-means.

    Returns:
        The growth; the usual one where there are too few items for two numbers of paths.
    """
    budget, num_items = config.budget, model.num_items
    candidates = budget.expected_candidates(num_items)
    vectors = starting_vectors(model, spread(user_NE, VECTOR_STATES), config.paths, seed)

    def measure(around: float) -> CostGrowth | None:
        searches: dict[int, TrialSearch] = {}
        for num_paths in (around / SPAN**0.5, around * SPAN**0.5):
            within = clip_num_paths(num_paths, num_items, 1, num_items)
            space = PathSpace(layers(within, config.paths.num_layers, children(around)))
            if space.num_paths not in searches:
                _, path_V = fit_kmeans_tree(vectors, space, seed, capacity=config.paths.kmeans_capacity)
                searches[space.num_paths] = TrialSearch.of(model, user_NE, path_V, space, config)
        if len(searches) < 2:
            return None
        recall = budget.recall or float(np.mean([search.recall_of(candidates) for search in searches.values()]))
        costs = [search.cost_of(recall, budget.candidate_cost) for search in searches.values()]
        for cost in costs:
            logger.info(
                "  %d paths: %.0f candidates and %.0f nodes for %.1f %% of the softmax's best %d",
                cost.num_paths, cost.candidates, cost.nodes, 100 * recall, config.training.validation_k,
            )  # fmt: skip
        return fit_growth(costs)

    expected = cheapest_paths(config, num_items, 1, usual_growth(num_items, 1, candidates))[0]
    growth = measure(expected)
    if growth is None:
        return usual_growth(num_items, 1, candidates)
    cheapest = cheapest_paths(config, num_items, 1, growth)[0]
    if not growth.measured_at[0] <= cheapest <= growth.measured_at[-1]:
        growth = measure(cheapest) or growth
    return growth


@dataclass(frozen=True)
class TrialSearch:
    """A search by price over clusters: which visits there are, best first, and what each of them finds and costs.

    Attributes:
        space: of the paths.
        state_R, path_R: int64, the visits by falling probability an item; all states and all paths that hold items.
        found_R: share of all wanted items that each visit finds.
        size_R: items on its path.
        log_q_NQ: for each depth above the last, ln of the probability of its prefixes.
    """

    space: PathSpace
    state_R: IntArray
    path_R: IntArray
    found_R: DoubleArray
    size_R: IntArray
    log_q_NQ: tuple[FloatArray, ...]

    @classmethod
    @torch.no_grad()
    def of(
        cls, model: DeepRetrievalModel, user_NE: Tensor, path_V: IntArray, space: PathSpace, config: LearningConfig
    ) -> TrialSearch:
        """Return the search over the energies that clusters int64 [V] start from."""
        num_states = max(FEWEST_STATES, min(STATES, MOST_VISITS // space.num_paths))
        searching_NE = spread(user_NE, num_states)
        structure = EnergyStructure(config.structure, space, user_NE.shape[1])
        structure.start(user_NE.mean(0), *model.reranker.item_vectors(), torch.from_numpy(path_V)[:, None])
        *log_q_NQ, log_p_NP = (
            torch.log_softmax(torch.addmm(bias_Q, searching_NE, vector_QE.T), dim=1).numpy()
            for vector_QE, bias_Q in zip(structure.vectors, structure.biases, strict=True)
        )
        best_NK = model.reranker.best(searching_NE, min(config.training.validation_k, len(path_V))).numpy()
        return cls.over(log_p_NP, tuple(log_q_NQ), path_V[best_NK], path_V, space)

    @classmethod
    def over(
        cls,
        log_p_NP: FloatArray,
        log_q_NQ: tuple[FloatArray, ...],
        wanted_NK: IntArray,
        path_V: IntArray,
        space: PathSpace,
    ) -> TrialSearch:
        """Return the search by given probabilities, for the items on the paths ``wanted_NK``."""
        num_states, num_paths = log_p_NP.shape
        size_P = np.bincount(path_V, minlength=num_paths)
        occupied = np.flatnonzero(size_P)
        density_NO = log_p_NP[:, occupied] - np.log(size_P[occupied], dtype=np.float32)
        order_R = np.argsort(-density_NO, axis=None, kind="stable")
        state_R, path_R = order_R // len(occupied), occupied[order_R % len(occupied)]
        wanted_of = np.arange(num_states)[:, None] * num_paths + wanted_NK
        found_NP = np.bincount(wanted_of.ravel(), minlength=num_states * num_paths)
        found_R = found_NP[state_R * num_paths + path_R] / wanted_NK.size
        return cls(space, state_R, path_R, found_R, size_P[path_R], log_q_NQ)

    @property
    def num_states(self) -> int:
        """N."""
        return int(self.state_R.max()) + 1

    def recall_of(self, candidates: float) -> float:
        """Return the recall that a number of candidates a state buys where every prefix is open."""
        spent_R = np.cumsum(self.size_R) / self.num_states
        return float(self.found_R[: int(np.searchsorted(spent_R, candidates)) + 1].sum())

    def cost_of(self, recall: float, candidate_cost: float) -> SizeCost:
        """Return the cost of a recall at the opening of least work."""
        costs = (self._cost_at(opening, recall) for opening in OPENINGS)
        return min(
            (cost for cost in costs if cost is not None), key=lambda cost: cost.nodes + candidate_cost * cost.candidates
        )

    def _cost_at(self, opening: float, recall: float) -> SizeCost | None:
        """Return the cost of a recall where prefixes of at least this probability are open; None if it cannot be reached."""
        is_open_NQ: BoolArray = np.ones((self.num_states, 1), dtype=np.bool_)
        nodes = float(self.space.nodes[0])
        for depth, log_q_NQ in enumerate(self.log_q_NQ, start=1):
            is_open_NQ = np.repeat(is_open_NQ, self.space.nodes[depth - 1], axis=1) & (log_q_NQ >= opening)
            nodes += self.space.nodes[depth] * is_open_NQ.sum() / self.num_states
        below = self.space.paths_below(len(self.log_q_NQ))
        is_open_R = is_open_NQ[self.state_R, self.path_R // below]
        reached_R = np.cumsum(self.found_R * is_open_R)
        place = int(np.searchsorted(reached_R, min(recall, 1.0) - 1e-9))
        if place == len(reached_R):
            return None
        visited = (self.size_R * is_open_R)[: place + 1].sum() / self.num_states
        return SizeCost(self.space.num_paths, float(visited), nodes)
