"""What the vector benchmark rests on: its worlds, its lists and its choice of widths."""

import numpy as np
import pytest

from benchmarks.learned_lists import LearnedLists
from benchmarks.vector_indexes import Centroids, InvertedLists
from benchmarks.vector_timing import Questions, Setting, fastest, frontier, measure, narrowest
from benchmarks.vector_worlds import (
    SoftmaxVectors,
    World,
    WorldSize,
    exact_top,
    scaled_up,
    users_like_items,
    users_unlike_items,
    world_of_model,
)
from dr_core.errors import InputError

SIZE = WorldSize(items=4000, train_users=1500, validation_users=200, test_users=200)
K = 20


@pytest.fixture(scope="module")
def unlike() -> World:
    return users_unlike_items(SIZE, seed=0)


@pytest.fixture(scope="module")
def test_users(unlike: World) -> Questions:
    return Questions(unlike.test_UE, exact_top(unlike.test_UE, unlike.item_VE, K))


@pytest.fixture(scope="module")
def lists(unlike: World) -> InvertedLists:
    return InvertedLists("ivf_flat", unlike, Centroids(unlike), "Flat")


@pytest.fixture(scope="module")
def learned(unlike: World, lists: InvertedLists) -> LearnedLists:
    return LearnedLists(lists, unlike.train_NE, exact_top(unlike.train_NE, unlike.item_VE, K))


def test_exact_top_is_the_sorted_scores(unlike: World, test_users: Questions) -> None:
    by_score = np.argsort(-(unlike.test_UE @ unlike.item_VE.T), axis=1, kind="stable")[:, :K]
    np.testing.assert_array_equal(test_users.truth_Uk, by_score)


def test_every_item_is_on_the_list_of_its_nearest_centroid(unlike: World, lists: InvertedLists) -> None:
    centroid_LE = lists.ivf.quantizer.reconstruct_n(0, lists.num_lists)
    distance_VL = ((unlike.item_VE[:, None] - centroid_LE) ** 2).sum(2)
    chosen_V = np.take_along_axis(distance_VL, lists.list_of_items()[:, None], 1)[:, 0]
    np.testing.assert_allclose(chosen_V, distance_VL.min(1), rtol=1e-4)


def test_all_lists_hold_all_that_is_best(lists: InvertedLists, learned: LearnedLists, test_users: Questions) -> None:
    for index in (lists, learned):
        found = index.search(test_users.user_UE, K, f"nprobe={lists.num_lists}")
        assert test_users.recall(found) == 1.0


@pytest.mark.parametrize("probes", [4, 8, 16])
def test_learned_routing_finds_no_less_where_users_are_unlike_items(
    lists: InvertedLists, learned: LearnedLists, test_users: Questions, probes: int
) -> None:
    by_centroids, by_layer = (
        test_users.recall(index.search(test_users.user_UE, K, f"nprobe={probes}")) for index in (lists, learned)
    )
    assert by_layer >= by_centroids


def test_work_of_all_lists_is_that_of_all_items_and_centroids(lists: InvertedLists, unlike: World) -> None:
    work = lists.multiply_adds(unlike.test_UE, f"nprobe={lists.num_lists}")
    assert work == (SIZE.items + lists.num_lists) * unlike.item_VE.shape[1]


def test_users_unlike_items_are_far_less_like_them(unlike: World) -> None:
    assert unlike.unlikeness() > 2 * users_like_items(SIZE, seed=0).unlikeness()


def test_a_scaled_up_cloud_keeps_its_mean_and_covariance() -> None:
    rng = np.random.default_rng(0)
    real = (rng.standard_normal((300, 6)) @ rng.standard_normal((6, 6)) + 3).astype(np.float32)
    drawn = scaled_up(real, 5000, rng)
    np.testing.assert_allclose(drawn.mean(0), real.mean(0), atol=1e-3)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(real.T), rtol=1e-2, atol=1e-2)
    assert len(np.unique(drawn, axis=0)) == 5000


def test_a_world_of_a_model_scores_as_its_softmax_does() -> None:
    rng = np.random.default_rng(0)
    vectors, states = (rng.standard_normal((400, 5), dtype=np.float32) for _ in range(2))
    bias = rng.standard_normal(400, dtype=np.float32)
    world = world_of_model(SoftmaxVectors(vectors, bias, states), WorldSize(1000, 50, 60, 70), seed=0)
    groups = (world.train_NE, world.validation_UE, world.test_UE)
    assert [len(rows) for rows in groups] == [50, 60, 70]
    assert all((rows[:, -1] == 1).all() for rows in groups)
    np.testing.assert_allclose(world.item_VE.mean(0), 0, atol=1e-3)
    assert world.item_VE[:, -1].std() == pytest.approx(bias.std(ddof=1), rel=1e-2)


def test_too_few_vectors_say_so() -> None:
    with pytest.raises(InputError, match="too few"):
        scaled_up(np.zeros((10, 4), np.float32), 100, np.random.default_rng(0))


def test_of_each_sweep_the_narrowest_setting_that_reaches_a_recall_competes(
    lists: InvertedLists, test_users: Questions
) -> None:
    sweep = [Setting(lists, f"nprobe={probes}") for probes in (1, 4, 16, lists.num_lists)]
    measure(sweep, test_users, repeats=1, singles=1)
    assert [setting.recall for setting in sweep] == sorted(setting.recall for setting in sweep)
    assert narrowest([sweep], 1.0) == sweep[-1:]
    assert narrowest([sweep, sweep[:1]], sweep[1].recall) == sweep[1:2]
    assert fastest([], "block") is None
    slow = Setting(lists, "slow", 1.0, {"block": [1.0], "one": [1.0]})
    assert fastest([slow, sweep[0]], "block") is sweep[0]
    assert slow not in frontier([slow, *sweep], "block")
