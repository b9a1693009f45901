"""The cut in memory: every state sees the past alone, and its targets are what came later."""

import numpy as np
import pytest
import torch

from dr_core.learning.samples import Histories, SamplesConfig, SampleSource, cut_histories

CONFIG = SamplesConfig(max_rows=3, positions=3, targets=4)


@pytest.fixture(scope="module")
def histories() -> Histories:
    """Users of 0 to 60 events; no item comes twice, so that an item tells its user and place. Weight = item id."""
    sizes = [0, 1, 2, 5, 8, 9, 60, *np.random.default_rng(0).integers(2, 40, 30)]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    items = np.arange(offsets[-1])
    return Histories(offsets, items, items.astype(np.float32))


@pytest.mark.parametrize("mode", ["later", "next"])
def test_states_see_the_past_and_targets_are_later_events(histories: Histories, mode: str) -> None:
    samples = cut_histories(histories, CONFIG.model_copy(update={"target_mode": mode}), seed=3, history_length=7)
    user_of = np.repeat(np.arange(len(histories)), np.diff(histories.offsets))
    rows_of = np.zeros(len(histories), dtype=int)
    for row in range(len(samples)):
        history = samples.history_BL[row].numpy()
        history = history[history >= 0]
        user = user_of[history[0]]
        rows_of[user] += 1
        np.testing.assert_array_equal(history, np.arange(history[0], history[0] + len(history)))
        for place, position in enumerate(samples.position_BP[row].tolist()):
            targets = samples.target_BPT[row, place].numpy()
            weights = samples.weight_BPT[row, place].numpy()
            real = targets[targets >= 0]
            np.testing.assert_array_equal(weights, np.where(targets >= 0, targets, 0))
            if position < 0:
                assert len(real) == 0
                continue
            state = history[position]
            later = np.arange(state + 1, histories.offsets[user + 1])
            assert len(real) == min(len(later), CONFIG.targets) == len(set(real))
            assert set(real) <= set(later)
            if mode == "next":
                np.testing.assert_array_equal(real, later[: CONFIG.targets])
    sizes = np.diff(histories.offsets)
    np.testing.assert_array_equal(rows_of, np.where(sizes < 2, 0, np.minimum(-(-(sizes - 1) // 7), 3)))


def test_the_draws_follow_from_the_seed(histories: Histories) -> None:
    first, again, other = (cut_histories(histories, CONFIG, seed, history_length=7) for seed in (3, 3, 4))
    assert torch.equal(first.target_BPT, again.target_BPT)
    assert not torch.equal(first.target_BPT, other.target_BPT)


def test_only_the_most_recent_events_are_used(histories: Histories) -> None:
    samples = cut_histories(histories, CONFIG.model_copy(update={"max_events": 5}), seed=0, history_length=7)
    recent = np.concatenate([histories.items(user)[-5:] for user in range(len(histories))])
    used = np.concatenate([samples.history_BL.numpy().ravel(), samples.target_BPT.numpy().ravel()])
    assert set(used[used >= 0]) <= set(recent)
    assert len(samples) == (np.diff(histories.offsets) >= 2).sum()


def test_every_row_comes_once_an_epoch_in_another_order(histories: Histories) -> None:
    samples = cut_histories(histories, CONFIG, seed=0, history_length=7)
    source = SampleSource(samples, 8, seed=1)
    epochs = [list(source.batches(epoch)) for epoch in (0, 1, 0)]
    assert len(epochs[0]) == source.steps_per_epoch
    rows = [[tuple(map(tuple, row.tolist())) for batch in epoch for row in batch.target_BPT] for epoch in epochs]
    assert sorted(rows[0]) == sorted(rows[1]) == sorted(tuple(map(tuple, row.tolist())) for row in samples.target_BPT)
    assert rows[0] != rows[1]
    assert rows[0] == rows[2]
    resumed = list(source.batches(1, 2))
    assert [batch.history_BL.tolist() for batch in resumed] == [batch.history_BL.tolist() for batch in epochs[1][2:]]
    in_order = [row.tolist() for batch in source.in_order() for row in batch.position_BP]
    assert in_order == samples.position_BP.tolist()


def test_histories_of_some_users_are_theirs(histories: Histories) -> None:
    some = histories.of(np.array([6, 0, 3]))
    assert [some.items(at).tolist() for at in range(3)] == [histories.items(user).tolist() for user in (6, 0, 3)]
    np.testing.assert_array_equal(some.weights, some.item_ids)
    assert Histories.from_rows([[4, 2], [], [2]]).counts(6).tolist() == [0, 0, 2, 0, 1, 0]
