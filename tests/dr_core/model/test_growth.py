"""A model that has grown: old items as before, new ones present and modest."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from dr_core.model.growth import grow_model
from dr_core.model.objective import DeepRetrievalModel

ModelMaker = Callable[..., DeepRetrievalModel]


@pytest.mark.parametrize(("new_items", "embedding_rows"), [(30, 1000), (37, 1000), (60, 40), (60, 24)])
def test_old_items_are_scored_as_before(make_model: ModelMaker, new_items: int, embedding_rows: int) -> None:
    """V <= H, and V > H already before or only after growing."""
    model = make_model(num_items=30, encoder={"embedding_rows": embedding_rows})
    grown = grow_model(model, np.arange(new_items, dtype=np.float64)).eval()
    history = torch.tensor([[3, 29, 0], [7, 7, 7]])
    length = torch.tensor([3, 3])
    with torch.inference_mode():
        states = [each.encode_last(history, length) for each in (model, grown)]
        scores = [each.reranker.score_all(state) for each, state in zip((model, grown), states, strict=True)]
    assert torch.equal(*states)
    torch.testing.assert_close(scores[1][:, :30], scores[0])
    assert scores[1].shape == (2, new_items)
    assert int(grown.item_rows.max()) < grown.reranker.output_embedding.num_embeddings


def test_new_items_start_below_the_best(make_model: ModelMaker) -> None:
    model = make_model(num_items=30)
    grown = grow_model(model, np.ones(33)).eval()
    with torch.inference_mode():
        scores = grown.reranker.score_all(torch.randn(64, 8))
    assert (scores[:, 30:].max(1).values < scores[:, :30].max(1).values).all()
    assert torch.equal(scores[:, 30], scores[:, 32])


def test_ids_never_go_away(make_model: ModelMaker) -> None:
    with pytest.raises(ValueError, match="never go away"):
        grow_model(make_model(num_items=30), np.ones(29))
