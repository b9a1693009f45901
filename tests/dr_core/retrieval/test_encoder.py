"""Encoders in numpy against those in torch, of every kind."""

import numpy as np
import pytest

from dr_core.arrays import FloatArray
from dr_core.item_lists import ItemLists
from dr_core.model.encoder import ENCODERS
from dr_core.model.histories import encode_histories
from dr_core.model.objective import DeepRetrievalModel
from dr_core.retrieval.encoder import _POOLS, ArrayEncoder, Encoder
from dr_core.retrieval.from_model import ModelEncoder

NUM_ITEMS, DIM, LENGTH = 50, 16, 12


class EncoderBehaviour:
    """What holds for every encoder; a subclass says how one is made."""

    def make(self, model: DeepRetrievalModel) -> Encoder:
        raise NotImplementedError

    @pytest.fixture(params=sorted(ENCODERS))
    def model(self, make_model, request: pytest.FixtureRequest) -> DeepRetrievalModel:
        encoder = {"kind": request.param, "num_heads": 4, "embedding_rows": 40}
        model = make_model(NUM_ITEMS, dim=DIM, encoder=encoder)
        for parameter in model.encoder.parameters():
            parameter.data.mul_(3.0)
        return model

    def states(self, model: DeepRetrievalModel, histories: list[list[int]]) -> FloatArray:
        return self.make(model).encode(ItemLists.from_rows(histories))

    def test_states_are_the_models(self, model: DeepRetrievalModel) -> None:
        rng = np.random.default_rng(3)
        histories = [rng.integers(0, NUM_ITEMS, size).tolist() for size in [0, 1, 2, 5, 11, 12, 13, 40]]
        expected = encode_histories(model, histories, LENGTH).numpy()
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(self.states(model, histories), expected, rtol=1e-5, atol=1e-5)

    def test_unknown_items_and_old_ones_are_left_out(self, model: DeepRetrievalModel) -> None:
        recent = list(range(LENGTH))
        found = self.states(model, [[NUM_ITEMS, *recent], [40, 41, *recent, -1]])
        np.testing.assert_allclose(found, self.states(model, [recent, recent]), rtol=1e-5, atol=1e-5)

    def test_more_histories_than_fit_in_a_block(self, model: DeepRetrievalModel) -> None:
        rng = np.random.default_rng(4)
        histories = [rng.integers(0, NUM_ITEMS, size).tolist() for size in rng.integers(0, 6, 600)]
        found = self.states(model, histories)
        for user in (0, 511, 512, 599):
            np.testing.assert_allclose(found[user], self.states(model, [histories[user]])[0], rtol=1e-4, atol=1e-5)

    def test_no_histories_have_no_states(self, model: DeepRetrievalModel) -> None:
        assert self.states(model, []).shape == (0, DIM)
        assert self.make(model).num_items == NUM_ITEMS


class TestModelEncoder(EncoderBehaviour):
    def make(self, model: DeepRetrievalModel) -> Encoder:
        return ModelEncoder(model, LENGTH)


class TestArrayEncoder(EncoderBehaviour):
    def make(self, model: DeepRetrievalModel) -> Encoder:
        tensors = {name: value.numpy() for name, value in model.encoder.state_dict().items()}
        config = model.encoder.config
        rows = model.item_rows.numpy()
        return ArrayEncoder(config.kind, tensors, rows, max_length=LENGTH, num_heads=config.num_heads)


def test_every_kind_of_encoder_can_serve() -> None:
    assert set(_POOLS) == set(ENCODERS)
