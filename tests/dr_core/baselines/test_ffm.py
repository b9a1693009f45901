"""Field-aware factorisation: its inner product against the sum over pairs of fields, and what it learns."""

import numpy as np
import pytest
import torch

from dr_core.baselines.base import Events, ItemFeatures
from dr_core.baselines.ffm import FFM, FFMConfig
from dr_core.baselines.history_source import CutConfig
from dr_core.evaluation.metrics import user_metrics
from dr_core.item_lists import ItemLists
from tests.dr_core.baselines.conftest import NUM_ITEMS, NUM_TOPICS
from tests.oracles.popularity import Popularity

CUT = CutConfig(history_length=20, positions=4, targets=3, batch_rows=64)
CONFIG = FFMConfig(pair_dim=8, cut=CUT, epochs=10, learning_rate=1e-2, num_negatives=60)


def features() -> ItemFeatures:
    topic = np.arange(NUM_ITEMS) % NUM_TOPICS
    tags = ItemLists.from_rows([[value, 6 + value % 3] if value else [] for value in topic.tolist()])
    values = {"tags": tags, "topic": ItemLists.from_rows(topic[:, None])}
    return ItemFeatures(values, {"tags": 9, "topic": NUM_TOPICS}, np.zeros((NUM_ITEMS, 0), np.float32))


@pytest.fixture(scope="module")
def fitted(events: Events) -> FFM:
    baseline = FFM(CONFIG)
    baseline.fit(Events(events.histories, NUM_ITEMS, features=features()))
    return baseline


def test_the_inner_product_is_the_sum_over_pairs_of_fields(fitted: FFM) -> None:
    history = np.array([5, 17, 40])
    fields, pair_dim = fitted.fields, CONFIG.pair_dim
    items = torch.from_numpy(history)
    of_user = [
        fields.met(items).mean(0),
        *(table(items).mean(0) for table in fields.values_met),
        fields.last(items[-1:])[0],
    ]
    found = fitted.scores(ItemLists.from_rows([history]))[0]
    for item in (0, 3, 17, 119):
        one = torch.tensor([item])
        of_item = [fields.item_id(one)[0], *(table(one)[0] for table in fields.item_values)]
        expected = float(fields.bias(one)[0, 0])
        for f, user_vectors in enumerate(of_user):
            for g, item_vectors in enumerate(of_item):
                left = user_vectors[g * pair_dim : (g + 1) * pair_dim]
                right = item_vectors[f * pair_dim : (f + 1) * pair_dim]
                expected += float(left @ right)
        assert found[item] == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("known", [True, False])
def test_it_beats_the_most_popular_items(known: bool, fitted: FFM, events: Events, strangers) -> None:
    baseline, popular = fitted, Popularity()
    if not known:
        baseline = FFM(CONFIG)
        baseline.fit(events)
    popular.fit(events)
    recalls = [
        float(np.nanmean(user_metrics(method.retrieve(strangers[0], 8, filtered=True), strangers[1], 8).recall))
        for method in (baseline, popular)
    ]
    assert recalls[0] > 2 * recalls[1]


def test_an_empty_history_is_answered_by_the_bias(fitted: FFM) -> None:
    scores = fitted.scores(ItemLists.from_rows([[]]))
    np.testing.assert_allclose(scores[0], fitted.fields.bias.weight[:, 0].numpy(), rtol=1e-5)
