"""User states with their targets, in memory: what a frozen encoder leaves of the samples. Legend: N states, T targets, E user dimension."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from dr_core.learning.mixed_targets import TargetSampler, with_drawn
from dr_core.model.objective import Batch, DeepRetrievalModel, StateBatch

STATES_PER_BATCH = 2048


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
        drawn_NM = torch.cat(
            [
                sampler.sample(user_NE, seed=seed * 1_000_003 + number)
                for number, user_NE in enumerate(self.user_NE.split(STATES_PER_BATCH))  # type: ignore[no-untyped-call]
            ]
        )
        target_NT, weight_NT = with_drawn(self.target_NT, self.weight_NT, drawn_NM, sampler.config.share)
        return States(self.user_NE, target_NT.clone(), weight_NT.clone())

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
