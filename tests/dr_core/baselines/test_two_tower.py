"""The two-tower model: its softmax against enumeration, what the correction undoes, and training that follows the days."""

import itertools

import numpy as np
import pytest
import torch

from dr_core.baselines.base import Events, ItemFeatures
from dr_core.baselines.frequency import FrequencyConfig
from dr_core.baselines.history_source import CutConfig
from dr_core.baselines.two_tower import TwoTower, TwoTowerConfig, corrected_log_softmax, plain_log_softmax
from dr_core.evaluation.metrics import user_metrics
from dr_core.item_lists import ItemLists
from tests.dr_core.baselines.conftest import NUM_ITEMS, NUM_TOPICS
from tests.oracles.popularity import Popularity

CUT = CutConfig(history_length=20, positions=4, targets=3, batch_rows=64)
CONFIG = TwoTowerConfig(dim=16, hidden=32, cut=CUT, epochs=15, learning_rate=1e-2, frequency=FrequencyConfig(rate=0.05))


def recall(baseline: TwoTower | Popularity, strangers: tuple[ItemLists, ItemLists], k: int = 8) -> float:
    found = baseline.retrieve(strangers[0], k, filtered=True)
    return float(np.nanmean(user_metrics(found, strangers[1], k).recall))


@pytest.fixture(scope="module")
def fitted(events: Events) -> TwoTower:
    baseline = TwoTower(CONFIG)
    baseline.fit(events)
    return baseline


def test_it_beats_the_most_popular_items(fitted: TwoTower, events: Events, strangers) -> None:
    popular = Popularity()
    popular.fit(events)
    assert recall(fitted, strangers) > 2 * recall(popular, strangers)


def test_both_towers_end_on_the_sphere_and_score_by_cosine(fitted: TwoTower, strangers) -> None:
    users = fitted.users(strangers[0])
    np.testing.assert_allclose(np.linalg.norm(users, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(fitted.item_VE, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(fitted.scores(strangers[0]), users @ fitted.item_VE.T, rtol=1e-5)


def test_a_state_is_that_of_the_history_up_to_it(fitted: TwoTower, strangers) -> None:
    """In the middle of a longer row, padded or not, and with features of further items at hand."""
    offsets, item_ids = strangers[0].offsets, strangers[0].item_ids
    rows = [item_ids[first:last] for first, last in itertools.pairwise(offsets)]
    history_BL = torch.full((len(rows), CUT.history_length), -1)
    for number, row in enumerate(rows):
        history_BL[number, : len(row)] = torch.from_numpy(row[: CUT.history_length])
    last_N = torch.tensor([number % min(len(row), CUT.history_length) for number, row in enumerate(rows)])
    item_D = torch.arange(NUM_ITEMS)
    states = fitted.towers.states(history_BL, torch.arange(len(rows)), last_N, item_D, fitted.towers.features(item_D))
    cut = ItemLists.from_rows([row[: last + 1] for row, last in zip(rows, last_N.tolist(), strict=True)])
    np.testing.assert_allclose(states.numpy(), fitted.users(cut), rtol=1e-4, atol=1e-6)


def test_the_same_seed_gives_the_same_vectors(events: Events) -> None:
    vectors = []
    for _ in range(2):
        baseline = TwoTower(CONFIG.model_copy(update={"epochs": 2}))
        baseline.fit(events)
        vectors.append(baseline.item_VE)
    np.testing.assert_array_equal(*vectors)


def pairs_of(targets: list[int], logits: dict[int, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    items, copies = np.unique(targets, return_counts=True)
    logit_NC = torch.stack([logits[item] for item in items.tolist()], 1)
    own = torch.from_numpy(np.searchsorted(items, targets))[:, None]
    return logit_NC, own, torch.from_numpy(copies)


def test_the_plain_softmax_is_over_the_batch_without_accidental_hits() -> None:
    """Row i's partition: its own pair and every other pair with another item."""
    torch.manual_seed(0)
    targets = [4, 7, 4, 9, 4, 7]
    logits = {item: torch.randn(len(targets)) for item in set(targets)}
    logit_NC, own_N1, copies_C = pairs_of(targets, logits)
    found = plain_log_softmax(logit_NC, own_N1, copies_C)[:, 0]
    for row, item in enumerate(targets):
        negatives = [logits[other][row] for place, other in enumerate(targets) if place != row and other != item]
        expected = logits[item][row] - torch.logsumexp(torch.stack([logits[item][row], *negatives]), 0)
        assert found[row] == pytest.approx(float(expected), abs=1e-5)


def test_the_corrected_partition_is_the_full_softmax_on_average() -> None:
    """Sum over a batch's items of exp(s) / p is an unbiased estimate of the sum over all items; without p it is not."""
    rng = np.random.default_rng(0)
    num_items, num_drawn = 40, 16
    share = np.arange(1, num_items + 1) ** 2.0
    share /= share.sum()
    probability = 1 - (1 - share) ** num_drawn
    score = rng.standard_normal(num_items)
    corrected, plain = [], []
    for _ in range(20_000):
        items = np.unique(rng.choice(num_items, num_drawn, p=share))
        corrected.append((np.exp(score[items]) / probability[items]).sum())
        plain.append(np.exp(score[items]).sum())
    full = np.exp(score).sum()
    assert np.mean(corrected) == pytest.approx(full, rel=0.02)
    assert abs(np.mean(plain) / full - 1) > 0.2
    items = torch.tensor([3, 8, 20])
    logit, log_p = torch.from_numpy(score)[items][None], torch.from_numpy(np.log(probability))[items]
    found = corrected_log_softmax(logit, torch.tensor([[1]]), log_p)
    lowered = logit[0] - log_p
    assert float(found) == pytest.approx(float(lowered[1] - torch.logsumexp(lowered, 0)))


def test_the_correction_lets_popular_items_be_found() -> None:
    """A batch punishes an item as often as it turns up: uncorrected, the popular items sink (table 2 of the paper)."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, 101) ** 1.2
    rows = [rng.choice(100, 12, replace=False, p=share / share.sum()) for _ in range(800)]
    events = Events(ItemLists.from_rows(rows), 100)
    strangers = ItemLists.from_rows([rng.choice(100, 4, replace=False) for _ in range(50)])
    ranks = {}
    for corrected in (True, False):
        baseline = TwoTower(CONFIG.model_copy(update={"corrected": corrected, "temperature": 0.2, "epochs": 10}))
        baseline.fit(events)
        found = baseline.retrieve(strangers, 10, filtered=False)
        ranks[corrected] = np.mean(np.argsort(np.argsort(-events.counts))[found])
    assert ranks[True] < 0.5 * ranks[False]


def test_rewards_weigh_the_pairs() -> None:
    """Of two items that follow the same history equally often, the one that is worth more is found first."""
    rng = np.random.default_rng(1)
    rows, rewards = [], []
    for user in range(400):
        rows.append(np.r_[rng.permutation(20)[:5], 30 + user % 2])
        rewards += [1.0] * 5 + [5.0 if user % 2 else 0.2]
    events = Events(ItemLists.from_rows(rows), 32, np.array(rewards, dtype=np.float32))
    baseline = TwoTower(CONFIG)
    baseline.fit(events)
    scores = baseline.scores(ItemLists.from_rows([row[:5] for row in rows[:100]]))
    assert (scores[:, 31] > scores[:, 30]).mean() > 0.95


def topic_features() -> ItemFeatures:
    topic = np.arange(NUM_ITEMS) % NUM_TOPICS
    several = ItemLists.from_rows([[value, NUM_TOPICS + value] if value % 2 else [] for value in topic.tolist()])
    single = ItemLists.from_rows(topic[:, None])
    return ItemFeatures({"tags": several, "topic": single}, {"tags": 2 * NUM_TOPICS, "topic": NUM_TOPICS},
                        np.linspace(-1, 1, NUM_ITEMS, dtype=np.float32)[:, None])  # fmt: skip


def test_values_of_a_feature_are_averaged_and_numbers_passed_on(events: Events) -> None:
    features = topic_features()
    baseline = TwoTower(CONFIG.model_copy(update={"epochs": 1}))
    baseline.fit(Events(events.histories, NUM_ITEMS, features=features))
    towers = baseline.towers
    embedded = towers.features(torch.arange(NUM_ITEMS))
    tags, topic = (values.table.weight for values in towers.value_tables)
    dim, width = CONFIG.dim, CONFIG.value_dim
    for item in (0, 1, 8, 119):
        value = item % NUM_TOPICS
        expected = (tags[value] + tags[NUM_TOPICS + value]) / 2 if value % 2 else torch.zeros(width)
        torch.testing.assert_close(embedded[item, dim : dim + width], expected)
        torch.testing.assert_close(embedded[item, dim + width : dim + 2 * width], topic[value])
        assert float(embedded[item, -1]) == pytest.approx(float(features.numeric_VM[item, 0]))
    shuffled = torch.tensor([5, 3, 3, 110])
    torch.testing.assert_close(towers.features(shuffled), embedded[shuffled])


def test_content_carries_an_item_that_nobody_met(events: Events, strangers) -> None:
    """Some items lose all their events; with their topic known, they stand nearer to their topic's users."""
    unseen = np.arange(0, 12)
    rows = [row[~np.isin(row, unseen)] for row in np.split(events.histories.item_ids, events.histories.offsets[1:-1])]
    baseline = TwoTower(CONFIG)
    baseline.fit(Events(ItemLists.from_rows(rows), NUM_ITEMS, features=topic_features()))
    scores = baseline.scores(strangers[0])[:, unseen]
    offsets = strangers[0].offsets
    topics = [np.bincount(strangers[0].item_ids[a:b] % NUM_TOPICS, minlength=NUM_TOPICS).argmax() for a, b in zip(offsets[:-1], offsets[1:], strict=True)]  # fmt: skip
    own = np.array([scores[user, unseen % NUM_TOPICS == topic].mean() for user, topic in enumerate(topics)])
    assert (own > scores.mean(1)).mean() > 0.9


def test_a_second_day_is_learned_from_its_own_events_alone(events: Events) -> None:
    """What an update trains on are the targets after each user's learned ones, and the estimator goes on counting."""
    baseline = TwoTower(CONFIG.model_copy(update={"epochs": 2}))
    offsets = events.histories.offsets
    first_day = ItemLists.from_rows([events.histories.item_ids[a : a + (b - a) // 2] for a, b in zip(offsets[:-1], offsets[1:], strict=True)])  # fmt: skip
    baseline.fit(Events(first_day, NUM_ITEMS))
    steps, before = baseline.frequency.step, baseline.item_VE.copy()
    seen: set[int] = set()
    observe = baseline.frequency.observe

    def watched(items: np.ndarray) -> None:
        seen.update(items.tolist())
        observe(items)

    baseline.frequency.observe = watched  # type: ignore[method-assign]
    new_items = np.array([NUM_ITEMS - 2, NUM_ITEMS - 1])
    days = np.split(first_day.item_ids, first_day.offsets[1:-1])
    rows = [np.r_[row[~np.isin(row, new_items)], new_items[user % 2]] for user, row in enumerate(days)]
    both = ItemLists.from_rows(rows)
    baseline.update(Events(both, NUM_ITEMS), learned=np.diff(both.offsets) - 1)
    assert seen == set(new_items.tolist())
    assert baseline.frequency.step > steps
    assert not np.array_equal(before, baseline.item_VE)


def test_kept_and_restored_it_learns_the_next_day_as_if_never_stopped(events: Events) -> None:
    """Towers and estimator are all that a day hands to the next."""
    config = CONFIG.model_copy(update={"epochs": 2})
    offsets, items = events.histories.offsets, events.histories.item_ids
    first = ItemLists.from_rows([items[a : b - 3] for a, b in zip(offsets[:-1], offsets[1:], strict=True)])
    learned = np.diff(offsets) - 3
    baseline = TwoTower(config)
    baseline.fit(Events(first, NUM_ITEMS, features=topic_features()))
    kept = {name: value.copy() for name, value in baseline.arrays().items()}
    baseline.update(events, learned)
    again = TwoTower.restore(config, kept, topic_features())
    assert again.frequency.step > 0
    again.update(events, learned)
    np.testing.assert_array_equal(again.item_VE, baseline.item_VE)
    np.testing.assert_array_equal(again.frequency.gap_MH, baseline.frequency.gap_MH)
