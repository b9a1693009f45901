"""Training batches from histories in memory: many positions of each history, several later items as targets of each.

The same cut as the ``samples`` table's (``pipelines/stages/training/samples.py``), drawn anew every epoch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from pydantic import Field

from dr_core.config import Config
from dr_core.item_lists import ItemLists
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
        lengths = np.diff(offsets)
        before = np.zeros_like(lengths) if learned is None else np.maximum(learned - 1, 0)
        rows = np.where(lengths >= 2, -(-(lengths - 1 - before) // config.history_length), 0)
        users = np.repeat(np.arange(len(lengths)), rows)
        number = np.arange(len(users)) - np.repeat(np.cumsum(rows) - rows, rows)
        before, parts = before[users], rows[users]
        learnable = lengths[users] - 1 - before
        self.first, self.size = offsets[users], lengths[users]
        self.previous = before + learnable * number // parts
        self.end = before + learnable * (number + 1) // parts
        self.config, self.seed = config, seed
        self.steps_per_epoch = -(-len(users) // config.batch_rows)

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield an epoch's batches; rows, positions and targets depend on (seed, epoch) alone."""
        config = self.config
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.size))
        for step in range(first_step, self.steps_per_epoch):
            rows = order[step * config.batch_rows : (step + 1) * config.batch_rows]
            shape = (len(rows), config.positions, config.targets)
            history = np.full((len(rows), config.history_length), -1, dtype=np.int64)
            position, target = np.full(shape[:2], -1, dtype=np.int64), np.full(shape, -1, dtype=np.int64)
            weight = np.zeros(shape, dtype=np.float32)
            seed = int(np.random.default_rng((self.seed, epoch, step)).integers(2**31))
            _cut(self.items, self.rewards, self.first[rows], self.size[rows], self.previous[rows], self.end[rows],
                 config.next_only, seed, history, position, target, weight)  # fmt: skip
            yield Batch(*(torch.from_numpy(array) for array in (history, position, target, weight)))


@njit(cache=True)
def _cut(  # type: ignore[no-untyped-def]
    items, rewards, first, size, previous, end, next_only, seed, history_BL, position_BP, target_BPT, weight_BPT
):
    """Fill one batch: states spread evenly from a random start, later events of each likewise."""
    np.random.seed(seed)
    length, num_positions, num_targets = history_BL.shape[1], position_BP.shape[1], target_BPT.shape[2]
    for row in range(len(size)):
        begin = max(end[row] - length, 0)
        for place in range(end[row] - begin):
            history_BL[row, place] = items[first[row] + begin + place]
        lowest = max(begin, previous[row])
        num_states = end[row] - lowest
        count = min(num_states, num_positions)
        start = np.random.random()
        for place in range(count):
            state = lowest + int((place + start) * num_states / count)
            position_BP[row, place] = state - begin
            later = size[row] - 1 - state
            drawn = min(later, num_targets)
            shift = np.random.random()
            for slot in range(drawn):
                offset = slot if next_only else int((slot + shift) * later / drawn)
                event = first[row] + state + 1 + offset
                target_BPT[row, place, slot] = items[event]
                weight_BPT[row, place, slot] = rewards[event]


def padded(histories: ItemLists, length: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the last ``length`` items of each history, int64 [U, length] padded with -1 on the right, and their number."""
    offsets = np.asarray(histories.offsets, dtype=np.int64)
    sizes = np.minimum(np.diff(offsets), length)
    rows = np.full((len(sizes), length), -1, dtype=np.int64)
    for user, (end, size) in enumerate(zip(offsets[1:], sizes, strict=True)):
        rows[user, :size] = histories.item_ids[end - size : end]
    return rows, sizes
