"""The states of whole histories are those of the encoder at their last known item."""

import numpy as np
import pytest
import torch

from dr_core.model.histories import encode_histories

NUM_ITEMS, LENGTH = 30, 4


@pytest.mark.parametrize("kind", ["gru", "mean", "decay", "attention"])
def test_a_state_is_the_encoders_at_the_last_known_item(make_model, kind: str) -> None:
    model = make_model(NUM_ITEMS, encoder={"kind": kind, "dropout": 0.5})
    histories = [[3], [NUM_ITEMS, 1, -1, 2], [], np.arange(7)]
    known = [[3], [1, 2], [], [3, 4, 5, 6]]
    model.train()
    found_UE = encode_histories(model, histories, LENGTH)
    model.eval()
    for state_E, history in zip(found_UE, known, strict=True):
        rows_1L = torch.tensor([history or [-1]])
        with torch.inference_mode():
            expected_1E = model.encode_last(rows_1L, torch.tensor([len(history)]))
        torch.testing.assert_close(state_E, expected_1E[0])


def test_many_histories_are_encoded_like_each_alone(make_model) -> None:
    """Blocks and the longest history beside it do not change a state."""
    model, generator = make_model(NUM_ITEMS), np.random.default_rng(0)
    histories = [generator.integers(0, NUM_ITEMS, size) for size in generator.integers(0, 9, 1100)]
    together_UE = encode_histories(model, histories, LENGTH)
    assert together_UE.shape == (1100, 8)
    for user in (0, 511, 512, 1099):
        torch.testing.assert_close(together_UE[user], encode_histories(model, [histories[user]], LENGTH)[0])
    assert encode_histories(model, [], LENGTH).shape == (0, 8)
