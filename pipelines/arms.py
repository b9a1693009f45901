"""Controls and further arms of a run, trained in one process on the states of the frozen encoder.

Every arm gets as many passes over the same samples as Deep Retrieval itself, from a structure model of the same size.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from dr_core.model.objective import DeepRetrievalModel
from dr_core.paths.index import build_index
from dr_core.paths.kmeans_tree import random_paths
from dr_core.paths.space import PathSpace
from dr_core.retrieval.beam_search import beam_search
from dr_core.retrieval.retriever import Retriever
from pipelines.budget import StructureChoice, choose_structure
from pipelines.config import RunConfig
from pipelines.local_em import States, assign_to_budget, fresh_structure, score_states, train_structure
from pipelines.stages.evaluate import Arm, EvaluationUsers
from pipelines.stages.refine import refined
from pipelines.stages.structure.assign import AlphaRule
from pipelines.stages.structure.initialize import kmeans_paths, spread, starting_vectors

logger = logging.getLogger(__name__)
IntArray = npt.NDArray[np.int64]


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
        _fit(config, arm, states, paths, total_epochs(config), seed)
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
        arm = fresh_structure(model, model.structure.config, other_choice.space, seed)
        start = clustered(other_choice.space, other)
        yield learn(
            config, f"deep_retrieval_j{other}", arm, states, start, validation, other_choice, config.em.rounds, seed
        )
    if config.evaluation.random_start_rounds and config.paths.start != "random":
        arm = fresh_structure(model, model.structure.config, space, seed)
        start = random_paths(num_items, num_paths, space, seed + 2)
        rounds = config.evaluation.random_start_rounds
        yield learn(config, "deep_retrieval_random_start", arm, states, start, validation, choice, rounds, seed)


def learn(
    config: RunConfig,
    name: str,
    model: DeepRetrievalModel,
    states: States,
    paths: IntArray,
    validation: EvaluationUsers,
    choice: StructureChoice,
    rounds: int,
    seed: int,
    *,
    descends: bool = True,
) -> Arm:
    """Run the EM loop in memory from a start; ``model`` is updated.

    Args:
        descends: whether the M-step is a coordinate descent (and the refinement after it) or the refinement alone.
    """
    logger.info("arm %s", name)
    retriever = Retriever(
        model, build_index(np.arange(len(paths)), paths), beam=1, max_length=config.samples.history_length
    )
    validation_UE = retriever.encode([list(history) for history in validation.histories])
    rule = alpha_rule(config, choice)
    alpha: float | None = None
    for number in range(1, rounds + 1):
        logger.info("  round %d of %d", number, rounds)
        _fit(config, model, states, paths, config.em.e_step_epochs, seed)
        parent = paths
        if descends:
            candidates = score_states(model, states, paths, config.scores.num_candidates)
            if alpha is None:
                alpha = rule.start(float(candidates.weights.mean()))
            visited = beam_search(model.structure, validation_UE, config.budget.beam).path_NB.numpy()
            assignment, alpha, _ = assign_to_budget(
                candidates,
                alpha,
                rule,
                num_paths=paths.shape[1],
                num_sweeps=config.assignment.num_sweeps,
                visited_paths=visited,
                space=choice.space,
            )
            paths = assignment.path_ids
        paths = refined(
            model,
            spread(states.user_NE, config.paths.profile_states),
            paths,
            parent,
            choice.space,
            config.assignment,
            budgets=choice.budgets,
            seed=seed + number,
        )
    _fit(config, model, states, paths, config.em.final_epochs, seed)
    return Arm(name, model, paths)


def alpha_rule(config: RunConfig, choice: StructureChoice) -> AlphaRule:
    """Return where alpha comes from in this run."""
    if config.penalty.alpha == "auto":
        return AlphaRule(None, choice.items_per_visited_path, config.penalty.corrections, config.penalty.power)
    return AlphaRule(config.penalty.alpha, None, 0, config.penalty.power)


def _fit(config: RunConfig, model: DeepRetrievalModel, states: States, paths: IntArray, epochs: int, seed: int) -> None:
    train_structure(
        model,
        states,
        paths,
        epochs=epochs,
        batch_states=max(1, config.training.batch_rows // config.training.num_processes) * config.samples.positions,
        training=config.training,
        seed=seed,
    )
