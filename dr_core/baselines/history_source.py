"""Training batches from histories in memory: many positions of each history, several later items as targets of each.

The same cut as the ``samples`` table's (``pipelines/stages/training/samples.py``), drawn anew every epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from dr_core.config import Config
from dr_core.item_lists import ItemLists
from dr_core.learning.samples import SampleRows
from dr_core.model.objective import Batch


class CutConfig(Config):
    """How a history becomes training rows."""

    history_length: int = Field(default=69, ge=1)
    """L, items of a row."""
    positions: int = Field(default=8, ge=1)
    """P, states trained on in a row."""
    targets: int = Field(default=8, ge=1)
    """T, targets a state."""
    next_only: bool = False
    """Whether the targets are the next T events (what a sequential model is usually trained on) instead of any later ones."""
    batch_rows: int = Field(default=256, ge=1)
    """Rows a step."""


class HistorySource:
    """A :class:`dr_core.learning.trainer.BatchSource` over histories of two events or more.

    Args:
        rewards: float32 [entries of the histories], weights of the events as targets; 1 when None.
        learned: int64 [users], how many of each user's events were targets before and are not to be again.
    """

    def __init__(
        self,
        histories: ItemLists,
        config: CutConfig,
        seed: int,
        rewards: npt.NDArray[np.float32] | None = None,
        learned: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self.items = np.ascontiguousarray(histories.item_ids, dtype=np.int64)
        self.rewards = np.ones(len(self.items), dtype=np.float32) if rewards is None else rewards
        offsets = np.asarray(histories.offsets, dtype=np.int64)
        self.rows = SampleRows.cut(offsets, config.history_length, learned=learned)
        self.config, self.seed = config, seed
        self.steps_per_epoch = -(-len(self.rows) // config.batch_rows)

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield an epoch's batches; rows, positions and targets depend on (seed, epoch) alone."""
        config = self.config
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.rows))
        for step in range(first_step, self.steps_per_epoch):
            yield self.rows.batch(
                order[step * config.batch_rows : (step + 1) * config.batch_rows],
                self.items,
                self.rewards,
                shape=(config.history_length, config.positions, config.targets),
                next_only=config.next_only,
                seed=int(np.random.default_rng((self.seed, epoch, step)).integers(2**31)),
            )


def padded(histories: ItemLists, length: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the last ``length`` items of each history, int64 [U, length] padded with -1 on the right, and their number."""
    offsets = np.asarray(histories.offsets, dtype=np.int64)
    sizes = np.minimum(np.diff(offsets), length)
    rows = np.full((len(sizes), length), -1, dtype=np.int64)
    for user, (end, size) in enumerate(zip(offsets[1:], sizes, strict=True)):
        rows[user, :size] = histories.item_ids[end - size : end]
    return rows, sizes


class Pairs(NamedTuple):
    """The states of a batch and their targets. Legend: N states, T targets a state."""

    row_N: Tensor
    """int64, the row of each state."""
    position_N: Tensor
    """int64, the place in its history after which it is taken."""
    target_NT: Tensor
    """int64 item ids, -1 is none."""
    weight_NT: Tensor
    there_NT: Tensor
    """bool, whether there is a target."""


def pairs_of(batch: Batch) -> Pairs | None:
    """Return the states and targets of a batch, None when it holds no target."""
    row_N, place_N = torch.nonzero(batch.position_BP >= 0, as_tuple=True)
    target_NT = batch.target_BPT[row_N, place_N]
    there_NT = target_NT >= 0
    if not bool(there_NT.any()):
        return None
    return Pairs(row_N, batch.position_BP[row_N, place_N], target_NT, batch.weight_BPT[row_N, place_N], there_NT)
