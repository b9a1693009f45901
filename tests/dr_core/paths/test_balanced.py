"""Assignment under a capacity, against the linear programme."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from dr_core.paths._balanced import capacity_assignment, lloyd, seed_centroids, unit_rows


@pytest.mark.parametrize(
    ("num_items", "num_clusters", "capacity"), [(60, 5, 12), (60, 5, 15), (60, 5, 60), (40, 40, 1)]
)
@pytest.mark.parametrize("seed", range(5))
def test_total_similarity_is_within_the_bid_step_of_the_optimum(
    seed: int, num_items: int, num_clusters: int, capacity: int
) -> None:
    rng = np.random.default_rng(seed)
    similarity = rng.uniform(-1, 1, (num_items, num_clusters)) + rng.uniform(0, 1, num_clusters)
    labels, prices = capacity_assignment(similarity, capacity)
    sizes = np.bincount(labels, minlength=num_clusters)
    assert sizes.max() <= capacity
    assert np.all(prices[sizes < capacity] == 0)
    places = np.repeat(similarity, capacity, axis=1)
    best = places[linear_sum_assignment(places, maximize=True)].sum()
    assert similarity[np.arange(num_items), labels].sum() >= best - 0.003 * num_items


def test_prices_lead_the_items_back_to_their_clusters() -> None:
    similarity = np.random.default_rng(0).uniform(-1, 1, (500, 6)) + np.linspace(0, 1, 6)
    labels, prices = capacity_assignment(similarity, 100)
    assert np.mean(np.argmax(similarity - prices, axis=1) == labels) > 0.95


@pytest.mark.parametrize("seed", range(5))
def test_items_choose_among_their_own_clusters(seed: int) -> None:
    rng = np.random.default_rng(seed)
    clusters = rng.permuted(np.tile(np.arange(20), (200, 1)), axis=1)[:, :6]
    similarity = rng.uniform(-1, 1, clusters.shape)
    labels, prices = capacity_assignment(similarity, 15, clusters=clusters, num_clusters=20)
    assert np.all((clusters == labels[:, np.newaxis]).any(axis=1))
    assert np.bincount(labels, minlength=20).max() <= 15
    assert prices.shape == (20,)


def test_items_that_all_want_one_cluster_exceed_it_only_where_they_have_no_other() -> None:
    labels, _ = capacity_assignment(np.ones((10, 1)), 3, clusters=np.zeros((10, 1), dtype=np.int64), num_clusters=4)
    np.testing.assert_array_equal(labels, 0)


def test_too_little_room_is_refused() -> None:
    with pytest.raises(ValueError, match="no room"):
        capacity_assignment(np.ones((10, 3)), 3)


@pytest.mark.parametrize("seed", range(3))
def test_lloyd_steps_do_not_lose_similarity(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = unit_rows(rng.normal(size=(300, 8)))
    start = seed_centroids(points, 10, rng)
    totals = []
    for iterations in (0, 1, 5, 20):
        centroids, labels, _ = lloyd(points, start, room=36, iterations=iterations)
        assert np.bincount(labels, minlength=10).max() <= 36
        totals.append(np.einsum("ne,ne->n", points, centroids[labels]).sum())
    assert np.all(np.diff(totals) > -0.003 * 300)
    assert totals[-1] > totals[0]


def test_vectors_of_length_zero_stay_zero() -> None:
    np.testing.assert_array_equal(unit_rows(np.zeros((2, 3))), 0)
