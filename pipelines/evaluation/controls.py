"""Controls and further variants of a run, trained in one process on the states of the frozen encoder.

Each gets as many passes over the same samples as Deep Retrieval itself, with a structure model of the same size.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cached_property

from torch import Tensor

from dr_core.arrays import FloatArray, IntArray
from dr_core.evaluation.evaluator import EvaluationUsers, Variant
from dr_core.learning.budget import StructureChoice, choose_structure
from dr_core.learning.choices import kept_epochs
from dr_core.learning.e_step import e_step, fresh_structure
from dr_core.learning.em import learn_structure
from dr_core.learning.placement import PathLearner
from dr_core.learning.start import kmeans_paths, spread, starting_vectors
from dr_core.learning.states import States
from dr_core.model.histories import encode_histories
from dr_core.model.objective import DeepRetrievalModel
from dr_core.paths.kmeans_tree import random_paths
from dr_core.paths.length import CostGrowth
from pipelines.config.run import RunConfig
from pipelines.evaluation.methods import RANDOM_START, other_paths_per_item

logger = logging.getLogger(__name__)


def total_epochs(config: RunConfig) -> int:
    """Return the passes over the samples that Deep Retrieval's structure model keeps."""
    return config.em.rounds * kept_epochs(config) + config.em.final_epochs


class Controls:
    """What can be trained beside a run.

    Args:
        model: Deep Retrieval's own; its encoder and softmax are shared, its structure model is not.
        states: of the samples, under this encoder.
        choice: the run's structure.
        growth: what the run measured of searches, or None.
        initial_paths: pi_0 of the run, int64 [V, J].
        validation: users whose beams say what a visited path is.
    """

    def __init__(
        self,
        config: RunConfig,
        model: DeepRetrievalModel,
        states: States,
        choice: StructureChoice,
        growth: CostGrowth | None,
        initial_paths: IntArray,
        validation: EvaluationUsers,
        *,
        seed: int,
    ) -> None:
        self.config, self.model, self.states, self.seed = config, model, states, seed
        self.choice, self.growth = choice, growth
        self.initial_paths, self.validation = initial_paths, validation
        self.num_items, self.num_paths = initial_paths.shape

    def all(self) -> Mapping[str, Callable[[], Variant]]:
        """Return what trains each control and further variant that the configuration asks for, by name."""
        evaluation, start = self.config.evaluation, self.config.paths.start
        training: dict[str, Callable[[], Variant]] = {
            "random_paths": self.random_paths,
            "embedding_paths": self.embedding_paths,
        }
        for other in evaluation.other_paths_per_item:
            if other != self.num_paths:
                training[other_paths_per_item(other)] = lambda other=other: self.other_paths(other)  # type: ignore[misc]
        if evaluation.random_start_rounds and start != "random":
            training[RANDOM_START] = self.random_start
        return training

    def random_paths(self) -> Variant:
        """A structure model trained on a fixed random mapping."""
        return self._fitted(
            "random_paths", random_paths(self.num_items, self.num_paths, self.model.space, self.seed + 1)
        )

    def embedding_paths(self) -> Variant:
        """A structure model trained on clusters of the items' vectors, which never change."""
        paths = self.initial_paths
        if self.config.paths.start == "random":
            paths = self._clustered(self.choice, self.num_paths)
        return self._fitted("embedding_paths", paths)

    def other_paths(self, num_paths: int) -> Variant:
        """Deep Retrieval with another J, its own number of paths, the same budget, and the M-step that runs for that J."""
        choice = choose_structure(self.config, self.num_items, num_paths, self.growth)
        paths = self._clustered(choice, num_paths)
        config = self.config
        if num_paths > 1:
            config = config.model_copy(update={"assignment": config.assignment.model_copy(update={"m_step": "auto"})})
        return self._learned(other_paths_per_item(num_paths), paths, choice, self.config.em.rounds, config)

    def random_start(self) -> Variant:
        """Deep Retrieval from random paths."""
        paths = random_paths(self.num_items, self.num_paths, self.model.space, self.seed + 2)
        rounds = self.config.evaluation.random_start_rounds
        return self._learned(RANDOM_START, paths, self.choice, rounds, self.config)

    def _fitted(self, name: str, paths: IntArray) -> Variant:
        logger.info("control %s", name)
        model = fresh_structure(self.model, self.model.structure.config, self.model.space, self.seed)
        e_step(self.config, model, self.states, paths, total_epochs(self.config), self.seed)
        return Variant(name, model, paths)

    def _learned(self, name: str, paths: IntArray, choice: StructureChoice, rounds: int, config: RunConfig) -> Variant:
        model = fresh_structure(self.model, self.model.structure.config, choice.space, self.seed)
        logger.info("variant %s", name)
        learner = PathLearner(config, choice, self.seed)
        paths, _ = learn_structure(
            config, model, self.states, paths, self._validation_UE, learner, rounds=rounds, seed=self.seed
        )
        return Variant(name, model, paths)

    @cached_property
    def _validation_UE(self) -> Tensor:
        return encode_histories(self.model, self.validation.histories, self.config.history_length)

    @cached_property
    def _sample_NE(self) -> Tensor:
        return spread(self.states.user_NE, self.config.paths.profile_states)

    @cached_property
    def _vectors(self) -> FloatArray:
        return starting_vectors(self.model, self._sample_NE, self.config.paths, self.seed)

    def _clustered(self, choice: StructureChoice, num_paths: int) -> IntArray:
        return kmeans_paths(
            self.model, self._sample_NE, self._vectors, choice.space, num_paths, self.config.paths, self.seed,
            budgets=self.choice.budgets,
        )  # fmt: skip
