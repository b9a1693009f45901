"""Balanced spherical k-means (seeding, assignment under a capacity by auction, Lloyd steps) and the walk down a tree."""

import math
from typing import Any, TypeAlias

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dr_core.arrays import AnyFloatArray, read_only
from dr_core.paths.scores import Float64Array
from dr_core.paths.space import Int64Array

Float32Array = NDArray[np.float32]

_BID_STEP = 0.003
_BIDS_PER_ITEM = 50
_SEED_DRAWS = 4
_SEED_POINTS = 50

_Array: TypeAlias = NDArray[Any]


@njit(cache=True)
def _sift_down(bids: _Array, holders: _Array, size: int) -> None:
    """Restore the min-heap after its root was replaced."""
    parent = 0
    while True:
        child = 2 * parent + 1
        if child >= size:
            return
        if child + 1 < size and bids[child + 1] < bids[child]:
            child += 1
        if bids[parent] <= bids[child]:
            return
        bids[parent], bids[child] = bids[child], bids[parent]
        holders[parent], holders[child] = holders[child], holders[parent]
        parent = child


@njit(cache=True)
def _sift_up(bids: _Array, holders: _Array, position: int) -> None:
    """Restore the min-heap after an entry was appended at ``position``."""
    while position > 0:
        parent = (position - 1) // 2
        if bids[parent] <= bids[position]:
            return
        bids[parent], bids[position] = bids[position], bids[parent]
        holders[parent], holders[position] = holders[position], holders[parent]
        position = parent


@njit(cache=True)
def _auction(
    similarity: _Array, clusters: _Array, num_clusters: int, capacity: int, step: float, max_bids: int
) -> tuple[_Array, _Array]:
    num_items, num_choices = similarity.shape
    labels = np.full(num_items, -1, dtype=np.int64)
    prices = np.zeros(num_clusters, dtype=np.float64)
    bids = np.empty((num_clusters, capacity), dtype=np.float64)
    holders = np.empty((num_clusters, capacity), dtype=np.int64)
    sizes = np.zeros(num_clusters, dtype=np.int64)
    waiting = np.arange(num_items)[::-1].copy()
    num_waiting = num_items
    for _ in range(max_bids):
        if num_waiting == 0:
            break
        num_waiting -= 1
        item = waiting[num_waiting]
        best, best_value, second_value = 0, -np.inf, -np.inf
        for choice in range(num_choices):
            cluster = clusters[item, choice]
            value = similarity[item, choice] - prices[cluster]
            if value > second_value:
                if value > best_value:
                    best, best_value, second_value = cluster, value, best_value
                else:
                    second_value = value
        bid = prices[best] + best_value - second_value + step
        labels[item] = best
        if sizes[best] < capacity:
            bids[best, sizes[best]] = bid
            holders[best, sizes[best]] = item
            _sift_up(bids[best], holders[best], sizes[best])
            sizes[best] += 1
        else:
            outbid = holders[best, 0]
            labels[outbid] = -1
            waiting[num_waiting] = outbid
            num_waiting += 1
            bids[best, 0] = bid
            holders[best, 0] = item
            _sift_down(bids[best], holders[best], capacity)
        if sizes[best] == capacity:
            prices[best] = bids[best, 0]
    for i in range(num_waiting):
        item = waiting[i]
        best, best_value, best_has_room = 0, -np.inf, False
        for choice in range(num_choices):
            has_room = sizes[clusters[item, choice]] < capacity
            if (has_room and not best_has_room) or (
                has_room == best_has_room and similarity[item, choice] > best_value
            ):
                best, best_value, best_has_room = clusters[item, choice], similarity[item, choice], has_room
        labels[item] = best
        sizes[best] += 1
    return labels, prices


@njit(cache=True)
def _sum_by_label(points: _Array, labels: _Array, num_clusters: int) -> _Array:
    sums = np.zeros((num_clusters, points.shape[1]), dtype=np.float64)
    for i in range(len(points)):
        for e in range(points.shape[1]):
            sums[labels[i], e] += points[i, e]
    return sums


def capacity_assignment(
    similarity: AnyFloatArray, capacity: int, *, clusters: Int64Array | None = None, num_clusters: int | None = None
) -> tuple[Int64Array, Float64Array]:
    """Assign items to clusters of at most ``capacity``, for nearly the largest total similarity.

    The auction for similar objects of Bertsekas and Castanon (1989): an item bids for the cluster of largest
    similarity minus price what makes it indifferent to its next choice; a full cluster drops its lowest bid, which is
    its price. The total falls short of the optimum by at most 0.003 an item. After 50 bids an item, what is left goes
    to the most similar clusters with room.

    Args:
        similarity: float32 or float64 [n, k], on the scale of cosines.
        capacity: items a cluster.
        clusters: int64 [n, k], the k clusters each item may choose from, distinct in a row; by default all of them.
            An item whose clusters are all full then exceeds the capacity of the most similar one.
        num_clusters: clusters there are, if ``clusters`` is given.

    Returns:
        labels int64 [n], and prices float64 [clusters], 0 for clusters with room: similarity minus price assigns other
        items in about the same proportions.

    Raises:
        ValueError: the clusters have no room for all items.
    """
    num_items, num_choices = similarity.shape
    if clusters is None or num_clusters is None:
        num_clusters = num_choices
        clusters = np.broadcast_to(np.arange(num_choices), similarity.shape)
    if num_clusters * capacity < num_items:
        raise ValueError(f"{num_clusters} clusters of {capacity} have no room for {num_items} items")
    if num_clusters == 1:
        return np.zeros(num_items, dtype=np.int64), np.zeros(1)
    max_bids = _BIDS_PER_ITEM * num_items
    labels, prices = _auction(
        similarity, read_only(clusters), num_clusters, min(capacity, num_items), _BID_STEP, max_bids
    )
    return labels, prices


def unit_rows(vectors: NDArray[Any]) -> Float32Array:
    """float32 [n, E], each row divided by its length; rows of length 0 stay 0."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: Float32Array = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return units


def seed_centroids(points: Float32Array, num_clusters: int, rng: np.random.Generator) -> Float32Array:
    """k-means++ on the sphere, greedy over a few draws a step: distance 1 - cosine (Arthur and Vassilvitskii 2007)."""
    centroids = np.empty((num_clusters, points.shape[1]), dtype=np.float32)
    centroids[0] = points[rng.integers(len(points))]
    distance = np.maximum(1.0 - points @ centroids[0], 0.0)
    for cluster in range(1, num_clusters):
        total = np.cumsum(distance, dtype=np.float64)
        drawn = np.searchsorted(total, rng.random(_SEED_DRAWS) * total[-1], side="right")
        drawn = np.minimum(drawn, len(points) - 1)
        shrunk = np.minimum(distance[:, np.newaxis], np.maximum(1.0 - points @ points[drawn].T, 0.0))
        chosen = int(shrunk.sum(axis=0, dtype=np.float64).argmin())
        centroids[cluster] = points[drawn[chosen]]
        distance = shrunk[:, chosen]
    return centroids


def lloyd(
    points: Float32Array, centroids: Float32Array, *, room: int, iterations: int, reseed: bool = False
) -> tuple[Float32Array, Int64Array, Float64Array]:
    """Spherical k-means under a capacity, from given centroids.

    Args:
        points: float32 [n, E], unit rows.
        centroids: float32 [k, E], unit rows.
        room: points a cluster may hold.
        iterations: updates of the centroids before the last assignment; fewer if no point moves.
        reseed: whether a cluster without members restarts at one of the worst placed points or stays where it is.

    Returns:
        centroids float32 [k, E], and the assignment they lead to: labels int64 [n], prices float64 [k].
    """
    labels, prices = capacity_assignment(points @ centroids.T, room)
    for _ in range(iterations):
        centroids = _updated(points, labels, centroids, reseed=reseed)
        previous = labels
        labels, prices = capacity_assignment(points @ centroids.T, room)
        if np.array_equal(labels, previous):
            break
    return centroids, labels, prices


def _updated(points: Float32Array, labels: Int64Array, centroids: Float32Array, *, reseed: bool) -> Float32Array:
    """The normalised mean of each cluster's members."""
    updated = unit_rows(_sum_by_label(points, labels, len(centroids)))
    empty = np.flatnonzero(np.bincount(labels, minlength=len(centroids)) == 0)
    if len(empty) and reseed:
        fit = np.einsum("ne,ne->n", points, centroids[labels])
        worst = np.argsort(fit, kind="stable")[: len(empty)]
        updated[empty[: len(worst)]] = points[worst]
    elif len(empty):
        updated[empty] = centroids[empty]
    return updated


def balanced_kmeans(
    points: Float32Array, num_clusters: int, *, capacity: float, iterations: int, rng: np.random.Generator
) -> Float32Array:
    """Centroids float32 [k, E] of balanced spherical k-means on ``points`` float32 [n, E], k <= n."""
    seeds = points
    if len(points) > _SEED_POINTS * num_clusters:
        seeds = points[np.sort(rng.choice(len(points), size=_SEED_POINTS * num_clusters, replace=False))]
    centroids = seed_centroids(seeds, num_clusters, rng)
    room = math.ceil(capacity * len(points) / num_clusters)
    return lloyd(points, centroids, room=room, iterations=iterations, reseed=True)[0]


@njit(cache=True, fastmath={"reassoc", "contract"})
def _dot(left: _Array, right: _Array) -> np.float32:
    total = np.float32(0.0)
    for e in range(len(left)):
        total += left[e] * right[e]
    return total


@njit(cache=True)
def expand_beam(
    units: _Array, nodes: _Array, starts: _Array, ends: _Array, centroids: _Array, prices: _Array, width: int
) -> _Array:
    """The best children of the nodes in each row's beam.

    Args:
        units: float32 [n, E].
        nodes: int64 [n, B], positions one layer up, -1 = none.
        starts: int64 [nodes one layer up], first child of each.
        ends: int64 [nodes one layer up], one past its last child.
        centroids: float32 [children, E].
        prices: float64 [children].
        width: B', children kept.

    Returns:
        int64 [n, B'], positions of children in descending similarity minus price; -1 where there are fewer.
    """
    num_rows = len(units)
    kept = np.full((num_rows, width), -1, dtype=np.int64)
    values = np.empty(width, dtype=np.float64)
    for row in range(num_rows):
        filled = 0
        for node in nodes[row]:
            if node < 0:
                continue
            for child in range(starts[node], ends[node]):
                value = _dot(units[row], centroids[child]) - prices[child]
                if filled == width:
                    if value <= values[width - 1]:
                        continue
                    place = width - 1
                else:
                    place = filled
                    filled += 1
                while place > 0 and values[place - 1] < value:
                    values[place] = values[place - 1]
                    kept[row, place] = kept[row, place - 1]
                    place -= 1
                values[place] = value
                kept[row, place] = child
    return kept
