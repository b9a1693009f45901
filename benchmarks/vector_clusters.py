"""k-means of many vectors, for inverted lists and for paths alike. Shape legend: V items, L clusters, E dimension."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from dr_core.arrays import FloatArray

BUILD_THREADS = 2
MANY = 8192
"""From so many clusters on, a graph over the centroids finds the nearest one."""
POINTS_PER_CLUSTER, MOST_POINTS = 64, 400_000


def coarse_index(centroid_LE: FloatArray, metric: int, graph: bool) -> Any:
    """Return a faiss index of centroids, a graph (Malkov and Yashunin, 2016) or flat."""
    index = _empty(centroid_LE.shape[1], metric, graph)
    index.add(centroid_LE)
    return index


def fit_clusters(item_VE: FloatArray, num_clusters: int, seed: int) -> tuple[FloatArray, Any]:
    """Fit k-means to a sample of the items, ten iterations of Lloyd's.

    Returns:
        The centroids float32 [L, E], and a faiss index whose search finds the nearest of them.
    """
    faiss.omp_set_num_threads(BUILD_THREADS)
    size = min(len(item_VE), POINTS_PER_CLUSTER * num_clusters, MOST_POINTS)
    sample = item_VE[np.random.default_rng(seed).permutation(len(item_VE))[:size]]
    clustering = faiss.Clustering(item_VE.shape[1], num_clusters)
    clustering.niter, clustering.seed = 10, seed
    clustering.min_points_per_centroid, clustering.max_points_per_centroid = 1, POINTS_PER_CLUSTER
    nearest = _empty(item_VE.shape[1], faiss.METRIC_L2, num_clusters >= MANY)
    clustering.train(np.ascontiguousarray(sample), nearest)
    return faiss.vector_to_array(clustering.centroids).reshape(num_clusters, -1), nearest


def _empty(dim: int, metric: int, graph: bool) -> Any:
    if not graph:
        return faiss.IndexFlat(dim, metric)
    index = faiss.IndexHNSWFlat(dim, 32, metric)
    index.hnsw.efSearch = 64
    return index
