"""User encoders: what a state may depend on, and how item rows are shared."""

import numpy as np
import pytest
import torch

from dr_core.model.encoder import (
    AttentionEncoder,
    DecayEncoder,
    EncoderConfig,
    UserEncoder,
    assign_embedding_rows,
    build_encoder,
)

KINDS = ("gru", "mean", "decay", "attention")
NUM_ROWS, LENGTH = 20, 7


def encoder_of(kind: str, **more: object) -> UserEncoder:
    torch.manual_seed(1)
    return build_encoder(EncoderConfig.model_validate({"kind": kind, "dim": 8, **more}), NUM_ROWS).eval()


def histories(num_users: int = 5, length: int = LENGTH) -> torch.Tensor:
    return torch.randint(0, NUM_ROWS, (num_users, length), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("position", [0, 3, LENGTH - 2])
def test_changing_later_items_never_changes_earlier_states(kind: str, position: int) -> None:
    encoder, rows = encoder_of(kind), histories()
    changed = rows.clone()
    changed[:, position + 1 :] = (changed[:, position + 1 :] + 3) % NUM_ROWS
    before, after = encoder(rows), encoder(changed)
    torch.testing.assert_close(before[:, : position + 1], after[:, : position + 1])
    assert not torch.allclose(before[:, position + 1], after[:, position + 1])


@pytest.mark.parametrize("kind", KINDS)
def test_every_item_seen_changes_the_state(kind: str) -> None:
    encoder, rows = encoder_of(kind), histories()
    last = encoder(rows)[:, -1]
    for position in range(LENGTH):
        changed = rows.clone()
        changed[:, position] = (changed[:, position] + 1) % NUM_ROWS
        assert ((encoder(changed)[:, -1] - last).norm(dim=1) > 1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_no_state(kind: str) -> None:
    encoder, rows = encoder_of(kind), histories()
    padded = torch.cat([rows, torch.full((len(rows), 4), -1)], dim=1)
    torch.testing.assert_close(encoder(padded)[:, :LENGTH], encoder(rows))


@pytest.mark.parametrize("kind", KINDS)
def test_a_user_is_encoded_alike_alone_and_in_a_batch(kind: str) -> None:
    encoder, rows = encoder_of(kind), histories()
    rows[1, 4:] = -1
    together = encoder(rows)
    alone = torch.cat([encoder(rows[user : user + 1]) for user in range(len(rows))])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_history_has_a_finite_state(kind: str) -> None:
    assert torch.isfinite(encoder_of(kind)(torch.full((2, 3), -1))).all()


@pytest.mark.parametrize("kind", KINDS)
def test_context_changes_the_state(kind: str) -> None:
    encoder = encoder_of(kind, context_cardinalities=(3, 2), num_numeric=1)
    rows = histories(1)

    def state(first: int, second: int, number: float) -> torch.Tensor:
        return encoder(rows, torch.tensor([[first, second]]), torch.tensor([[number]]))

    reference = state(0, 0, 0.5)
    for other in (state(1, 0, 0.5), state(0, 1, 0.5), state(0, 0, 0.7)):
        assert not torch.allclose(other, reference)
    torch.testing.assert_close(state(0, 0, 0.5), reference)


def test_decay_weighs_by_age_alone() -> None:
    """Against the sums written out; with no decay it is the mean, with much of it the last item."""
    encoder = encoder_of("decay")
    assert isinstance(encoder, DecayEncoder)
    encoder.mlp = torch.nn.Identity()
    rows = histories()
    embedded = encoder.item_embedding(rows + 1)
    for rate in (-40.0, 0.3, 40.0):
        encoder.rate.data.fill_(rate)
        kept = float(torch.sigmoid(torch.tensor(-rate)))
        for length in (1, 4, LENGTH):
            weights = torch.tensor([kept**age for age in range(length)][::-1])
            expected = (embedded[:, :length] * weights[:, None]).sum(1) / weights.sum()
            torch.testing.assert_close(encoder(rows)[:, length - 1], 2 * expected)


def test_every_value_outside_a_context_feature_is_the_same_unknown() -> None:
    encoder = encoder_of("mean", context_cardinalities=(3,))
    rows = histories(1)
    unknown = encoder(rows, torch.tensor([[-1]]))
    for value in (3, 99):
        torch.testing.assert_close(encoder(rows, torch.tensor([[value]])), unknown)
    for value in range(3):
        assert not torch.allclose(encoder(rows, torch.tensor([[value]])), unknown)


def test_a_batch_without_the_context_it_needs_is_refused() -> None:
    with pytest.raises(ValueError, match="categorical"):
        encoder_of("gru", context_cardinalities=(3,))(histories())
    with pytest.raises(ValueError, match="numeric"):
        encoder_of("gru", num_numeric=2)(histories())


def test_dropout_acts_in_training_only() -> None:
    encoder, rows = encoder_of("gru", dropout=0.5), histories()
    assert torch.equal(encoder(rows), encoder(rows))
    encoder.train()
    assert not torch.equal(encoder(rows), encoder(rows))


def test_attention_needs_heads_that_divide_and_histories_it_has_positions_for() -> None:
    with pytest.raises(ValueError, match="num_heads"):
        encoder_of("attention", num_heads=3)
    with pytest.raises(ValueError, match="exceed"):
        encoder_of("attention")(torch.zeros(1, AttentionEncoder.MAX_LENGTH + 1, dtype=torch.int64))


@pytest.mark.parametrize("embedding_rows", [40, 41, 1000])
def test_items_have_rows_of_their_own_while_they_fit(embedding_rows: int) -> None:
    np.testing.assert_array_equal(assign_embedding_rows(np.ones(40), embedding_rows), np.arange(40))


@pytest.mark.parametrize(("num_items", "embedding_rows"), [(100, 40), (1000, 8), (50, 2), (5000, 512)])
def test_the_most_frequent_items_keep_rows_of_their_own_and_the_others_share(
    num_items: int, embedding_rows: int
) -> None:
    counts = np.random.default_rng(3).permutation(num_items).astype(np.float64)
    rows = assign_embedding_rows(counts, embedding_rows)
    assert rows.min() == 0
    assert rows.max() < embedding_rows
    num_shared = max(1, embedding_rows // 8)
    num_own = embedding_rows - num_shared
    most_frequent = np.argsort(-counts)[:num_own]
    owners = np.bincount(rows, minlength=embedding_rows)
    assert (owners[rows[most_frequent]] == 1).all()
    shared = owners[num_own:]
    assert shared.sum() == num_items - num_own
    assert shared.max() <= 3 * shared.mean() + 3
    np.testing.assert_array_equal(rows, assign_embedding_rows(counts, embedding_rows))


def test_items_on_one_row_are_the_same_item_to_the_encoder(make_model) -> None:
    model = make_model(num_items=60, encoder={"embedding_rows": 16})
    rows = model.item_rows.numpy()
    assert model.encoder.item_embedding.num_embeddings == 17
    first, second = np.flatnonzero(rows == np.bincount(rows).argmax())[:2]
    lengths = torch.tensor([2, 2])
    history = torch.tensor([[5, int(first)], [5, int(second)]])
    states = model.encode_last(history, lengths)
    assert torch.equal(states[0], states[1])
