"""The EM loop in one process, over user states that a frozen encoder computed once.

This is what trains the controls and the further arms of a run: the same trainer, beam, scores and coordinate descent
as the Spark stages, without their start-up costs. Shape legend: N states, T targets, E user dimension, J paths.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dr_core.learning.mixed_targets import TargetSampler
from dr_core.learning.trainer import EpochResult, Phase, Trainer, TrainingConfig
from dr_core.model.objective import Batch, DeepRetrievalModel, StateBatch
from dr_core.model.structure import StructureConfig, StructureModel
from dr_core.paths.assignment import PathAssignment, coordinate_descent
from dr_core.paths.penalty import Penalty
from dr_core.paths.scores import (
    BlockScores,
    PathCandidates,
    ScoreRows,
    accumulate_block,
    accumulate_weights,
    from_fixed,
    to_candidates,
    top_candidates,
)
from dr_core.paths.space import PathSpace
from dr_core.progress import Progress
from dr_core.retrieval.beam_kernel import CompiledStructure
from pipelines.stages.structure.assign import AlphaRule, items_per_visited_path

STATES_PER_BATCH = 2048
TARGETS_PER_PASS = 4_000_000
SCORE_COLUMNS = ("item_ids", "path_ids", "scores", "is_current")
Terms = tuple[npt.NDArray[Any], ...]
"""The arguments of :func:`dr_core.paths.scores.accumulate_block`, of one batch of states."""


@dataclass(frozen=True)
class States:
    """All user states of the samples with their targets, in memory."""

    user_NE: Tensor
    target_NT: Tensor
    weight_NT: Tensor

    @staticmethod
    @torch.inference_mode()
    def encode(model: DeepRetrievalModel, batches: Iterable[Batch]) -> States:
        """Run the frozen encoder over batches of samples."""
        model.eval()
        parts = [model.encode(batch) for batch in batches]
        return States(*(torch.cat([part[column] for part in parts]).clone() for column in range(3)))

    @torch.inference_mode()
    def mixed(self, sampler: TargetSampler, seed: int) -> States:
        """Return the states with items drawn from the softmax as further targets, as the stage of mixed targets does."""
        config = sampler.config
        drawn_NM = torch.cat(
            [
                sampler.sample(user_NE, seed=seed * 1_000_003 + number)
                for number, user_NE in enumerate(self.user_NE.split(STATES_PER_BATCH))
            ]
        )
        total_N1 = self.weight_NT.sum(1, keepdim=True) * (config.share / (1 - config.share) / config.draws)
        return States(
            self.user_NE,
            torch.cat([self.target_NT, drawn_NM.masked_fill(total_N1 == 0, -1)], 1).clone(),
            torch.cat([self.weight_NT, total_N1.expand(-1, config.draws)], 1).clone(),
        )

    def batch(self, rows: Tensor) -> StateBatch:
        """Return some of the states as a training batch."""
        return StateBatch(self.user_NE[rows], self.target_NT[rows], self.weight_NT[rows])

    def blocks(self) -> Iterable[StateBatch]:
        """Yield all states in order."""
        for start in range(0, len(self.user_NE), STATES_PER_BATCH):
            yield self.batch(torch.arange(start, min(start + STATES_PER_BATCH, len(self.user_NE))))


class StateSource:
    """Shuffled batches of states for the trainer."""

    def __init__(self, states: States, batch_states: int, seed: int) -> None:
        self.states, self.batch_states, self.seed = states, batch_states, seed
        self.steps_per_epoch = -(-len(states.user_NE) // batch_states)

    def batches(self, epoch: int, first_step: int = 0) -> Iterable[StateBatch]:
        """Yield an epoch's batches; the order depends on (seed, epoch) alone."""
        order = torch.randperm(
            len(self.states.user_NE), generator=torch.Generator().manual_seed(self.seed * 100_003 + epoch)
        )
        for start in range(first_step * self.batch_states, len(order), self.batch_states):
            yield self.states.batch(order[start : start + self.batch_states])


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


@torch.inference_mode()
def score_states(
    model: DeepRetrievalModel, states: States, path_VJ: npt.NDArray[np.int64], num_candidates: int
) -> PathCandidates:
    """Return s[v, c] and N_v of all states: the S best paths an item and, always, its current ones.

    The states' terms stay in memory, 16 (S + T J) bytes each; sums are made for a share of the items at a time.
    """
    model.set_item_paths(path_VJ)
    structure = CompiledStructure(model.structure)
    terms = [score_batch(model, structure, batch, num_candidates) for batch in states.blocks()]
    targets, *rest = (np.concatenate(column) for column in zip(*terms, strict=True))
    num_passes = max(-(-targets.size // TARGETS_PER_PASS), 1)
    kept = []
    for share in range(num_passes):
        summed = accumulate_block(np.where(targets % num_passes == share, targets, -1), *rest)
        kept.append(
            top_candidates(
                summed.item_ids, summed.path_ids, from_fixed(summed.scores_fixed), summed.is_current, num_candidates
            )
        )
    rows = ScoreRows(*(np.concatenate([getattr(part, name) for part in kept]) for name in SCORE_COLUMNS))
    weights = np.zeros(model.num_items)
    items, totals = accumulate_weights(states.target_NT.numpy(), states.weight_NT.numpy())
    weights[items] = from_fixed(totals)
    return to_candidates(rows, weights, path_VJ)


@torch.inference_mode()
def score_batch(
    model: DeepRetrievalModel, structure: CompiledStructure, batch: StateBatch, num_candidates: int
) -> Terms:
    """Beam-search one batch of states: what each adds to s[v, c] of its targets, their current paths included.

    Args:
        structure: the model's own, compiled.
    """
    user_NE = batch.user_NE.numpy()
    beam_NS, beam_log_prob_NS = structure.search(user_NE, num_candidates)
    own_NTJ = model.item_path_VJ[batch.target_NT.clamp_min(0)].numpy()
    flat_NM = own_NTJ.reshape(len(own_NTJ), own_NTJ.shape[1] * own_NTJ.shape[2])
    own_log_prob = structure.log_prob(user_NE, flat_NM).reshape(own_NTJ.shape)
    return (
        batch.target_NT.numpy(),
        batch.weight_NT.numpy(),
        beam_NS,
        np.exp(beam_log_prob_NS),
        own_NTJ,
        np.exp(own_log_prob),
    )


def sum_terms(terms: Sequence[Terms]) -> BlockScores:
    """Sum the terms of several batches by (target, path)."""
    return accumulate_block(*(np.concatenate(column) for column in zip(*terms, strict=True)))


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
