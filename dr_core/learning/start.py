"""Where the structure starts: items clustered by their profiles under the warmed-up softmax."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from dr_core.arrays import FloatArray, IntArray
from dr_core.learning.budget import StructureChoice
from dr_core.learning.config import PathsConfig
from dr_core.learning.profiles import item_profiles
from dr_core.model.objective import DeepRetrievalModel
from dr_core.paths.best_visits import BestVisitors
from dr_core.paths.kmeans_tree import KMeansTree, fit_kmeans_tree, random_paths
from dr_core.paths.space import PathSpace

COMPARED_STATES = 1024


SPREAD = 8
"""States looked through for one that is taken."""


MASS_ITEMS = 4096
"""Items a state whose mass counts."""


def spread(user_NE: Tensor, num_states: int) -> Tensor:
    """Return ``num_states`` of the first ``SPREAD`` times as many states, in their order: few of each user, since one user's
    states resemble each other."""
    first = user_NE[: SPREAD * num_states]
    drawn = torch.randperm(len(first), generator=torch.Generator().manual_seed(0))[:num_states]
    return first[drawn.sort().values]


def starting_vectors(model: DeepRetrievalModel, user_NE: Tensor, config: PathsConfig, seed: int) -> FloatArray:
    """Return what k-means clusters: the items' profiles under a sample of user states."""
    return item_profiles(
        model.reranker,
        user_NE,
        num_dimensions=config.profile_dimensions,
        popularity_weight=config.popularity_weight,
        seed=seed,
    )


def kmeans_paths(
    model: DeepRetrievalModel,
    user_NE: Tensor,
    vectors: FloatArray,
    space: PathSpace,
    num_paths: int,
    config: PathsConfig,
    seed: int,
    *,
    budgets: Sequence[float],
) -> IntArray:
    """Return the leaf of every item in the best of several balanced trees, then its J - 1 nearest other leaves.

    Args:
        user_NE: states on which the trees are compared, by the softmax's mass on the paths visited for
            ``budgets`` items (:meth:`dr_core.paths.best_visits.BestVisitors.captured_mass`).

    Returns:
        int64 [V, J].
    """
    visitors = BestVisitors(softmax_mass(model, spread(user_NE, COMPARED_STATES)), space.num_paths, budgets)
    best: tuple[float, KMeansTree, IntArray] | None = None
    for restart in range(config.kmeans_restarts):
        tree, leaves = _fit(vectors, space, seed + restart * 1_000_003, config)
        captured = visitors.captured_mass(leaves[:, None])
        if best is None or captured > best[0]:
            best = captured, tree, leaves
    if best is None:
        raise ValueError("kmeans_restarts must be at least 1")
    return best[1].assign(vectors, num_paths, first_paths=best[2])


@torch.inference_mode()
def softmax_mass(model: DeepRetrievalModel, user_NE: Tensor) -> csr_matrix:
    """Return each state's softmax mass on its best items, float32 [N, V], sparse."""
    top = min(MASS_ITEMS, model.num_items)
    masses, items = [], []
    for start in range(0, len(user_NE), 256):
        best = torch.softmax(model.reranker.score_all(user_NE[start : start + 256]), dim=1).topk(top, dim=1)
        masses.append(best.values.numpy().ravel())
        items.append(best.indices.numpy().ravel().astype(np.int32))
    offsets = np.arange(len(user_NE) + 1) * top
    return csr_matrix((np.concatenate(masses), np.concatenate(items), offsets), (len(user_NE), model.num_items))


def sampled_tree(vectors: FloatArray, space: PathSpace, config: PathsConfig, seed: int) -> KMeansTree:
    """Return a tree learned on ``config.kmeans_sample`` of the items' vectors, float32 [V, R]."""
    chosen = np.sort(np.random.default_rng(seed).choice(len(vectors), config.kmeans_sample, replace=False))
    return _fit(vectors[chosen], space, seed, config)[0]


def initial_paths(
    model: DeepRetrievalModel,
    user_NE: Tensor,
    choice: StructureChoice,
    config: PathsConfig,
    seed: int,
) -> IntArray:
    """Return pi_0, int64 [V, J]: at random, or from the items' profiles under the warmed-up softmax.

    With more than ``config.kmeans_sample`` items the tree is learned on a sample, and every item goes to its nearest
    leaves.

    Args:
        model: warmed up.
        user_NE: float32, a sample of user states.
        choice: K, D and the budgets.
        config: J and the kind of start.
        seed: of the draws.
    """
    num_items, num_paths = model.num_items, config.paths_per_item
    if config.start == "random":
        return random_paths(num_items, num_paths, choice.space, seed)
    vectors = starting_vectors(model, user_NE, config, seed)
    if num_items <= config.kmeans_sample:
        return kmeans_paths(model, user_NE, vectors, choice.space, num_paths, config, seed, budgets=choice.budgets)
    return sampled_tree(vectors, choice.space, config, seed).assign(vectors, num_paths)


def _fit(vectors: FloatArray, space: PathSpace, seed: int, config: PathsConfig) -> tuple[KMeansTree, IntArray]:
    return fit_kmeans_tree(vectors, space, seed, capacity=config.kmeans_capacity, refinement=config.kmeans_refinement)
