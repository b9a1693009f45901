"""The EM loop in one process, over user states that a frozen encoder computed once.

This is what trains the controls and the further arms of a run: the same trainer, beam, scores and coordinate descent
as the Spark stages, without their start-up costs. Shape legend: N states, T targets, E user dimension, J paths.
"""

from __future__ import annotations

import copy
import logging

import numpy as np
import numpy.typing as npt
import torch

from dr_core.arrays import IntArray
from dr_core.evaluation.evaluator import Arm, EvaluationUsers
from dr_core.learning.alpha import AlphaRule, alpha_rule, items_per_visited_path
from dr_core.learning.budget import StructureChoice
from dr_core.learning.config import LearningConfig
from dr_core.learning.refine import refined
from dr_core.learning.scoring import score_states
from dr_core.learning.start import spread
from dr_core.learning.states import States, StateSource
from dr_core.learning.trainer import EpochResult, Phase, Trainer, TrainingConfig
from dr_core.model.objective import DeepRetrievalModel
from dr_core.model.structure import StructureConfig, StructureModel
from dr_core.paths.assignment import PathAssignment, coordinate_descent
from dr_core.paths.index import build_index
from dr_core.paths.penalty import Penalty
from dr_core.paths.scores import (
    PathCandidates,
)
from dr_core.paths.space import PathSpace
from dr_core.progress import Progress
from dr_core.retrieval.beam_search import beam_search
from dr_core.retrieval.retriever import Retriever


def fresh_structure(
    model: DeepRetrievalModel, config: StructureConfig, space: PathSpace, seed: int
) -> DeepRetrievalModel:
    """Return a copy of a model with the same encoder and softmax and a new structure model."""
    torch.manual_seed(seed)
    fresh = copy.copy(model)
    fresh._modules = dict(model._modules)
    fresh._buffers = dict(model._buffers)
    fresh.structure = StructureModel(config, space, model.encoder.config.dim)
    return fresh


def train_structure(
    model: DeepRetrievalModel,
    states: States,
    path_VJ: npt.NDArray[np.int64],
    *,
    epochs: int,
    batch_states: int,
    training: TrainingConfig,
    seed: int,
) -> list[EpochResult]:
    """E-step: fit the structure model to a fixed mapping, encoder and softmax frozen; updates ``model`` in place."""
    model.set_item_paths(path_VJ)
    source = StateSource(states, batch_states, seed)
    progress = Progress("E-step", epochs * source.steps_per_epoch)
    phase = Phase("e_step", "frozen", epochs)
    return Trainer(model, source, phase, training, seed=seed, report=progress.report).run()


def assign_to_budget(
    candidates: PathCandidates,
    alpha: float,
    rule: AlphaRule,
    *,
    num_paths: int,
    num_sweeps: int,
    visited_paths: npt.NDArray[np.int64],
    space: PathSpace,
) -> tuple[PathAssignment, float, float]:
    """M-step whose alpha is corrected until the visited paths hold the wanted number of items.

    Args:
        visited_paths: int64 [U, B], the beams of some users under the present model.

    Returns:
        the assignment, the alpha it used and the items per visited path it has.
    """
    attempt = 0
    while True:
        assignment = coordinate_descent(
            candidates, Penalty(rule.power, alpha), num_paths=num_paths, num_sweeps=num_sweeps, space=space
        )
        measured = items_per_visited_path(assignment.sizes, visited_paths)
        corrected = rule.corrected(alpha, measured, attempt)
        if corrected is None:
            return assignment, alpha, measured
        alpha, attempt = corrected, attempt + 1


logger = logging.getLogger(__name__)


def learn(
    config: LearningConfig,
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
    retriever = Retriever(model, build_index(np.arange(len(paths)), paths), beam=1, max_length=config.history_length)
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


def _fit(
    config: LearningConfig, model: DeepRetrievalModel, states: States, paths: IntArray, epochs: int, seed: int
) -> None:
    train_structure(
        model,
        states,
        paths,
        epochs=epochs,
        batch_states=max(1, config.training.batch_rows // config.training.num_processes) * config.samples.positions,
        training=config.training,
        seed=seed,
    )
