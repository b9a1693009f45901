"""Before there are paths: encoder and softmax are trained in one process."""

from __future__ import annotations

import torch

from dr_core.arrays import DoubleArray
from dr_core.learning.checkpoint import copy_model
from dr_core.learning.config import LearningConfig
from dr_core.learning.held_out import HeldOut, validation_columns
from dr_core.learning.samples import SampleSource
from dr_core.learning.trainer import EpochResult, Phase, Trainer, Validation
from dr_core.model.objective import Batch, DeepRetrievalModel, batch_from_arrays
from dr_core.paths.space import PathSpace
from dr_core.progress import Progress


def path_free_space(config: LearningConfig) -> PathSpace:
    """Return the smallest space of paths: the warm-up has none, and how many there are to be follows from it."""
    return PathSpace.even(2, config.paths.num_layers)


def with_paths(
    config: LearningConfig, warm: DeepRetrievalModel, space: PathSpace, counts_V: DoubleArray
) -> DeepRetrievalModel:
    """Return the model with the encoder and the softmax of a warmed-up one and a structure that has learned nothing.

    Args:
        config: of the run.
        warm: warmed up, with a structure of any paths.
        space: of the paths.
        counts_V: as for :func:`new_model`.
    """
    model = new_model(config, space, counts_V)
    copy_model(warm, model)
    return model.train(warm.training)


def new_model(config: LearningConfig, space: PathSpace, counts_V: DoubleArray) -> DeepRetrievalModel:
    """Return an untrained model whose parameters follow from the seed.

    Args:
        config: of the run.
        space: of the paths.
        counts_V: float64 [V], training events of each item.
    """
    torch.manual_seed(config.seed)
    return DeepRetrievalModel(config.encoder, config.structure, config.reranker, space, counts_V)


def train_samples(
    config: LearningConfig,
    model: DeepRetrievalModel,
    samples: Batch,
    phase: Phase,
    validation: Validation | None = None,
) -> list[EpochResult]:
    """Train a model in place over samples in memory."""
    source = SampleSource(samples, config.training.batch_rows, config.seed)
    progress = Progress(phase.name, phase.epochs * source.steps_per_epoch)
    trainer = Trainer(
        model, source, phase, config.training, seed=config.seed, validation=validation, report=progress.report
    )
    results = trainer.run()
    model.to("cpu")
    return results


def warm_up(
    config: LearningConfig,
    model: DeepRetrievalModel,
    samples: Batch,
    held_out: HeldOut,
) -> list[EpochResult]:
    """Train encoder and softmax; held-out users decide which epoch is kept, where there are any.

    Args:
        config: of the run.
        model: updated in place.
        samples: of the training users.
        held_out: judged by the recall of the lists that ``training.validation_k`` describes.
    """
    validation = None
    if len(held_out):
        columns = validation_columns(held_out.histories, held_out.truths, config.history_length)
        validation = Validation(
            batch_from_arrays(columns), config.training.validation_k, config.training.validation_filtered
        )
    return train_samples(config, model, samples, Phase("warm_up", "warm_up", config.em.warm_up_epochs), validation)
