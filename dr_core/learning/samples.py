"""Training samples (x_i, y_i, w_i): how histories are cut, and the cut in memory.

A user's events 0 … n - 1 (oldest first) become rows; ``pipelines/stages/training/samples.py`` cuts the same rows on
Spark, with other draws. Shape legend: B rows, L history length, P positions a row, T targets a position.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numba import njit
from pydantic import Field

from dr_core.arrays import DoubleArray, FloatArray, IntArray
from dr_core.config import Config
from dr_core.model.objective import Batch


class SamplesConfig(Config):
    """How histories are cut into training samples."""

    max_rows: int = Field(default=32, ge=1)
    """Rows a user at most (their ends evenly spaced); bounds what one heavy user contributes."""
    positions: int = Field(default=8, ge=1)
    """P, states trained on in a row. One encoder pass serves them all."""
    targets: int = Field(default=8, ge=1)
    """T, targets a position."""
    target_mode: Literal["later", "next"] = "later"
    """``later``: drawn from all later events. ``next``: the next T events (sessions, where order is what matters)."""
    max_events: int = Field(default=10_000, ge=2)
    """Most recent events of a user that are used; older ones of longer histories are ignored, so that no user fills
    memory."""
    num_blocks: int = Field(default=16, ge=1)
    """Blocks into which users are cut for the scores."""
    rows_per_group: int = Field(default=1_024, ge=1)
    """Rows of a Parquet row group (one a file) at most. The number of groups is a multiple of 4, so that 1, 2 or 4
    readers share them evenly."""


@dataclass(frozen=True)
class Histories:
    """What users did, as CSR: the items of user u are ``item_ids[offsets[u]:offsets[u + 1]]``, oldest first.

    Attributes:
        offsets: int64 [U + 1], from 0 to the number of events.
        item_ids: int64 [events], in [0, V).
        weights: float32 [events], what each event weighs as a target.
    """

    offsets: IntArray
    item_ids: IntArray
    weights: FloatArray

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[int] | IntArray]) -> Histories:
        """Build histories whose events weigh 1 from one sequence of item ids a user."""
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        item_ids = np.concatenate([np.zeros(0, np.int64), *(np.asarray(row, dtype=np.int64) for row in rows)])
        return cls(offsets, item_ids, np.ones(len(item_ids), dtype=np.float32))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def items(self, user: int) -> IntArray:
        """Return a user's items, oldest first."""
        return self.item_ids[self.offsets[user] : self.offsets[user + 1]]

    def of(self, users: IntArray) -> Histories:
        """Return the histories of some users, int64 [n]."""
        return self._between(self.offsets[users], self.offsets[users + 1])

    def latest(self, num_events: int) -> Histories:
        """Return the histories without what lies more than ``num_events`` events back."""
        ends = self.offsets[1:]
        return self._between(np.maximum(self.offsets[:-1], ends - num_events), ends)

    def _between(self, starts: IntArray, ends: IntArray) -> Histories:
        lengths = ends - starts
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        events = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return Histories(offsets, self.item_ids[events], self.weights[events])

    def counts(self, num_items: int) -> DoubleArray:
        """Return the events of each item, float64 [V]."""
        return np.bincount(self.item_ids, minlength=num_items).astype(np.float64)


@dataclass(frozen=True)
class SampleRows:
    """Where rows begin and end in histories; each array is int64 [B].

    Attributes:
        first: place of the user's first event in ``item_ids``.
        size: the user's number of events.
        previous: end of the user's row before; states lie between it and ``end``.
        end: the row holds events before it.
    """

    first: IntArray
    size: IntArray
    previous: IntArray
    end: IntArray

    @classmethod
    def cut(
        cls, offsets: IntArray, history_length: int, *, max_rows: int | None = None, learned: IntArray | None = None
    ) -> SampleRows:
        """Cut histories of two events or more into rows whose ends are evenly spaced.

        Args:
            offsets: int64 [U + 1], of the histories.
            history_length: L.
            max_rows: rows a user at most; by default as many as the history fills.
            learned: int64 [U], how many of each user's events were targets before and are not to be again.
        """
        lengths = np.diff(offsets)
        before = np.zeros_like(lengths) if learned is None else np.maximum(learned - 1, 0)
        parts = np.where(lengths >= 2, -(-(lengths - 1 - before) // history_length), 0)
        parts = parts if max_rows is None else np.minimum(parts, max_rows)
        users = np.repeat(np.arange(len(lengths)), parts)
        number = np.arange(len(users)) - np.repeat(np.cumsum(parts) - parts, parts)
        before, parts = before[users], parts[users]
        learnable = lengths[users] - 1 - before
        return cls(
            offsets[users],
            lengths[users],
            before + learnable * number // parts,
            before + learnable * (number + 1) // parts,
        )

    def __len__(self) -> int:
        return len(self.size)

    def batch(
        self,
        chosen: IntArray,
        item_ids: IntArray,
        weights: FloatArray,
        *,
        shape: tuple[int, int, int],
        next_only: bool,
        seed: int,
    ) -> Batch:
        """Fill some rows.

        Args:
            chosen: int64, which rows.
            item_ids, weights: of the histories.
            shape: L, P and T.
            next_only: whether the targets of a state are the next T events instead of any later ones.
            seed: of the draws.
        """
        length, positions, targets = shape
        history_BL = np.full((len(chosen), length), -1, dtype=np.int64)
        position_BP = np.full((len(chosen), positions), -1, dtype=np.int64)
        target_BPT = np.full((len(chosen), positions, targets), -1, dtype=np.int64)
        weight_BPT = np.zeros(target_BPT.shape, dtype=np.float32)
        _cut(item_ids, weights, self.first[chosen], self.size[chosen], self.previous[chosen], self.end[chosen],
             next_only, seed, history_BL, position_BP, target_BPT, weight_BPT)  # fmt: skip
        return Batch(*(torch.from_numpy(array) for array in (history_BL, position_BP, target_BPT, weight_BPT)))


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


def cut_histories(histories: Histories, config: SamplesConfig, seed: int, *, history_length: int) -> Batch:
    """Cut histories into all their rows, once and for all, in an order drawn from the seed.

    Args:
        histories: of the users to learn from.
        config: P, T and the limits a user.
        seed: of the draws and the order.
        history_length: L.
    """
    histories = histories.latest(config.max_events)
    rows = SampleRows.cut(histories.offsets, history_length, max_rows=config.max_rows)
    return rows.batch(
        np.random.default_rng(seed).permutation(len(rows)),
        histories.item_ids,
        histories.weights,
        shape=(history_length, config.positions, config.targets),
        next_only=config.target_mode == "next",
        seed=seed,
    )


class SampleSource:
    """Shuffled batches of samples in memory: a :class:`dr_core.learning.trainer.BatchSource`.

    Args:
        samples: all rows.
        batch_rows: rows a step.
        seed: of the order.
    """

    def __init__(self, samples: Batch, batch_rows: int, seed: int) -> None:
        self.samples, self.batch_rows, self.seed = samples, batch_rows, seed
        self.steps_per_epoch = -(-len(samples) // batch_rows)

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield an epoch's batches; their order depends on (seed, epoch) alone."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.samples))
        for start in range(first_step * self.batch_rows, len(order), self.batch_rows):
            yield self.samples.rows(torch.from_numpy(order[start : start + self.batch_rows]))

    def in_order(self) -> Iterator[Batch]:
        """Yield all rows in their own order."""
        for start in range(0, len(self.samples), self.batch_rows):
            yield self.samples.rows(torch.arange(start, min(start + self.batch_rows, len(self.samples))))
