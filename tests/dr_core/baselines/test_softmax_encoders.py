"""Baselines that encode the history: what their training rows hold, and what they learn from them."""

import numpy as np
import pytest

from dr_core.baselines.base import Events
from dr_core.baselines.history_source import CutConfig, HistorySource, padded
from dr_core.baselines.softmax_encoders import KINDS, softmax_encoder
from dr_core.evaluation.metrics import user_metrics
from dr_core.item_lists import ItemLists
from dr_core.model.reranker import RerankerConfig
from tests.oracles.popularity import Popularity

CUT = CutConfig(history_length=7, positions=3, targets=4, batch_rows=5)


def lists() -> ItemLists:
    """Users whose n-th item says n: 100 u + n."""
    sizes = [1, 2, 3, 8, 9, 30, 0, 15]
    return ItemLists.from_rows([100 * user + np.arange(size) for user, size in enumerate(sizes)])


@pytest.mark.parametrize("next_only", [False, True])
def test_targets_are_later_than_their_state(next_only: bool) -> None:
    source = HistorySource(lists(), CUT.model_copy(update={"next_only": next_only}), seed=3)
    batches = list(source.batches(0))
    assert len(batches) == source.steps_per_epoch
    rows = [
        tuple(part.numpy() for part in parts)
        for batch in batches
        for parts in zip(batch.history_BL, batch.position_BP, batch.target_BPT, batch.weight_BPT, strict=True)
    ]
    lengths = np.diff(lists().offsets)
    assert len(rows) == sum(-(-(n - 1) // 7) for n in lengths if n >= 2)
    for history, positions, targets, weights in rows:
        real = history[history >= 0]
        assert (np.diff(real) == 1).all()
        user = real[0] // 100
        assert (positions >= 0).any()
        for position, row, weight in zip(positions, targets, weights, strict=True):
            if position < 0:
                assert (row == -1).all()
                continue
            state = history[position] % 100
            places = row[row >= 0] % 100
            later = np.arange(state + 1, lengths[user])
            assert len(set(places.tolist())) == len(places) == min(4, len(later))
            assert set(places.tolist()) <= set(later.tolist())
            assert (weight == (row >= 0)).all()
            if next_only:
                assert places.tolist() == later[:4].tolist()


def test_every_state_and_later_event_is_drawn_in_time() -> None:
    source = HistorySource(lists(), CUT, seed=0)
    states, pairs = set(), set()
    for epoch in range(300):
        for batch in source.batches(epoch):
            for history, positions, targets in zip(batch.history_BL.numpy(), batch.position_BP.numpy(), batch.target_BPT.numpy(), strict=True):  # fmt: skip
                for position, row in zip(positions, targets, strict=True):
                    if position >= 0:
                        states.add(int(history[position]))
                        pairs |= {(int(history[position]), int(item)) for item in row if item >= 0}
    lengths = np.diff(lists().offsets)
    assert states == {100 * user + place for user, n in enumerate(lengths) for place in range(n - 1)}
    assert {pair for pair in pairs if pair[0] // 100 == 4} == {
        (400 + state, 400 + later) for state in range(8) for later in range(state + 1, 9)
    }


def test_the_same_epoch_gives_the_same_batches() -> None:
    source = HistorySource(lists(), CUT, seed=0)
    whole, rest, other = list(source.batches(2)), list(source.batches(2, 1)), list(source.batches(3))
    for one, again in zip(whole[1:], rest, strict=True):
        assert (one.target_BPT == again.target_BPT).all()
    assert any((one.target_BPT.shape != again.target_BPT.shape) or (one.target_BPT != again.target_BPT).any() for one, again in zip(whole, other, strict=True))  # fmt: skip


def test_histories_keep_their_newest_items() -> None:
    rows, sizes = padded(lists(), 4)
    assert sizes.tolist() == [1, 2, 3, 4, 4, 4, 0, 4]
    assert rows[5].tolist() == [526, 527, 528, 529]
    assert rows[1].tolist() == [100, 101, -1, -1]


@pytest.mark.parametrize("name", list(KINDS))
def test_an_encoder_beats_the_most_popular_items(name: str, events: Events, strangers) -> None:
    cut = CutConfig(history_length=20, positions=4, targets=4, batch_rows=64)
    baseline, popular = softmax_encoder(name, RerankerConfig(), cut, epochs=8, seed=0), Popularity()
    baseline.fit(events)
    popular.fit(events)
    recalls = [
        float(np.nanmean(user_metrics(each.retrieve(strangers[0], 8, filtered=True), strangers[1], 8).recall))
        for each in (baseline, popular)
    ]
    assert recalls[0] > 2 * recalls[1]
    assert baseline.megabytes() > 0


def test_a_small_world_is_passed_until_the_steps_are_made(events: Events) -> None:
    cut = CutConfig(history_length=20, positions=2, targets=2, batch_rows=64)
    an_epoch = HistorySource(events.histories, cut, seed=0).steps_per_epoch

    def fitted(epochs: int, min_steps: int) -> np.ndarray:
        baseline = softmax_encoder("youtube_dnn", RerankerConfig(), cut, epochs=epochs, min_steps=min_steps, seed=0)
        baseline.fit(events)
        return baseline.item_VE

    assert (fitted(1, an_epoch + 1) == fitted(2, 1)).all()
    assert (fitted(2, an_epoch) == fitted(2, 1)).all()
    assert not (fitted(1, 1) == fitted(2, 1)).all()
