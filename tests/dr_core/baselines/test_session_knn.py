"""Session neighbours: against the formulas written out, and as a rival."""

from itertools import product

import numpy as np
import pytest

from dr_core.baselines.base import Events
from dr_core.baselines.session_knn import STEP, SessionKNN, SessionKNNConfig
from dr_core.evaluation.metrics import user_metrics
from dr_core.item_lists import ItemLists
from tests.oracles.popularity import Popularity

NUM_ITEMS, DAY = 12, 86_400.0


def written_out(config: SessionKNNConfig, rows: list[list[int]], ended: np.ndarray, asked: list[int]) -> np.ndarray:
    """Return float64 [V] votes for one history, 0 without any."""
    asked = asked[-config.history_length :]
    ages = {item: age for age, item in reversed(list(enumerate(reversed(asked))))}
    sessions = [session for session in np.argsort(ended, kind="stable")[::-1] if set(rows[session]) & set(asked)]
    holders = [sum(item in row for row in rows) for item in range(NUM_ITEMS)]
    similarity = {}
    for session in sessions[: config.sample]:
        shared = set(rows[session]) & set(asked)
        if config.kind == "vsknn":
            similarity[session] = sum(1 - ages[item] / len(asked) for item in shared)
        else:
            days = (ended.max() - ended[session]) / DAY
            similarity[session] = sum(np.exp(-ages[item] / config.query_decay) for item in shared)
            similarity[session] /= np.sqrt(len(asked) * len(rows[session]))
            similarity[session] *= np.exp(-days / config.age_decay) if config.age_decay else 1.0
    votes = np.zeros(NUM_ITEMS)
    for session in sorted(similarity, key=lambda session: -similarity[session])[: config.neighbours]:
        place = {item: place for place, item in enumerate(rows[session])}
        nearest = min((item for item in place if item in ages), key=ages.__getitem__)
        for item in place:
            if config.kind == "vsknn":
                vote = max(1 - STEP * ages[nearest], 0.0) * np.log(len(rows) / holders[item])
            else:
                vote = np.exp(-abs(place[item] - place[nearest]) / config.place_decay)
            votes[item] += similarity[session] * vote
    return votes


@pytest.mark.parametrize(
    ("kind", "sample", "age_decay", "length"), product(("vsknn", "stan"), (6, 1000), (None, 2.0), (3, 69))
)
def test_votes_are_the_formulas(kind: str, sample: int, age_decay: float | None, length: int) -> None:
    rng = np.random.default_rng(sample + length)
    rows = [rng.integers(NUM_ITEMS, size=rng.integers(1, 7)).tolist() for _ in range(40)]
    ended = rng.permutation(40) * DAY / 4
    asked = [rng.integers(NUM_ITEMS, size=size).tolist() for size in (1, 4, 15, 2)]
    config = SessionKNNConfig.model_validate(
        {"kind": kind, "neighbours": 5, "sample": sample, "age_decay": age_decay, "history_length": length}
    )
    baseline = SessionKNN(config)
    baseline.fit(Events(ItemLists.from_rows(rows), NUM_ITEMS, ended=ended))
    found = baseline.scores(ItemLists.from_rows(asked))
    for scores, history in zip(found, asked, strict=True):
        votes = written_out(config, rows, ended, history)
        np.testing.assert_allclose(np.where(scores > 0, scores, 0), votes, rtol=1e-5, atol=1e-6)


def test_what_nobody_votes_for_follows_by_popularity() -> None:
    baseline = SessionKNN()
    baseline.fit(Events(ItemLists.from_rows([[0, 1], [2, 3], [3, 4], [3, 2]]), 6))
    lists = baseline.retrieve(ItemLists.from_rows([[0], []]), 6, filtered=False)
    assert lists.tolist() == [[0, 1, 3, 2, 4, 5], [3, 2, 0, 1, 4, 5]]


def test_it_beats_the_most_popular_items(events: Events, strangers: tuple[ItemLists, ItemLists]) -> None:
    histories, truths = strangers
    recalls = []
    for baseline in (SessionKNN(), SessionKNN(SessionKNNConfig(kind="stan")), Popularity()):
        baseline.fit(events)
        found = baseline.retrieve(histories, 8, filtered=True)
        recalls.append(float(np.nanmean(user_metrics(found, truths, 8).recall)))
    assert min(recalls[:2]) > 2 * recalls[2]


def test_an_item_that_weighs_nothing_is_shared_all_the_same() -> None:
    """exp(-age / decay) of an old item is 0 in floating point; its session still counts once, and for the item."""
    baseline = SessionKNN(SessionKNNConfig(kind="stan", query_decay=1e-3))
    baseline.fit(Events(ItemLists.from_rows([[0, 1, 2, 3], [4, 5]]), 6))
    assert baseline.multiply_adds(ItemLists.from_rows([[0, 1, 2, 4]])) == 3 + 1 + 4 + 2
    assert baseline.retrieve(ItemLists.from_rows([[0, 1, 2, 4]]), 1, filtered=True).tolist() == [[5]]


def test_its_size_grows_with_what_it_learned() -> None:
    few, many = SessionKNN(), SessionKNN()
    few.fit(Events(ItemLists.from_rows([[0, 1]]), 3))
    many.fit(Events(ItemLists.from_rows([[0, 1], [1, 2]] * 50), 3))
    assert 0 < few.megabytes() < many.megabytes()


def test_its_cost_is_what_is_compared_and_voted_for() -> None:
    baseline = SessionKNN(SessionKNNConfig(neighbours=1))
    baseline.fit(Events(ItemLists.from_rows([[0, 1], [0, 2, 3], [4]]), 5))
    assert baseline.multiply_adds(ItemLists.from_rows([[0]])) == 2 + 3
    assert baseline.multiply_adds(ItemLists.from_rows([])) == 0
    assert baseline.multiply_adds(ItemLists.from_rows([[0]] * 300 + [[]] * 300)) == (2 + 3) / 2
