"""The EM loop in one process, over user states that a frozen encoder computed once (Deep Retrieval, section 3).

Shape legend: V items, J paths an item, U users, E user dimension.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from torch import Tensor

from dr_core.arrays import IntArray
from dr_core.learning.alpha import alpha_rule
from dr_core.learning.budget import StructureChoice
from dr_core.learning.choices import choose_m_step
from dr_core.learning.config import LearningConfig
from dr_core.learning.e_step import e_step
from dr_core.learning.m_step import MStepFacts, m_step, refine_alone
from dr_core.learning.refine import Refinement
from dr_core.learning.scored_items import ItemsInMemory
from dr_core.learning.scoring import score_states
from dr_core.learning.start import spread
from dr_core.learning.states import States
from dr_core.learning.visits import visited_paths
from dr_core.model.objective import DeepRetrievalModel

logger = logging.getLogger(__name__)


def learn_structure(
    config: LearningConfig,
    model: DeepRetrievalModel,
    states: States,
    path_VJ: IntArray,
    user_UE: Tensor,
    choice: StructureChoice,
    *,
    rounds: int,
    seed: int,
) -> tuple[IntArray, list[MStepFacts]]:
    """Run the EM loop from a start: T times an E-step, scores and an M-step, and a last E-step.

    Args:
        config: of the run.
        model: its structure model is trained in place.
        states: user states with their targets.
        path_VJ: int64 [V, J], pi_0.
        user_UE: float32, states of the users whose beams say what a visited path is.
        choice: K, D and the budget.
        rounds: T.
        seed: of the E-steps and refinements.

    Returns:
        pi_T, int64 [V, J], and what each M-step did.

    Raises:
        ConfigError: the configured M-step cannot run for this V and J.
    """
    chosen = choose_m_step(config.assignment, *path_VJ.shape)
    rule, done = alpha_rule(config, choice), []
    refinement = None
    if chosen.refines:
        sample_NE = spread(states.user_NE, config.paths.profile_states)
        refinement = Refinement.of(model, sample_NE, choice, config.assignment, seed)
    for number in range(1, rounds + 1):
        logger.info("  round %d of %d", number, rounds)
        e_step(config, model, states, path_VJ, config.em.e_step_epochs, seed)
        visited = visited_paths(model, path_VJ, user_UE, config.budget.beam)
        if refinement is not None:
            refinement = replace(refinement, seed=seed + number)
        if refinement is not None and not chosen.descends:
            path_VJ, facts = refine_alone(refinement, path_VJ, visited)
        else:
            candidates = score_states(model, states, path_VJ, config.scores.num_candidates)
            items = ItemsInMemory(candidates, config.assignment.num_sweeps, choice.space)
            placed, facts = m_step(items, rule, visited, refinement)
            path_VJ = placed.path_VJ
        rule = rule if facts.alpha is None else rule.starting_at(facts.alpha)
        done.append(facts)
    e_step(config, model, states, path_VJ, config.em.final_epochs, seed)
    return path_VJ, done
