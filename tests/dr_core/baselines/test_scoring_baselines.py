"""Baselines that score every item: against their formulas, and against the list of the most popular."""

import numpy as np
import pytest

from dr_core.baselines.als import ALS, ALSConfig
from dr_core.baselines.base import Baseline, Events, best, incidence, weighted
from dr_core.baselines.ease import EASE, EASEConfig
from dr_core.baselines.item_cf import ItemCF, ItemCFConfig
from dr_core.baselines.mult_vae import MultVAE, MultVAEConfig
from dr_core.evaluation.metrics import user_metrics
from dr_core.item_lists import ItemLists
from tests.oracles.popularity import Popularity


class SmallVAE(MultVAE):
    """A network that a test can wait for."""

    def __init__(self) -> None:
        super().__init__(MultVAEConfig(hidden=64, latent=16, epochs=25, batch_users=64, learning_rate=3e-3))


BASELINES = (ItemCF, EASE, ALS, SmallVAE)


def recall(baseline: Baseline, strangers: tuple[ItemLists, ItemLists], k: int = 8) -> float:
    found = baseline.retrieve(strangers[0], k, filtered=True)
    return float(np.nanmean(user_metrics(found, strangers[1], k).recall))


@pytest.mark.parametrize("kind", BASELINES)
def test_a_baseline_beats_the_most_popular_items(kind: type[Baseline], events: Events, strangers) -> None:
    baseline, popular = kind(), Popularity()
    baseline.fit(events)
    popular.fit(events)
    assert recall(baseline, strangers) > 2 * recall(popular, strangers)
    assert baseline.megabytes() > 0


@pytest.mark.parametrize("kind", [*BASELINES, Popularity])
def test_filtered_lists_hold_nothing_of_the_history(kind: type[Baseline], events: Events, strangers) -> None:
    baseline, histories = kind(), strangers[0]
    baseline.fit(events)
    plain, filtered = (baseline.retrieve(histories, 15, filtered=flag) for flag in (False, True))
    for user, (start, end) in enumerate(zip(histories.offsets[:-1], histories.offsets[1:], strict=True)):
        history = set(histories.item_ids[start:end].tolist())
        assert not set(filtered[user].tolist()) & history
        assert [item for item in plain[user] if item not in history] == [
            item for item in filtered[user] if item in plain[user]
        ]
        assert len(set(filtered[user].tolist())) == 15


def test_item_cf_is_its_formula(events: Events) -> None:
    baseline = ItemCF(ItemCFConfig(shrinkage=5.0, num_neighbours=1000))
    baseline.fit(events)
    dense = events.matrix.toarray()
    common = dense.T @ dense
    norms = np.sqrt(np.diag(common).clip(1))
    expected = common / np.outer(norms, norms) * common / (common + 5.0)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(baseline.similarity_VV.toarray(), expected, rtol=1e-5, atol=1e-6)
    few = ItemCF(ItemCFConfig(shrinkage=5.0, num_neighbours=7))
    few.fit(events)
    kept = few.similarity_VV.toarray()
    assert ((kept > 0).sum(axis=1) <= 7).all()
    np.testing.assert_allclose(-np.sort(-kept, axis=1)[:, :7], -np.sort(-expected, axis=1)[:, :7], rtol=1e-5, atol=1e-6)


def test_ease_solves_its_regression(events: Events) -> None:
    """Each column of B is the ridge regression of an item on all others."""
    baseline = EASE(EASEConfig(regularisation=40.0))
    baseline.fit(events)
    dense = events.matrix.toarray().astype(np.float64)
    for item in (0, 17, 119):
        others = np.delete(np.arange(events.num_items), item)
        gram = dense[:, others].T @ dense[:, others] + 40.0 * np.eye(len(others))
        expected = np.linalg.solve(gram, dense[:, others].T @ dense[:, item])
        np.testing.assert_allclose(baseline.weight_II[others, item], expected, rtol=1e-3, atol=1e-5)
        assert baseline.weight_II[item, item] == 0


def test_ease_of_some_items_finds_only_those(events: Events, strangers) -> None:
    baseline = EASE(EASEConfig(max_items=30))
    baseline.fit(events)
    popular = set(np.argsort(-events.counts, kind="stable")[:30].tolist())
    found = baseline.retrieve(strangers[0], 40, filtered=False)
    assert set(found[found >= 0].tolist()) <= popular
    assert (found[:, 30:] == -1).all()


def test_weights_halve_with_every_half_life_and_a_repeat_counts_once_at_its_last_place() -> None:
    histories = ItemLists.from_rows([[3, 1, 3, 0], [], [2], [1, 1, 1]])
    np.testing.assert_allclose(
        weighted(histories, 5, 2.0).toarray(),
        [[1, 2**-1.0, 0, 2**-0.5, 0], [0] * 5, [0, 0, 1, 0, 0], [0, 1, 0, 0, 0]],
        rtol=1e-6,
    )
    assert (weighted(histories, 5, None) != incidence(histories, 5)).nnz == 0
    assert weighted(ItemLists.from_rows([[]]), 5, 2.0).nnz == 0


@pytest.mark.parametrize(("kind", "config"), [(ItemCF, ItemCFConfig), (EASE, EASEConfig), (MultVAE, MultVAEConfig)])
def test_only_the_last_event_counts_with_a_short_half_life(kind, config, events: Events, strangers) -> None:
    settings = {"epochs": 2} if kind is MultVAE else {}
    baseline = kind(config(half_life=0.01, **settings))
    baseline.fit(events)
    rows = [strangers[0].item_ids[a:b] for a, b in zip(strangers[0].offsets, strangers[0].offsets[1:], strict=False)]
    last = ItemLists.from_rows([row[-1:] for row in rows])
    np.testing.assert_allclose(baseline.scores(strangers[0]), baseline.scores(last), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "config"), [(ItemCF, ItemCFConfig), (EASE, EASEConfig), (ALS, ALSConfig), (MultVAE, MultVAEConfig)]
)
def test_the_half_life_changes_the_answers_and_no_fit(kind, config, events: Events, strangers) -> None:
    settings = {"epochs": 2} if kind is MultVAE else {}
    baseline, alone = kind(config(**settings)), kind(config(half_life=1.5, **settings))
    for one in (baseline, alone):
        one.fit(events)
    before = baseline.scores(strangers[0])
    np.testing.assert_array_equal(baseline.with_half_life(1.5).scores(strangers[0]), alone.scores(strangers[0]))
    np.testing.assert_array_equal(alone.with_half_life(None).scores(strangers[0]), before)
    np.testing.assert_array_equal(baseline.scores(strangers[0]), before)
    assert (before != alone.scores(strangers[0])).any()


def test_best_breaks_ties_by_item_and_pads() -> None:
    scores = np.array([[1, 3, 3, 0], [5, 5, 5, 5]], dtype=np.float32)
    assert best(scores, 3, None).tolist() == [[1, 2, 0], [0, 1, 2]]
    assert best(scores, 3, ItemLists.from_rows([[1], [0, 2, 3]])).tolist() == [[2, 0, 3], [1, -1, -1]]
    assert best(scores, 6, None).tolist() == [[1, 2, 0, 3, -1, -1], [0, 1, 2, 3, -1, -1]]


@pytest.mark.parametrize("kind", [ALS, SmallVAE])
def test_the_same_seed_gives_the_same_lists(kind: type[Baseline], events: Events, strangers) -> None:
    lists = []
    for _ in range(2):
        baseline = kind()
        baseline.fit(events)
        lists.append(baseline.retrieve(strangers[0], 10, filtered=True))
    np.testing.assert_array_equal(*lists)


def test_als_of_a_training_user_is_what_it_learned(events: Events) -> None:
    """A user folded in gets the factors that the last half-step would give it."""
    baseline = ALS()
    baseline.fit(events)
    users = ItemLists(events.histories.offsets[:11], events.histories.item_ids[: events.histories.offsets[10]])
    learned = baseline.model.user_factors[:10] @ baseline.item_VE.T
    assert np.corrcoef(baseline.scores(users).ravel(), learned.ravel())[0, 1] > 0.99


def test_an_event_too_long_ago_to_weigh_anything_leaves_mult_vae_with_numbers() -> None:
    baseline = MultVAE(MultVAEConfig(hidden=4, latent=2, epochs=1, max_items=1, half_life=1.0))
    baseline.fit(Events(ItemLists.from_rows([[0, 1], [0, 2]]), 3))
    scores = baseline.scores(ItemLists.from_rows([[0] + [1, 2] * 200]))
    assert np.isfinite(scores[0, 0])
