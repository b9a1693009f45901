"""What a search costs with more and with fewer paths, measured on the warmed-up softmax before there are any.

Items are clustered with each number of paths; the energies that a structure over these clusters starts from
(:meth:`dr_core.model.energy_structure.EnergyStructure.start`) are searched by a sample of user states as a release is: open
the prefixes that are probable enough, visit the paths with most probability an item, down to one price for all states,
until they hold the share wanted of the softmax's best k items.

Shape legend: N states, V items, K items wanted of a state, E user dimension.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor

from dr_core.arrays import IntArray
from dr_core.learning.budget import StructureChoice, cheapest_paths, choose_structure, needs_costs
from dr_core.learning.config import LearningConfig
from dr_core.learning.start import spread, starting_vectors
from dr_core.model.energy_structure import EnergyStructure
from dr_core.model.objective import DeepRetrievalModel
from dr_core.paths.index import build_index
from dr_core.paths.kmeans_tree import fit_kmeans_tree
from dr_core.paths.length import (
    CostGrowth,
    SizeCost,
    between,
    children,
    clip_num_paths,
    fit_growth,
    layers,
    usual_growth,
)
from dr_core.paths.space import PathSpace
from dr_core.retrieval.from_model import compiled_structure
from dr_core.retrieval.prices import Prices

logger = logging.getLogger(__name__)

VECTOR_STATES = 2048
"""States on which the clustered profiles are taken: fewer than for the paths themselves, since two powers are all that is read."""
FEWEST_STATES, MOST_STATES, MOST_VISITS = 128, 1024, 2**21
"""States that search: as many as make ``MOST_VISITS`` pairs of a state and a path, within these bounds."""
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
    paths turns out to lie outside of the two, two around it are measured too, and the growth is taken between both pairs
    where the work has its least there (a step of the secant method).

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
        trials: dict[PathSpace, Prices] = {}
        for num_paths in (around / SPAN**0.5, around * SPAN**0.5):
            within = clip_num_paths(num_paths, num_items, 1, num_items, config.structure.exact_paths)
            space = PathSpace(layers(within, config.paths.num_layers, children(around)))
            if space not in trials:
                _, path_V = fit_kmeans_tree(vectors, space, seed, capacity=config.paths.kmeans_capacity)
                trials[space] = trial(model, user_NE, path_V, space, config)
        if len(trials) < 2:
            return None
        recall = budget.recall or float(np.mean([prices.recall_of(candidates) for prices in trials.values()]))
        costs = [cost_of(prices, recall, space, user_NE.shape[1]) for space, prices in trials.items()]
        for cost in costs:
            logger.info(
                "  %d paths: %.0f candidates and %.0f nodes for %.1f %% of the softmax's best %d",
                cost.num_paths, cost.candidates, cost.nodes, 100 * recall, config.training.validation_k,
            )  # fmt: skip
        return fit_growth(costs)

    usual = usual_growth(num_items, 1, candidates)
    expected = cheapest_paths(config, num_items, 1, usual)[0]
    first = measure(expected)
    if first is None:
        return usual
    cheapest = cheapest_paths(config, num_items, 1, first)[0]
    if cheapest == expected or first.measured_at[0] <= cheapest <= first.measured_at[-1]:
        return first
    second = measure(cheapest)
    if second is None:
        return first
    given = None if budget.recall else candidates
    balances = [growth.balance(budget.candidate_cost, given) for growth in (first, second)]
    if balances[0] * balances[1] > 0:
        return second
    return between(first, second, balances[0] / (balances[0] - balances[1]))


@torch.no_grad()
def trial(
    model: DeepRetrievalModel, user_NE: Tensor, path_V: IntArray, space: PathSpace, config: LearningConfig
) -> Prices:
    """Search some states over clusters int64 [V], by the energies that a structure starts from."""
    searching_NE = spread(user_NE, max(FEWEST_STATES, min(MOST_STATES, MOST_VISITS // space.num_paths)))
    structure = EnergyStructure(config.structure, space, user_NE.shape[1])
    structure.start(user_NE.mean(0), *model.reranker.item_vectors(), torch.from_numpy(path_V)[:, None])
    index = build_index(np.arange(len(path_V)), path_V[:, None])
    wanted_NK = model.reranker.best(searching_NE, min(config.training.validation_k, len(path_V))).numpy()
    candidate_work = config.budget.candidate_cost * user_NE.shape[1]
    return Prices.of(compiled_structure(structure, index), index, searching_NE.numpy(), wanted_NK, candidate_work)


def cost_of(prices: Prices, recall: float, space: PathSpace, user_dim: int) -> SizeCost:
    """Return what a recall costs: its candidates with everything open, and all else as nodes.

    An opening of few prefixes saves nodes and takes further candidates. Which is best may jump from one number of paths to
    the next; the least work does not, so what an opening takes in further candidates counts as nodes.

    Args:
        prices: of a trial.
        recall: wanted, at most what is found with everything open.
        space: of the trial.
        user_dim: E, multiply-adds of a node.
    """
    candidates = prices.candidates_for(recall)
    work = min(offer.work + prices.candidate_work * offer.candidates_for(recall) for offer in prices.offers)
    nodes = (work - prices.candidate_work * candidates) / user_dim
    return SizeCost(space.num_paths, candidates, max(nodes, float(space.nodes[0])))
