"""Where items go: the start of a placement and its M-steps, in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from torch import Tensor

from dr_core.arrays import IntArray
from dr_core.learning.alpha import alpha_rule
from dr_core.learning.budget import StructureChoice, visiting_beam
from dr_core.learning.choices import choose_m_step
from dr_core.learning.config import LearningConfig
from dr_core.learning.m_step import MStepFacts, m_step, refine_alone
from dr_core.learning.refine import Refinement
from dr_core.learning.scored_items import ItemsInMemory
from dr_core.learning.scoring import score_states
from dr_core.learning.start import initial_paths, spread
from dr_core.learning.states import States
from dr_core.learning.visits import visited_paths
from dr_core.model.objective import DeepRetrievalModel


class PlacementLearner(Protocol):
    """What the EM loop asks for the groups of items; they are int64 [V, J], -1 where an item is in fewer."""

    def start(self, model: DeepRetrievalModel, user_NE: Tensor) -> IntArray:
        """Return the first placement.

        Args:
            model: its softmax is warmed up.
            user_NE: float32 user states.
        """

    def improve(
        self, model: DeepRetrievalModel, states: States, now_VJ: IntArray, user_UE: Tensor
    ) -> tuple[IntArray, MStepFacts]:
        """Return a better placement, and what was done for it: one M-step.

        Args:
            model: its structure is fitted to ``now_VJ``.
            states: user states with their targets.
            now_VJ: the placement in force.
            user_UE: float32, states of the users whose searches say which groups are visited.

        Raises:
            ConfigError: the M-step that was asked for cannot run.
        """


class PathLearner:
    """Puts items on paths: clusters of their profiles first; then coordinate descent (Deep Retrieval, section 3),
    refinement, or both. Each M-step starts from the alpha of the one before it.

    Args:
        config: of the run.
        choice: K, D and the budget.
        seed: of the start and the refinements.
    """

    def __init__(self, config: LearningConfig, choice: StructureChoice, seed: int) -> None:
        self.config, self.choice, self.seed = config, choice, seed
        self._rule = alpha_rule(config, choice)
        self._refinement: Refinement | None = None

    def start(self, model: DeepRetrievalModel, user_NE: Tensor) -> IntArray:
        """Return pi_0, int64 [V, J] (:func:`dr_core.learning.start.initial_paths`)."""
        sample_NE = spread(user_NE, self.config.paths.profile_states)
        return initial_paths(model, sample_NE, self.choice, self.config.paths, self.seed)

    def improve(
        self, model: DeepRetrievalModel, states: States, now_VJ: IntArray, user_UE: Tensor
    ) -> tuple[IntArray, MStepFacts]:
        """Return pi_t, int64 [V, J], and what this M-step did."""
        chosen = choose_m_step(self.config.assignment, len(now_VJ), now_VJ.shape[1], self.config.structure.normaliser)
        visited = visited_paths(model, now_VJ, user_UE, visiting_beam(self.config, self.choice))
        refinement = self._next_refinement(model, states) if chosen.refines else None
        if refinement is not None and not chosen.descends:
            return refine_alone(refinement, now_VJ, visited)
        candidates = score_states(model, states, now_VJ, self.config.scores.num_candidates)
        items = ItemsInMemory(candidates, self.config.assignment.num_sweeps, self.choice.space)
        placed, facts = m_step(items, self._rule, visited, refinement)
        if facts.alpha is not None:
            self._rule = self._rule.starting_at(facts.alpha)
        return placed.path_VJ, facts

    def _next_refinement(self, model: DeepRetrievalModel, states: States) -> Refinement:
        if self._refinement is None:  # once: the softmax stands still while the structure is learned
            sample_NE = spread(states.user_NE, self.config.assignment.refine_states)
            self._refinement = Refinement.of(model, sample_NE, self.choice, self.config.assignment, self.seed)
        self._refinement = replace(self._refinement, seed=self._refinement.seed + 1)
        return self._refinement
