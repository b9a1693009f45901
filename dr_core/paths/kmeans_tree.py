"""Where the paths start: drawn at random, or from item vectors by balanced hierarchical k-means."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dr_core.paths._balanced import (
    Float32Array,
    balanced_kmeans,
    capacity_assignment,
    expand_beam,
    lloyd,
    unit_rows,
)
from dr_core.paths.assignment import hashed_paths
from dr_core.paths.scores import Float64Array
from dr_core.paths.space import Int64Array, PathSpace

_SWAP_ROUNDS = 50
_NEIGHBOURS = 16
_NEIGHBOUR_CAPACITY = 1.5
_LARGEST_PRICE = 0.5


def random_paths(num_items: int, num_paths: int, space: PathSpace, seed: int) -> Int64Array:
    """Distinct paths for every item at random, spread evenly: the paper's start, and a control.

    Args:
        num_items: V.
        num_paths: J.
        space: [K]^D.
        seed: of the draw.

    Returns:
        int64 [V, J]. Path sizes differ by at most 1 from one another, but for the few rows that no swap could make
        distinct when K^D is close to J.

    Raises:
        ValueError: J below 1 or above K^D.
    """
    _check_num_paths(num_paths, space)
    rng = np.random.default_rng(seed)
    slots = num_items * num_paths
    order = rng.permutation(slots)
    if slots <= space.num_paths:
        stride = space.num_paths // max(slots, 1)
        return (order * stride + rng.integers(0, stride, size=slots)).reshape(num_items, num_paths)
    paths = (order % space.num_paths).reshape(num_items, num_paths)
    for _ in range(_SWAP_ROUNDS):
        rows, columns = np.nonzero(_repeats(paths))
        if len(rows) == 0:
            return paths
        for row, column in zip(rows, columns, strict=True):
            other_row, other_column = int(rng.integers(num_items)), int(rng.integers(num_paths))
            mine, other = paths[row, column], paths[other_row, other_column]
            if other not in paths[row] and mine not in paths[other_row]:
                paths[row, column], paths[other_row, other_column] = other, mine
    rows = np.flatnonzero(_repeats(paths).any(axis=1))
    paths[rows] = hashed_paths(rows, space, num_probes=num_paths)
    return paths


@dataclass(frozen=True)
class KMeansTree:
    """Centroids of a hierarchical clustering, one tree node for each path prefix that holds items.

    Attributes:
        space: [K]^D.
        prefixes: for each depth d = 1 ... D, int64 [n_d] ascending: ids of the first d layers.
        centroids: float32 [n_d, E] each, unit rows.
        prices: float64 [n_d] each; cosine minus price spreads items over siblings about as evenly as the capacity did
            when the tree was fitted.
        neighbour_prices: float64 [n_D]; the same for an item's second and further leaves.
    """

    space: PathSpace
    prefixes: tuple[Int64Array, ...]
    centroids: tuple[Float32Array, ...]
    prices: tuple[Float64Array, ...]
    neighbour_prices: Float64Array

    @property
    def num_leaves(self) -> int:
        """Paths that held an item when the tree was fitted."""
        return len(self.prefixes[-1])

    def assign(
        self,
        vectors: NDArray[Any],
        num_paths: int,
        *,
        first_paths: Int64Array | None = None,
        item_ids: Int64Array | None = None,
        beam: int = 16,
    ) -> Int64Array:
        """J paths for each vector: the leaf at the end of a walk down the tree, then the nearest other leaves.

        Each row depends on its own vector (and id) alone, so that vectors may be assigned in any partition. Nearness
        is cosine minus price: some leaves are among the nearest of far more items than others, and the prices keep
        these from becoming the longest paths at almost no loss of cosine.

        Args:
            vectors: float [n, E], of any length.
            num_paths: J.
            first_paths: int64 [n], a first path for each row, if it is already known.
            item_ids: int64 [n], ids of the rows; they seed what is left if the tree has fewer than J leaves. By
                default 0 ... n - 1.
            beam: nodes kept at each depth above the leaves when looking for other leaves; more finds nearer ones.

        Returns:
            int64 [n, J], distinct in a row.

        Raises:
            ValueError: shapes do not fit together, or J below 1 or above K^D.
        """
        _check_num_paths(num_paths, self.space)
        if vectors.ndim != 2 or vectors.shape[1] != self.centroids[0].shape[1]:
            raise ValueError(f"vectors must be [n, {self.centroids[0].shape[1]}], got {vectors.shape}")
        units = unit_rows(vectors)
        if first_paths is None:
            first_paths = self.prefixes[-1][self._search(units, self.prices, beam=1, width=1)[:, 0]]
        offered = [first_paths[:, np.newaxis]]
        if num_paths > 1:
            offered.append(self._nearest(units, self.neighbour_prices, beam=max(beam, num_paths), width=num_paths))
        if self.num_leaves < num_paths:
            item_ids = np.arange(len(units)) if item_ids is None else item_ids
            offered.append(hashed_paths(item_ids, self.space, num_probes=2 * num_paths))
        paths = np.concatenate(offered, axis=1)
        chosen = np.argsort(_repeats(paths) | (paths < 0), axis=1, kind="stable")[:, :num_paths]
        return np.take_along_axis(paths, chosen, axis=1)

    def _nearest(self, units: Float32Array, leaf_prices: Float64Array, *, beam: int, width: int) -> Int64Array:
        """Leaf ids int64 [n, width], nearest first, -1 where there are fewer."""
        free = tuple(np.zeros(len(prices)) for prices in self.prices[:-1])
        leaves = self._search(units, (*free, leaf_prices), beam=beam, width=width)
        return np.where(leaves >= 0, self.prefixes[-1][leaves], -1)

    def _search(self, units: Float32Array, prices: tuple[Float64Array, ...], *, beam: int, width: int) -> Int64Array:
        """Positions of leaves int64 [n, width] by descending cosine minus price, -1 where there are fewer."""
        nodes = np.zeros((len(units), 1), dtype=np.int64)
        parents = np.zeros(1, dtype=np.int64)
        for depth, prefixes in enumerate(self.prefixes):
            starts = np.searchsorted(prefixes, parents * self.space.nodes[depth])
            ends = np.append(starts[1:], len(prefixes))
            keep = width if depth == self.space.num_layers - 1 else beam
            nodes = expand_beam(units, nodes, starts, ends, self.centroids[depth], prices[depth], keep)
            parents = prefixes
        return nodes


def fit_kmeans_tree(
    vectors: NDArray[Any],
    space: PathSpace,
    seed: int,
    *,
    capacity: float = 1.2,
    iterations: int = 20,
    refinement: int = 1,
    sample: int = 200_000,
) -> tuple[KMeansTree, Int64Array]:
    """Split the items into as many balanced clusters as the first layer has nodes, each of these into as many as the second
    has, and so on for D layers.

    Child k means about the same direction under every parent: the children of a layer start from one codebook of K
    directions, learned from what the parents' centroids leave of all the vectors (residual quantisation), which each
    parent then fits to its own items in ``refinement`` Lloyd steps. The layers of the structure model share their
    output weights over all prefixes, so that they learn such a numbering far faster than an arbitrary one.

    Args:
        vectors: float [V, E]; only their directions count.
        space: [K]^D.
        seed: of seeding and sampling.
        capacity: the most items a child may hold, in units of n / K where its parent holds n, rounded up; at least 1.
        iterations: Lloyd steps for each layer's codebook.
        refinement: Lloyd steps of each parent below the first layer. 0 is plain balanced residual quantisation, the
            easiest to predict; 10 gives the most compact leaves, the hardest to predict.
        sample: items from which the codebooks are learned, at most. All items are assigned, which takes 4 * V * K
            bytes at the first layer.

    Returns:
        The tree, and the leaf of each item, int64 [V].

    Raises:
        ValueError: no vector, a vector not finite, or an option out of range.
    """
    _check_options(vectors, capacity, iterations, refinement, sample)
    rng = np.random.default_rng(seed)
    units = unit_rows(vectors)
    learn = np.arange(len(units))
    if len(units) > sample:
        learn = np.sort(rng.choice(len(units), size=sample, replace=False))
    path_of_item = np.zeros(len(units), dtype=np.int64)
    parent_of_item = np.zeros(len(units), dtype=np.int64)
    parents = np.zeros((1, units.shape[1]), dtype=np.float32)
    prefixes, centroids, prices = [], [], []
    for depth, num_nodes in enumerate(space.nodes):
        residuals = units[learn] - parents[parent_of_item[learn]]
        codebook = balanced_kmeans(
            unit_rows(residuals), min(num_nodes, len(learn)), capacity=capacity, iterations=iterations, rng=rng
        )
        codebook *= np.float32(np.linalg.norm(residuals, axis=1).mean())
        by_parent = np.argsort(parent_of_item, kind="stable")
        layer = []
        for members in np.split(by_parent, np.flatnonzero(np.diff(parent_of_item[by_parent])) + 1):
            seeds = unit_rows(parents[parent_of_item[members[0]]] + codebook)
            found, labels, costs = lloyd(
                units[members],
                seeds,
                room=math.ceil(capacity * len(members) / len(seeds)),
                iterations=refinement if depth else 0,
            )
            child_ids = path_of_item[members[0]] * num_nodes + np.arange(len(seeds))
            path_of_item[members] = child_ids[labels]
            used = np.unique(labels)
            layer.append((child_ids[used], found[used], costs[used]))
        prefixes.append(np.concatenate([ids for ids, _, _ in layer]))
        centroids.append(np.concatenate([found for _, found, _ in layer]))
        prices.append(np.concatenate([costs for _, _, costs in layer]))
        parents = centroids[-1]
        parent_of_item = np.searchsorted(prefixes[-1], path_of_item)
    tree = KMeansTree(space, tuple(prefixes), tuple(centroids), tuple(prices), np.zeros(len(prefixes[-1])))
    return replace(tree, neighbour_prices=_neighbour_prices(tree, units, path_of_item)), path_of_item


def _neighbour_prices(tree: KMeansTree, units: Float32Array, leaves: Int64Array) -> Float64Array:
    """Prices at which no leaf is the second, or the third, of more than 1.5 times the mean; float64 [leaves]."""
    if tree.num_leaves < 3:
        return np.zeros(tree.num_leaves)
    width = min(_NEIGHBOURS + 1, tree.num_leaves)
    paths = tree._nearest(units, tree.neighbour_prices, beam=_NEIGHBOURS, width=width)
    unfit = (paths == leaves[:, np.newaxis]) | (paths < 0)
    choices = np.searchsorted(tree.prefixes[-1], np.where(paths < 0, leaves[:, np.newaxis], paths))
    cosines = np.empty(choices.shape, dtype=np.float32)
    for column in range(width):
        cosines[:, column] = np.einsum("ne,ne->n", units, tree.centroids[-1][choices[:, column]])
    room = math.ceil(_NEIGHBOUR_CAPACITY * len(units) / tree.num_leaves)
    prices = np.zeros(tree.num_leaves)
    rounds = 2
    for _ in range(rounds):
        labels, costs = capacity_assignment(
            np.where(unfit, np.float32(-1), cosines), room, clusters=choices, num_clusters=tree.num_leaves
        )
        unfit |= choices == labels[:, np.newaxis]
        prices += np.minimum(costs, _LARGEST_PRICE) / rounds
    return prices


def _repeats(paths: Int64Array) -> NDArray[np.bool_]:
    """bool [n, J], entries equal to one further left in their row."""
    repeats = np.zeros(paths.shape, dtype=np.bool_)
    for column in range(1, paths.shape[1]):
        repeats[:, column] = np.any(paths[:, :column] == paths[:, column : column + 1], axis=1)
    return repeats


def _check_num_paths(num_paths: int, space: PathSpace) -> None:
    if not 1 <= num_paths <= space.num_paths:
        raise ValueError(f"num_paths must lie in [1, {space.num_paths}], got {num_paths}")


def _check_options(
    vectors: NDArray[Any],
    capacity: float,
    iterations: int,
    refinement: int,
    sample: int,
) -> None:
    if vectors.ndim != 2 or vectors.size == 0 or not np.isfinite(vectors).all():
        raise ValueError(f"vectors must be [V, E], finite and at least one, got shape {vectors.shape}")
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, got {capacity}")
    if iterations < 1 or sample < 1:
        raise ValueError(f"iterations and sample must be at least 1, got {iterations} and {sample}")
    if refinement < 0:
        raise ValueError(f"refinement must not be negative, got {refinement}")
