"""Users who are held out of training: what they did first is the question, what they did next the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dr_core.arrays import IntArray
from dr_core.learning.samples import Histories

VALIDATION_TARGETS = 16
"""Items of a user's truth by which epochs are judged."""


@dataclass(frozen=True)
class HeldOut:
    """Histories (oldest first) and truths of some users, int64 item ids."""

    histories: list[IntArray]
    truths: list[IntArray]

    def __len__(self) -> int:
        return len(self.histories)


def cut_in_halves(histories: Histories) -> HeldOut:
    """Return the first half of each user's events as history, the second as truth (the protocol of Zhu et al., *Learning
    Tree-based Deep Model for Recommender Systems*, KDD 2018, section 4.1). Users of one event are left out."""
    events = [histories.items(user) for user in range(len(histories))]
    events = [items for items in events if len(items) >= 2]
    return HeldOut([items[: len(items) // 2] for items in events], [items[len(items) // 2 :] for items in events])


def validation_columns(
    histories: Sequence[IntArray], truths: Sequence[IntArray], history_length: int
) -> dict[str, npt.NDArray[Any]]:
    """Return held-out users as one batch of samples: a row a user, its last state, and its truth as targets.

    Args:
        histories: each user's items, oldest first.
        truths: the items after them.
        history_length: L.

    Returns:
        the columns that :func:`dr_core.model.objective.batch_from_arrays` takes.
    """
    history = np.full((len(histories), history_length), -1, np.int32)
    targets = np.full((len(histories), VALIDATION_TARGETS), -1, np.int32)
    for row, (items, truth) in enumerate(zip(histories, truths, strict=True)):
        recent, wanted = items[-history_length:], truth[:VALIDATION_TARGETS]
        history[row, : len(recent)] = recent
        targets[row, : len(wanted)] = wanted
    lengths = (history >= 0).sum(1)
    return {
        "history": history,
        "length": lengths,
        "positions": np.maximum(lengths - 1, 0)[:, None],
        "targets": targets,
        "weights": (targets >= 0).astype(np.float32),
        "context_categorical": np.zeros((len(histories), 1), np.int64),
        "context_numeric": np.zeros((len(histories), 1), np.float32),
    }
