"""Streaming VQ: what its candidates hold, that they are the best by cluster and bias, and what its codebook does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dr_core.baselines.base import Events
from dr_core.baselines.history_source import CutConfig, HistorySource
from dr_core.baselines.streaming_vq import StreamingVQ, StreamingVQConfig
from dr_core.evaluation.metrics import candidate_recall
from dr_core.item_lists import ItemLists
from dr_core.model.encoder import EncoderConfig
from tests.dr_core.baselines.conftest import NUM_ITEMS

CONFIG = StreamingVQConfig(
    encoder=EncoderConfig(kind="mean", dim=16, dropout=0.0),
    cut=CutConfig(history_length=20, positions=4, targets=3, batch_rows=64),
    items_per_cluster=8,
    momentum=0.9,
    learning_rate=1e-2,
    epochs=15,
)
ALL = np.arange(NUM_ITEMS)


def fit(events: Events, **settings: object) -> StreamingVQ:
    found = StreamingVQ(StreamingVQConfig.model_validate({**CONFIG.model_dump(), **settings}), seed=0)
    found.fit(events)
    return found


@pytest.fixture(scope="module")
def fitted(events: Events) -> StreamingVQ:
    return fit(events)


def test_few_candidates_hold_most_of_what_users_meet_next(
    fitted: StreamingVQ, events: Events, strangers: tuple[ItemLists, ItemLists]
) -> None:
    """A quarter of the items, where the most popular quarter holds little more than that."""
    histories, truths = strangers
    size = NUM_ITEMS // 4
    found = fitted.candidates(fitted.users(histories), fitted.lists(ALL), size)
    popular = np.tile(np.argsort(-events.counts)[:size], (histories.num_users, 1))
    held, popular_held = (
        np.nanmean(candidate_recall(lists, truths))
        for lists in (ItemLists(found.offsets, found.item_ids), ItemLists.from_matrix(popular))
    )
    assert held > 0.6
    assert held > 1.5 * popular_held


def test_candidates_are_the_best_by_cluster_and_bias(
    fitted: StreamingVQ, strangers: tuple[ItemLists, ItemLists]
) -> None:
    active = ALL[ALL % 5 > 0]
    user_UE = fitted.users(strangers[0])
    found = fitted.candidates(user_UE, fitted.lists(active), 17)
    vector_VE = fitted.codebook.vector_KE.numpy()[fitted.code_V]
    score_UV = (user_UE[:, :-1] @ vector_VE.T + fitted.item_VE[:, -1])[:, active]
    for user, score_V in enumerate(score_UV):
        items = found.item_ids[found.offsets[user] : found.offsets[user + 1]]
        assert set(items) <= set(active)
        own = score_V[np.searchsorted(active, items)]
        np.testing.assert_allclose(own, np.sort(score_V)[::-1][:17], rtol=1e-4, atol=1e-4)


def test_the_same_seed_gives_the_same_vectors_and_clusters(events: Events) -> None:
    one, two = (fit(events, epochs=2) for _ in range(2))
    np.testing.assert_array_equal(one.item_VE, two.item_VE)
    np.testing.assert_array_equal(one.code_V, two.code_V)


def test_the_loss_of_a_code_moves_the_vectors_of_its_items(events: Events) -> None:
    """Straight through: with L_ind beside L_aux a vector's gradient is another one, and clusters have none of their own."""
    gradients = {}
    for moved in (0.0, 100.0):
        torch.manual_seed(0)
        baseline = StreamingVQ(CONFIG)
        baseline.fit(Events(ItemLists.from_rows([[0, 1]]), NUM_ITEMS))
        baseline.towers.requires_grad_(True)
        source = HistorySource(events.histories, CONFIG.cut, 0)
        baseline.codebook.vector_KE += moved
        loss = baseline._loss(next(source.batches(0)))
        assert loss is not None
        loss.backward()  # type: ignore[no-untyped-call]
        assert not baseline.codebook.vector_KE.requires_grad
        gradients[moved] = baseline.towers.vectors.weight.grad
    assert not torch.allclose(gradients[0.0], gradients[100.0])  # type: ignore[arg-type]


def test_clusters_follow_the_items_when_popular_ones_are_held_back(events: Events) -> None:
    """With beta = 1 every item counts alike, so an item that is rare lies nearer to its cluster than with beta = 0."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, NUM_ITEMS + 1) ** 1.2
    rows = [rng.choice(NUM_ITEMS, 12, replace=False, p=share / share.sum()) for _ in range(600)]
    skewed = Events(ItemLists.from_rows(rows), NUM_ITEMS)
    rare = np.argsort(skewed.counts)[: NUM_ITEMS // 2]
    distance = {}
    for power in (0.0, 1.0):
        found = fit(skewed, interval_power=power, starved=None, epochs=10)
        away_VE = found.item_VE[:, :-1] - found.codebook.vector_KE.numpy()[found.code_V]
        distance[power] = float(np.linalg.norm(away_VE[rare], axis=1).mean())
    assert distance[1.0] < distance[0.0]


def test_histories_without_a_pair_leave_a_model_that_answers() -> None:
    baseline = fit(Events(ItemLists.from_rows([[3], [], [5]]), 40), epochs=1)
    found = baseline.candidates(baseline.users(ItemLists.from_rows([[1, 2], []])), baseline.lists(np.arange(40)), 6)
    assert np.diff(found.offsets).tolist() == [6, 6]
