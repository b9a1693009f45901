"""Controls and further arms of a run, trained in one process on the states of the frozen encoder.

Every arm gets as many passes over the same samples as Deep Retrieval itself, from a structure model of the same size.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from dr_core.arrays import IntArray
from dr_core.evaluation.evaluator import Arm, EvaluationUsers
from dr_core.learning.budget import StructureChoice, choose_structure
from dr_core.learning.e_step import e_step, fresh_structure
from dr_core.learning.em import learn_structure
from dr_core.learning.start import kmeans_paths, spread, starting_vectors
from dr_core.learning.states import States
from dr_core.model.histories import encode_histories
from dr_core.model.objective import DeepRetrievalModel
from dr_core.paths.kmeans_tree import random_paths
from dr_core.paths.space import PathSpace
from pipelines.config.run import RunConfig

logger = logging.getLogger(__name__)


def total_epochs(config: RunConfig) -> int:
    """Return the passes over the samples that Deep Retrieval's structure model has had."""
    return config.em.rounds * config.em.e_step_epochs + config.em.final_epochs


def train_arms(
    config: RunConfig,
    model: DeepRetrievalModel,
    states: States,
    initial_paths: IntArray,
    validation: EvaluationUsers,
    *,
    seed: int,
) -> Iterator[Arm]:
    """Yield the controls ``random_paths`` and ``embedding_paths``, then the further arms the config asks for.

    Args:
        model: Deep Retrieval's own; its encoder and softmax are shared, its structure model is not.
        initial_paths: pi_0 of the run.
        validation: users whose beams say what a visited path is.
    """
    space = model.space
    num_items, num_paths = initial_paths.shape
    choice = choose_structure(config, num_items, num_paths)

    def fitted(name: str, paths: IntArray) -> Arm:
        logger.info("control %s", name)
        arm = fresh_structure(model, model.structure.config, space, seed)
        e_step(config, arm, states, paths, total_epochs(config), seed)
        return Arm(name, arm, paths)

    validation_UE = encode_histories(model, validation.histories, config.history_length)

    def learned(name: str, start: IntArray, choice: StructureChoice, rounds: int) -> Arm:
        logger.info("arm %s", name)
        arm = fresh_structure(model, model.structure.config, choice.space, seed)
        paths, _ = learn_structure(config, arm, states, start, validation_UE, choice, rounds=rounds, seed=seed)
        return Arm(name, arm, paths)

    sample_NE = spread(states.user_NE, config.paths.profile_states)
    vectors = starting_vectors(model, sample_NE, config.paths, seed)

    def clustered(space: PathSpace, num_paths: int) -> IntArray:
        return kmeans_paths(model, sample_NE, vectors, space, num_paths, config.paths, seed, budgets=choice.budgets)

    embedding_paths = initial_paths
    if config.paths.start == "random":
        embedding_paths = clustered(space, num_paths)
    yield fitted("random_paths", random_paths(num_items, num_paths, space, seed + 1))
    yield fitted("embedding_paths", embedding_paths)
    for other in config.evaluation.other_paths_per_item:
        if other == num_paths:
            continue
        other_choice = choose_structure(config, num_items, other)
        start = clustered(other_choice.space, other)
        yield learned(f"deep_retrieval_j{other}", start, other_choice, config.em.rounds)
    if config.evaluation.random_start_rounds and config.paths.start != "random":
        start = random_paths(num_items, num_paths, space, seed + 2)
        yield learned("deep_retrieval_random_start", start, choice, config.evaluation.random_start_rounds)
