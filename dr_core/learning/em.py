"""Day one in one process: histories in; a model, a mapping and an index out (Deep Retrieval, section 3).

samples -> warm-up -> how many paths -> initial paths -> mixed targets -> T x (E-step, scores, M-step) -> last E-step ->
index. The Spark flows run the same steps over tables. Shape legend: V items, J paths an item, U users, E user dimension.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from dr_core.arrays import IntArray
from dr_core.learning.budget import StructureChoice, refuse_unlearnable
from dr_core.learning.choices import Choice, choose_algorithms, choose_m_step, log_choices, round_epochs
from dr_core.learning.config import LearningConfig
from dr_core.learning.e_step import e_step
from dr_core.learning.held_out import HeldOut
from dr_core.learning.m_step import MStepFacts
from dr_core.learning.mixed_samples import mixed_samples
from dr_core.learning.path_costs import choose_paths
from dr_core.learning.placement import PathLearner, PlacementLearner
from dr_core.learning.samples import Histories, SampleSource, cut_histories
from dr_core.learning.states import States
from dr_core.learning.trainer import EpochResult, Phase
from dr_core.learning.warm_up import new_model, path_free_space, train_samples, warm_up, with_paths
from dr_core.model.histories import encode_histories
from dr_core.model.objective import Batch, DeepRetrievalModel
from dr_core.paths.index import PathIndex, build_index

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Learned:
    """What day one learned.

    Attributes:
        model: trained, in evaluation mode.
        path_VJ: int64, the mapping pi_T.
        index: its inverse.
        choice: K, D and the budget.
        algorithms: what was chosen by size, with reasons.
        warm_up: what each epoch of the warm-up did.
        rounds: what each M-step did.
    """

    model: DeepRetrievalModel
    path_VJ: IntArray
    index: PathIndex
    choice: StructureChoice
    algorithms: dict[str, Choice]
    warm_up: list[EpochResult]
    rounds: list[MStepFacts]


def learn(histories: Histories, num_items: int, config: LearningConfig, held_out: HeldOut) -> Learned:
    """Learn a structure from the histories of the training users.

    Args:
        histories: item ids below V.
        num_items: V.
        config: of the run; its seed is the root of all randomness.
        held_out: users who are not in ``histories``. They judge the epochs of the warm-up, and their searches say which
            paths are visited.

    Raises:
        ConfigError: the configured M-step cannot run for this V and J.
        ValueError: no history has two events.
    """
    refuse_unlearnable(config, num_items, config.paths.paths_per_item)
    samples = cut_histories(histories, config.samples, config.seed, history_length=config.history_length)
    if not len(samples):
        raise ValueError("no history has two events: there is nothing to learn from")
    counts = histories.counts(num_items)
    warm = new_model(config, path_free_space(config), counts)
    epochs = warm_up(config, warm, samples, held_out)

    states = _states(config, warm, samples)
    choice, _ = choose_paths(warm, states.user_NE, config, config.seed)
    algorithms = choose_algorithms(config, num_items, config.paths.paths_per_item, choice.space)
    for reason in choice.reasons:
        logger.info("  %s", reason)
    log_choices(algorithms)
    model = with_paths(config, warm, choice.space, counts)
    learner = PathLearner(config, choice, config.seed)
    path_VJ = learner.start(model, states.user_NE)
    if config.mixed_targets.share:
        samples = mixed_samples(model, samples, states, path_VJ, config.mixed_targets, config.seed)
    if config.em.joint_epochs:
        model.set_item_paths(path_VJ)
        model.start_structure(states.user_NE)
        train_samples(config, model, samples, Phase("joint", "joint", config.em.joint_epochs))
    states = _states(config, model, samples)

    held_out_UE = encode_histories(model, held_out.histories, config.history_length)
    path_VJ, rounds = learn_structure(
        config, model, states, path_VJ, held_out_UE, learner, rounds=config.em.rounds, seed=config.seed
    )
    index = build_index(np.arange(num_items), path_VJ)
    return Learned(model.eval(), path_VJ, index, choice, algorithms, epochs, rounds)


def _states(config: LearningConfig, model: DeepRetrievalModel, samples: Batch) -> States:
    return States.encode(model, SampleSource(samples, config.training.batch_rows, config.seed).in_order())


def learn_structure(
    config: LearningConfig,
    model: DeepRetrievalModel,
    states: States,
    path_VJ: IntArray,
    user_UE: Tensor,
    learner: PlacementLearner,
    *,
    rounds: int,
    seed: int,
) -> tuple[IntArray, list[MStepFacts]]:
    """Run the EM loop from a start: T times an E-step and an M-step, and a last E-step.

    Args:
        config: of the run.
        model: its structure model is trained in place.
        states: user states with their targets.
        path_VJ: int64 [V, J], pi_0.
        user_UE: float32, states of the users whose beams say what a visited path is.
        learner: of the M-steps.
        rounds: T.
        seed: of the E-steps.

    Returns:
        pi_T, int64 [V, J], and what each M-step did.

    Raises:
        ConfigError: the configured M-step cannot run for this V and J.
    """
    chosen = choose_m_step(config.assignment, len(path_VJ), path_VJ.shape[1], config.structure.normaliser)
    done = []
    for number in range(1, rounds + 1):
        logger.info("  round %d of %d", number, rounds)
        e_step(config, model, states, path_VJ, round_epochs(config, chosen), seed)
        path_VJ, facts = learner.improve(model, states, path_VJ, user_UE)
        done.append(facts)
    e_step(config, model, states, path_VJ, config.em.final_epochs, seed)
    return path_VJ, done
