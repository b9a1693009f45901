"""The E-step over user states in memory: the structure model is fitted to a fixed mapping, encoder and softmax frozen."""

from __future__ import annotations

import copy

import torch

from dr_core.arrays import IntArray
from dr_core.learning.config import LearningConfig
from dr_core.learning.states import States, StateSource
from dr_core.learning.trainer import EpochResult, Phase, Trainer, TrainingConfig
from dr_core.model.objective import DeepRetrievalModel
from dr_core.model.structure_config import StructureConfig
from dr_core.model.structures import build_structure
from dr_core.paths.space import PathSpace
from dr_core.progress import Progress


def fresh_structure(
    model: DeepRetrievalModel, config: StructureConfig, space: PathSpace, seed: int
) -> DeepRetrievalModel:
    """Return a copy of a model with the same encoder and softmax and a new structure model."""
    torch.manual_seed(seed)
    fresh = copy.copy(model)
    fresh._modules = dict(model._modules)
    fresh._buffers = dict(model._buffers)
    fresh.structure = build_structure(config, space, model.encoder.config.dim)
    return fresh


def train_structure(
    model: DeepRetrievalModel,
    states: States,
    path_VJ: IntArray,
    *,
    epochs: int,
    batch_states: int,
    training: TrainingConfig,
    seed: int,
) -> list[EpochResult]:
    """Fit the structure model to a mapping int64 [V, J] (Deep Retrieval, section 3, E-step); ``model`` is updated."""
    model.set_item_paths(path_VJ)
    model.start_structure(states.user_NE)
    source = StateSource(states, batch_states, seed)
    progress = Progress("E-step", epochs * source.steps_per_epoch)
    phase = Phase("e_step", "frozen", epochs)
    results = Trainer(model, source, phase, training, seed=seed, report=progress.report).run()
    model.to("cpu")
    return results


def e_step(
    config: LearningConfig, model: DeepRetrievalModel, states: States, path_VJ: IntArray, epochs: int, seed: int
) -> list[EpochResult]:
    """Run :func:`train_structure` with a run's rates, and as many rows a step as all of its ranks have together."""
    return train_structure(
        model,
        states,
        path_VJ,
        epochs=epochs,
        batch_states=config.training.batch_rows * config.samples.positions,
        training=config.training,
        seed=seed,
    )
