"""pi_0: where the paths start, and that Spark assigns what the tree says."""

import math

import numpy as np
import pytest
import torch
from pyspark.sql import SparkSession

from dr_core.learning.config import PathsConfig
from dr_core.learning.start import SPREAD, softmax_mass, spread
from dr_core.paths.kmeans_tree import fit_kmeans_tree, random_paths
from dr_core.paths.space import PathSpace
from pipelines.stages.structure.initialize import assign_on_spark, initialize_paths
from pipelines.stages.training.states import sample_states
from pipelines.storage.item_paths import read_paths, write_paths

SPACE = PathSpace.even(5, 2)
NUM_ITEMS = 30
CONFIG = PathsConfig(paths_per_item=2, kmeans_restarts=2)


def initialized(spark: SparkSession, world, config: PathsConfig, seed: int = 0) -> np.ndarray:
    initialize_paths(
        spark,
        world.workdir,
        model_id="m",
        samples="samples",
        release_id="start",
        space=SPACE,
        config=config,
        budgets=[6.0],
        seed=seed,
    )
    return read_paths(spark, world.workdir, "start")


def assert_complete(paths: np.ndarray, num_paths: int) -> None:
    assert paths.shape == (NUM_ITEMS, num_paths)
    assert paths.min() >= 0
    assert paths.max() < SPACE.num_paths
    assert (np.diff(np.sort(paths, axis=1)) > 0).all(), "an item stands twice on a path"


def test_a_mapping_is_read_as_it_was_written(spark: SparkSession, world) -> None:
    write_paths(spark, world.workdir, world.path_VJ, "written")
    np.testing.assert_array_equal(read_paths(spark, world.workdir, "written"), world.path_VJ)


def test_random_start_is_the_random_mapping_of_the_seed(spark: SparkSession, world) -> None:
    paths = initialized(spark, world, CONFIG.model_copy(update={"start": "random"}), seed=4)
    np.testing.assert_array_equal(paths, random_paths(NUM_ITEMS, 2, SPACE, 4))


def test_embedding_start_is_balanced_and_repeats_itself(spark: SparkSession, world) -> None:
    paths = initialized(spark, world, CONFIG)
    assert_complete(paths, 2)
    room = math.ceil(CONFIG.kmeans_capacity * NUM_ITEMS / 5)
    assert np.bincount(paths[:, 0] // 5).max() <= room
    assert np.bincount(paths[:, 0]).max() <= math.ceil(CONFIG.kmeans_capacity * room / 5)
    np.testing.assert_array_equal(paths, initialized(spark, world, CONFIG))


def test_more_items_than_the_sample_are_assigned_by_spark(spark: SparkSession, world) -> None:
    config = CONFIG.model_copy(update={"kmeans_sample": 20})
    paths = initialized(spark, world, config)
    assert_complete(paths, 2)
    assert len(np.unique(paths)) > SPACE.num_paths / 3
    np.testing.assert_array_equal(paths, initialized(spark, world, config))


@pytest.mark.parametrize("num_paths", [1, 3])
def test_items_assigned_by_spark_are_those_the_tree_assigns(spark: SparkSession, world, num_paths: int) -> None:
    """A tree learned on a sample; every row from its own vector alone, whatever Spark's partitions."""
    vectors = np.random.default_rng(91).normal(size=(400, 6)).astype(np.float32)
    tree, _ = fit_kmeans_tree(vectors[::3], SPACE, seed=1)
    uri = world.workdir.write_array(vectors, "models", "m", "vectors.npy")
    rows = assign_on_spark(spark, uri, len(vectors), tree, num_paths).collect()
    assert [row.item_id for row in sorted(rows)] == list(range(400))
    found = np.array([row.path_ids for row in sorted(rows)])
    np.testing.assert_array_equal(found, tree.assign(vectors, num_paths))


def test_states_are_drawn_from_more_samples_than_are_taken(world) -> None:
    every = sample_states(world.workdir, "samples", world.model, 10_000)
    assert len(every) == (world.columns["positions"] >= 0).sum()
    few = sample_states(world.workdir, "samples", world.model, 20)
    places = [int((state == every).all(1).nonzero()[0]) for state in few]
    assert len(set(places)) == 20
    assert places == sorted(places)
    assert 20 < places[-1] < 20 * SPREAD
    torch.testing.assert_close(few, spread(every, 20))


def test_softmax_mass_is_each_states_softmax(world) -> None:
    user_NE = sample_states(world.workdir, "samples", world.model, 12)
    expected = torch.softmax(world.model.reranker.score_all(user_NE), dim=1).detach().numpy()
    np.testing.assert_allclose(softmax_mass(world.model, user_NE).toarray(), expected, rtol=1e-6)
