"""User states of whole histories. Shape legend: U users, L history length, E user dimension."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dr_core.arrays import AnyIntArray
from dr_core.item_lists import ItemLists
from dr_core.model.objective import DeepRetrievalModel

HISTORIES_AT_ONCE = 512


@torch.inference_mode()
def encode_histories(
    model: DeepRetrievalModel,
    histories: Sequence[Sequence[int] | AnyIntArray] | ItemLists,
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
    lists = histories if isinstance(histories, ItemLists) else ItemLists.from_rows(histories)
    history_UL, length_U = lists.known(model.num_items).last(max_length)
    states = [
        model.encode_last(
            torch.from_numpy(history_UL[start : start + HISTORIES_AT_ONCE]),
            torch.from_numpy(length_U[start : start + HISTORIES_AT_ONCE]),
            context and (context[0][start : start + HISTORIES_AT_ONCE], context[1][start : start + HISTORIES_AT_ONCE]),
        )
        for start in range(0, lists.num_users, HISTORIES_AT_ONCE)
    ]
    return torch.cat(states) if states else torch.empty(0, model.encoder.config.dim)
