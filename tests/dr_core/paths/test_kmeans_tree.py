"""Starts: random and from item vectors."""

import math
import pickle

import numpy as np
import pytest

from dr_core.paths.kmeans_tree import (
    KMeansTree,
    fit_kmeans_tree,
    random_paths,
)
from dr_core.paths.space import PathSpace


def clustered_vectors(seed: int, *, num_items: int = 600, num_clusters: int = 12, num_dims: int = 16) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(num_clusters, num_dims))
    members = rng.choice(num_clusters, size=num_items, p=rng.dirichlet(np.full(num_clusters, 2.0)))
    lengths = rng.exponential(1.0, (num_items, 1)) + 0.1
    return ((centers[members] + 0.5 * rng.normal(size=(num_items, num_dims))) * lengths).astype(np.float32)


def start_paths(vectors: np.ndarray, space: PathSpace, num_paths: int, seed: int, **options) -> np.ndarray:
    tree, leaves = fit_kmeans_tree(vectors, space, seed, **options)
    return tree.assign(vectors, num_paths, first_paths=leaves)


def rows_are_distinct(paths: np.ndarray) -> bool:
    ordered = np.sort(paths, axis=1)
    return bool(np.all(ordered[:, 1:] > ordered[:, :-1]))


@pytest.mark.parametrize(
    ("num_items", "num_paths", "nodes"),
    [
        (500, 3, (10, 10)), (50, 3, (2, 2)), (40, 4, (4,)), (7, 1, (3,)), (100, 3, (1000,) * 6), (0, 3, (10, 10)),
        (1, 3, (3,)), (500, 3, (16, 6)), (500, 3, (512, 32)), (60, 3, (2, 3)), (300, 2, (3, 7, 4)),
    ],
)  # fmt: skip
def test_random_paths_are_distinct_even_and_repeatable(num_items: int, num_paths: int, nodes: tuple[int, ...]) -> None:
    space = PathSpace(nodes)
    paths = random_paths(num_items, num_paths, space, seed=3)
    assert paths.shape == (num_items, num_paths)
    assert paths.dtype == np.int64
    space.check(paths)
    assert rows_are_distinct(paths)
    np.testing.assert_array_equal(paths, random_paths(num_items, num_paths, space, seed=3))
    if num_items > 50:
        assert np.any(paths != random_paths(num_items, num_paths, space, seed=4))
        sizes = np.unique(paths, return_counts=True)[1]
        assert sizes.max() - min(sizes.min(), num_items * num_paths // space.num_paths) <= 1


def test_random_paths_of_one_item_say_nothing_about_each_other() -> None:
    paths = random_paths(5000, 2, PathSpace.even(4, 1), seed=0)
    pairs = np.bincount(paths[:, 0] * 4 + paths[:, 1], minlength=16).reshape(4, 4)
    np.testing.assert_array_equal(np.diag(pairs), 0)
    off_diagonal = pairs[~np.eye(4, dtype=bool)]
    assert off_diagonal.min() > 0.8 * 5000 / 12


@pytest.mark.parametrize("nodes", [(5,), (5, 5), (5, 5, 5), (9, 3), (3, 9), (6, 2, 4)])
@pytest.mark.parametrize("seed", range(3))
def test_the_capacity_holds_at_every_node(seed: int, nodes: tuple[int, ...]) -> None:
    space = PathSpace(nodes)
    tree, leaves = fit_kmeans_tree(clustered_vectors(seed), space, seed, capacity=1.2)
    space.check(leaves)
    above = {0: len(leaves)}
    for depth, children in enumerate(nodes, start=1):
        prefixes, sizes = np.unique(space.prefix(leaves, depth), return_counts=True)
        np.testing.assert_array_equal(tree.prefixes[depth - 1], prefixes)
        for prefix, size in zip(prefixes.tolist(), sizes.tolist(), strict=True):
            assert size <= math.ceil(1.2 * above[prefix // children] / children)
        above = dict(zip(prefixes.tolist(), sizes.tolist(), strict=True))


@pytest.mark.parametrize("num_items", [1, 2, 3, 7, 30])
def test_catalogues_smaller_than_the_width_still_get_distinct_paths(num_items: int) -> None:
    space = PathSpace.even(10, 2)
    paths = start_paths(clustered_vectors(0, num_items=num_items), space, 3, seed=0)
    assert paths.shape == (num_items, 3)
    space.check(paths)
    assert rows_are_distinct(paths)
    assert len(np.unique(paths[:, 0])) == num_items


@pytest.mark.parametrize("vectors", [np.zeros((40, 4)), np.ones((40, 4)), np.repeat(np.eye(4), 10, axis=0)])
def test_items_that_cannot_be_told_apart_are_spread_within_the_capacity(vectors: np.ndarray) -> None:
    paths = start_paths(vectors, PathSpace.even(4, 2), 3, seed=0)
    assert rows_are_distinct(paths)
    assert np.bincount(paths[:, 0]).max() <= 4


def test_the_start_is_repeatable_and_depends_on_directions_alone() -> None:
    vectors, space = clustered_vectors(1), PathSpace.even(6, 2)
    first = start_paths(vectors, space, 3, seed=5)
    np.testing.assert_array_equal(first, start_paths(vectors.copy(), space, 3, seed=5))
    np.testing.assert_array_equal(first, start_paths(vectors * 4, space, 3, seed=5))
    assert np.any(first != start_paths(vectors, space, 3, seed=6))


def cosines(tree: KMeansTree, vectors: np.ndarray, paths: np.ndarray) -> np.ndarray:
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.einsum("ne,ne->n", units, tree.centroids[-1][np.searchsorted(tree.prefixes[-1], paths)])


def test_leaves_are_nearly_as_compact_as_without_a_capacity() -> None:
    vectors, space = clustered_vectors(2, num_items=2000), PathSpace.even(6, 2)
    balanced, leaves = fit_kmeans_tree(vectors, space, 0, refinement=5)
    free, free_leaves = fit_kmeans_tree(vectors, space, 0, refinement=5, capacity=36.0)
    assert cosines(balanced, vectors, leaves).mean() > cosines(free, vectors, free_leaves).mean() - 0.03
    shuffled = np.random.default_rng(0).permutation(leaves)
    assert cosines(balanced, vectors, leaves).mean() > cosines(balanced, vectors, shuffled).mean() + 0.3


def test_more_refinement_gives_more_compact_leaves() -> None:
    vectors, space = clustered_vectors(3, num_items=2000, num_clusters=40), PathSpace.even(6, 2)
    means = []
    for refinement in (0, 1, 10):
        tree, leaves = fit_kmeans_tree(vectors, space, 0, refinement=refinement)
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        sums = np.stack([units[leaves == leaf].sum(axis=0) for leaf in tree.prefixes[-1]])
        means.append(np.linalg.norm(sums, axis=1).sum() / len(vectors))
    assert means[0] < means[1] < means[2]


def test_a_child_number_means_about_the_same_direction_under_every_parent() -> None:
    vectors, space = clustered_vectors(4, num_items=3000, num_clusters=60), PathSpace.even(8, 2)
    tree, _ = fit_kmeans_tree(vectors, space, 0)
    parents, children = tree.prefixes[1] // 8, tree.prefixes[1] % 8
    directions = tree.centroids[1] - tree.centroids[0][np.searchsorted(tree.prefixes[0], parents)]
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    cosine = directions @ directions.T
    other_parent = parents[:, np.newaxis] != parents
    same_number = children[:, np.newaxis] == children
    assert cosine[other_parent & same_number].mean() > cosine[other_parent & ~same_number].mean() + 0.4


@pytest.mark.parametrize("nodes", [(5, 5), (8, 3), (3, 8)])
def test_further_paths_are_the_nearest_leaves_up_to_their_prices(nodes: tuple[int, ...]) -> None:
    vectors, space = clustered_vectors(5), PathSpace(nodes)
    tree, leaves = fit_kmeans_tree(vectors, space, 0)
    paths = tree.assign(vectors, 3, first_paths=leaves, beam=25)
    np.testing.assert_array_equal(paths[:, 0], leaves)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    worth = units @ tree.centroids[-1].T - tree.neighbour_prices
    worth[np.arange(len(leaves)), np.searchsorted(tree.prefixes[-1], leaves)] = -np.inf
    best = -np.sort(-worth, axis=1)[:, :2]
    taken = np.take_along_axis(worth, np.searchsorted(tree.prefixes[-1], paths[:, 1:]), axis=1)
    np.testing.assert_allclose(taken, best, atol=1e-5)


def test_prices_keep_the_paths_short_that_many_items_are_near() -> None:
    vectors, space = clustered_vectors(6, num_items=3000, num_clusters=60), PathSpace.even(8, 2)
    tree, leaves = fit_kmeans_tree(vectors, space, 0)
    free = KMeansTree(tree.space, tree.prefixes, tree.centroids, tree.prices, np.zeros(tree.num_leaves))
    longest = [np.bincount(t.assign(vectors, 3, first_paths=leaves).ravel()).max() for t in (tree, free)]
    assert longest[0] < longest[1]
    loss = [cosines(free, vectors, t.assign(vectors, 3, first_paths=leaves)[:, 1]).mean() for t in (tree, free)]
    assert loss[0] > loss[1] - 0.03


@pytest.mark.parametrize(("num_parts", "nodes"), [(2, (5, 5, 5)), (5, (5, 5, 5)), (3, (9, 2, 6))])
def test_assigning_in_parts_after_a_round_trip_equals_assigning_at_once(num_parts: int, nodes: tuple[int, ...]) -> None:
    vectors, space = clustered_vectors(7), PathSpace(nodes)
    tree, leaves = fit_kmeans_tree(vectors[:400], space, 0)
    whole = tree.assign(vectors, 3)
    shipped = pickle.loads(pickle.dumps(tree))
    order = np.random.default_rng(0).permutation(len(vectors))
    for rows in np.array_split(order, num_parts):
        np.testing.assert_array_equal(shipped.assign(vectors[rows], 3, item_ids=rows), whole[rows])
    assert np.mean(whole[:400, 0] == leaves) > 0.6


def test_unseen_items_spread_about_as_evenly_as_those_the_tree_was_fitted_on() -> None:
    vectors, space = clustered_vectors(8, num_items=6000), PathSpace.even(5, 2)
    tree, _ = fit_kmeans_tree(vectors[:3000], space, 0)
    sizes = np.bincount(tree.assign(vectors[3000:], 1)[:, 0], minlength=25)
    assert sizes.max() <= 2.0 * 3000 / 25


def test_learning_on_a_sample_still_assigns_every_item_within_the_capacity() -> None:
    vectors, space = clustered_vectors(9, num_items=2000), PathSpace.even(5, 2)
    paths = start_paths(vectors, space, 2, 0, sample=300)
    assert np.bincount(paths[:, 0]).max() <= math.ceil(1.2 * math.ceil(1.2 * 2000 / 5) / 5)
    assert rows_are_distinct(paths)


def test_impossible_requests_are_refused() -> None:
    vectors, space = clustered_vectors(0, num_items=20), PathSpace.even(2, 1)
    for call in (
        lambda: random_paths(5, 3, space, 0),
        lambda: random_paths(5, 0, space, 0),
        lambda: start_paths(vectors, space, 3, 0),
        lambda: fit_kmeans_tree(vectors, space, 0, capacity=0.9),
        lambda: fit_kmeans_tree(vectors, space, 0, iterations=0),
        lambda: fit_kmeans_tree(vectors, space, 0, refinement=-1),
        lambda: fit_kmeans_tree(vectors[:0], space, 0),
        lambda: fit_kmeans_tree(vectors * np.nan, space, 0),
        lambda: fit_kmeans_tree(vectors, space, 0)[0].assign(vectors[:, :3], 1),
    ):
        with pytest.raises(ValueError, match="must"):
            call()
