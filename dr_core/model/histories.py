"""User states of whole histories. Shape legend: U users, L history length, E user dimension."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dr_core.arrays import AnyIntArray, IntArray
from dr_core.model.objective import DeepRetrievalModel

HISTORIES_AT_ONCE = 512


@torch.inference_mode()
def encode_histories(
    model: DeepRetrievalModel,
    histories: Sequence[Sequence[int] | AnyIntArray],
    max_length: int,
    context: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Return the user state after each whole history, float32 [U, E] (Deep Retrieval, section 4.1).

    Items that the model does not know are left out. An empty history is encoded as padding.

    Args:
        model: its encoder is used; the model is put in evaluation mode.
        histories: item ids of each user, oldest first.
        max_length: L, most recent items of a history that count.
        context: categorical int64 [U, C] and numeric float32 [U, M] features, where the encoder was built with them.
    """
    model.eval()
    history_UL, length_U = padded_histories(histories, max_length, model.num_items)
    longest = max(1, int(length_U.max(initial=1)))
    states = [
        model.encode_last(
            torch.from_numpy(history_UL[start : start + HISTORIES_AT_ONCE, :longest]),
            torch.from_numpy(length_U[start : start + HISTORIES_AT_ONCE]),
            context and (context[0][start : start + HISTORIES_AT_ONCE], context[1][start : start + HISTORIES_AT_ONCE]),
        )
        for start in range(0, len(histories), HISTORIES_AT_ONCE)
    ]
    return torch.cat(states) if states else torch.empty(0, model.encoder.config.dim)


def padded_histories(
    histories: Sequence[Sequence[int] | AnyIntArray], max_length: int, num_items: int
) -> tuple[IntArray, IntArray]:
    """Return the last known items of each history, int64 [U, L] with -1 at the end, and how many they are, int64 [U]."""
    history_UL = np.full((len(histories), max_length), -1, dtype=np.int64)
    length_U = np.zeros(len(histories), dtype=np.int64)
    for row, history in enumerate(histories):
        items = np.asarray(history, dtype=np.int64)
        recent = items[(items >= 0) & (items < num_items)][-max_length:]
        history_UL[row, : len(recent)] = recent
        length_U[row] = len(recent)
    return history_UL, length_U
