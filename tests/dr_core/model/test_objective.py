"""Q_str + Q_softmax over batches of samples: what is summed, over which states, with which weights."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from dr_core.model import reranker
from dr_core.model.objective import Batch, DeepRetrievalModel, StateBatch, batch_from_arrays

ModelMaker = Callable[..., DeepRetrievalModel]
NUM_ITEMS, LENGTH, POSITIONS, TARGETS = 30, 6, 3, 2


def columns(num_rows: int = 5, seed: int = 21) -> dict[str, np.ndarray]:
    """Rows of a samples table; histories of 2 to L - 1 items, the last position unused in every second row."""
    rng = np.random.default_rng(seed)
    length = rng.integers(2, LENGTH, num_rows)
    history = np.where(np.arange(LENGTH) < length[:, None], rng.integers(0, NUM_ITEMS, (num_rows, LENGTH)), -1)
    positions = np.sort(rng.integers(0, length[:, None], (num_rows, POSITIONS)), axis=1)
    targets = rng.integers(0, NUM_ITEMS, (num_rows, POSITIONS, TARGETS))
    weights = rng.uniform(0.5, 2.0, targets.shape)
    positions[::2, -1] = -1
    targets[::2, -1] = -1
    targets[1::2, 0, 1] = -1
    return {
        "history": history.astype(np.int32),
        "length": length.astype(np.int32),
        "positions": positions.astype(np.int32),
        "targets": targets.reshape(num_rows, -1).astype(np.int32),
        "weights": np.where(targets >= 0, weights, 0).reshape(num_rows, -1).astype(np.float32),
        "context_categorical": np.zeros((num_rows, 1), np.int32),
        "context_numeric": np.zeros((num_rows, 1), np.float32),
    }


def batch() -> Batch:
    return batch_from_arrays(columns())


def rows_of(whole: Batch, rows: list[int]) -> Batch:
    return Batch(*(None if value is None else value[rows] for value in vars(whole).values()))


def test_states_are_those_of_the_history_up_to_each_position(make_model: ModelMaker) -> None:
    model, samples = make_model(), batch()
    user_NE, target_NT, weight_NT = model.encode(samples)
    expected, targets = [], []
    for row in range(len(samples)):
        for slot in range(POSITIONS):
            position = int(samples.position_BP[row, slot])
            if position >= 0:
                seen = samples.history_BL[row : row + 1, : position + 1]
                expected.append(model.encode_last(seen, torch.tensor([position + 1]))[0])
                targets.append(samples.target_BPT[row, slot])
    torch.testing.assert_close(user_NE, torch.stack(expected))
    assert torch.equal(target_NT, torch.stack(targets))
    assert torch.equal(weight_NT > 0, target_NT >= 0)


def test_unused_history_columns_are_dropped_without_effect(make_model: ModelMaker) -> None:
    model, arrays = make_model(), columns()
    trimmed = batch_from_arrays(arrays)
    assert trimmed.history_BL.shape[1] == arrays["length"].max() < LENGTH
    untrimmed = replace(trimmed, history_BL=torch.from_numpy(arrays["history"].astype(np.int64)))
    for one, other in zip(model.encode(trimmed), model.encode(untrimmed), strict=True):
        torch.testing.assert_close(one, other)


def test_tiny_probabilities_do_not_underflow(make_model: ModelMaker) -> None:
    model = make_model(num_paths=2, normaliser="layers", path_vectors=0)
    with torch.no_grad():
        for output in model.structure.outputs:
            output.bias.copy_(torch.tensor([0.0, -400.0, -400.0, -400.0]))
    model.set_item_paths(np.tile([[5, 10]], (NUM_ITEMS, 1)))
    loss = model.structure.loss(*model.encode(batch()), model.placement)
    assert torch.isfinite(loss)
    assert loss.item() > 0


def test_forward_is_the_sum_over_rows_and_each_part_can_be_left_out(make_model: ModelMaker) -> None:
    model, samples = make_model(num_paths=2), batch()
    whole = model(samples, True, True)
    parts = [model(rows_of(samples, [row]), True, True) for row in range(len(samples))]
    for number in range(3):
        torch.testing.assert_close(whole[number], sum(part[number] for part in parts))
    assert float(whole[2]) == pytest.approx(columns()["weights"].sum(), rel=1e-6)
    assert float(model(samples, False, True)[0]) == 0.0
    assert float(model(samples, True, False)[1]) == 0.0
    torch.testing.assert_close(model(samples, True, False)[0], whole[0])
    torch.testing.assert_close(model(samples, False, True)[1], whole[1])


def test_doubling_a_samples_weight_is_repeating_the_sample(make_model: ModelMaker) -> None:
    model, samples = make_model(num_paths=2), batch()
    weight_BPT = samples.weight_BPT.clone()
    weight_BPT[1] *= 2
    gradients, losses = [], []
    for variant in (replace(samples, weight_BPT=weight_BPT), rows_of(samples, [0, 1, 1, 2, 3, 4])):
        structure, softmax, weight = model(variant, True, True)
        losses.append(torch.stack([structure, softmax, weight]))
        gradients.append(torch.autograd.grad(structure + softmax, list(model.parameters())))
    torch.testing.assert_close(losses[0], losses[1])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_states_computed_once_give_the_same_losses(make_model: ModelMaker) -> None:
    model, samples = make_model(num_paths=2), batch()
    for one, other in zip(
        model(samples, True, True), model(StateBatch(*model.encode(samples)), True, True), strict=False
    ):
        torch.testing.assert_close(one, other)


def test_paths_of_another_catalogue_are_refused(make_model: ModelMaker) -> None:
    with pytest.raises(ValueError, match="29 items"):
        make_model().set_item_paths(np.zeros((NUM_ITEMS - 1, 1), np.int64))


@pytest.mark.parametrize("filtered", [False, True])
def test_recall_is_that_of_full_lists(make_model: ModelMaker, monkeypatch: pytest.MonkeyPatch, filtered: bool) -> None:
    """Blocks of items, histories of several positions and absent targets against a sort of all scores, state by state."""
    monkeypatch.setattr(reranker, "ITEMS_AT_ONCE", 7)
    model, samples, k = make_model().eval(), batch(), 4
    user_NE, target_NT, _ = model.encode(samples)
    score_NV = model.reranker.score_all(user_NE).detach()
    row_N, slot_N = (samples.position_BP >= 0).nonzero(as_tuple=True)
    expected = []
    for state, (row, slot) in enumerate(zip(row_N, slot_N, strict=True)):
        seen = set(samples.history_BL[row, : samples.position_BP[row, slot] + 1].tolist()) if filtered else set()
        ranked = [item for item in score_NV[state].argsort(descending=True).tolist() if item not in seen][:k]
        wanted = [item for item in target_NT[state].tolist() if item >= 0]
        expected.append(sum(item in ranked for item in wanted) / len(wanted))
    torch.testing.assert_close(model.recall(samples, k, filtered=filtered), torch.tensor(expected))
    assert 0 < sum(expected) < len(expected)
