"""A model for more items than it was trained with: old items keep their parameters, new ones get a modest start."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from dr_core.model.objective import DeepRetrievalModel

NEW_ITEM_BIAS_QUANTILE = 0.1


def grow_model(model: DeepRetrievalModel, counts_V: npt.NDArray[np.float64]) -> DeepRetrievalModel:
    """Return a model for ``len(counts_V)`` items that scores the old ones exactly as ``model`` does.

    New items get free embedding rows while there are any (V <= H), then share hashed ones of the table's last eighth.
    A fresh row starts at the mean of the old rows, with a bias at the old biases' first decile: present, never on top.

    Args:
        model: over the first V' items; left as it is.
        counts_V: float64 [V], V >= V', events of every item (weights of the softmax's negatives).

    Raises:
        ValueError: there are fewer items than the model has.
    """
    old_items, new_items = model.num_items, len(counts_V)
    if new_items < old_items:
        raise ValueError(f"the model knows {old_items} items, counts name {new_items}: ids never go away")
    most = model.encoder.config.embedding_rows
    rows = np.arange(new_items, dtype=np.int64)
    rows[:old_items] = model.item_rows.numpy()
    added = np.arange(old_items, new_items)
    num_shared = max(1, most // 8)
    hashed = (added.astype(np.uint64) * np.uint64(11400714819323198485)) >> np.uint64(33)
    rows[old_items:] = np.where(
        added < most, added, most - num_shared + (hashed % np.uint64(num_shared)).astype(np.int64)
    )
    grown = DeepRetrievalModel(
        model.encoder.config, model.structure.config, model.reranker.config, model.space, counts_V, rows
    )
    start = {
        "encoder.item_embedding.weight": lambda old: old[1:].mean(0),
        "reranker.output_embedding.weight": lambda old: old.mean(0),
        "reranker.output_bias.weight": lambda old: (
            old.kthvalue(max(1, int(len(old) * NEW_ITEM_BIAS_QUANTILE)), 0).values
        ),
    }
    state, parameters = grown.state_dict(), dict(grown.named_parameters())
    with torch.no_grad():
        for name, old in model.state_dict().items():
            if name in parameters and name in start and state[name].shape != old.shape:
                state[name][: len(old)] = old
                state[name][len(old) :] = start[name](old)
            elif name in parameters:
                state[name].copy_(old)
    return grown
