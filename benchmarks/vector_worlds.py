"""Worlds of item and user vectors for :mod:`benchmarks.retrieval`: users that are distributed as the items are, and users that are not.

Shape legend: V items, N training users, U users, E dimension, k items a list.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import faiss
import numpy as np
import torch
from numpy.random import Generator

from dr_core.arrays import FloatArray, IntArray
from dr_core.errors import InputError
from dr_core.item_lists import ItemLists
from pipelines.serving.bundle import ReleaseBundle
from pipelines.storage.delta_reader import read_columns
from pipelines.storage.files import Files

DIM, BLOCK = 64, 256
MOST_STATES = 20_000
"""States of a trained model that a world is drawn from."""
NEIGHBOURS = 32
REGIONS = 64


@dataclass(frozen=True)
class World:
    """Vectors of items, scored by inner product, and three groups of users."""

    item_VE: FloatArray
    train_NE: FloatArray
    """What may be learned from."""
    validation_UE: FloatArray
    """On whom every method's widths are chosen."""
    test_UE: FloatArray
    """On whom results are reported."""

    def unlikeness(self, seed: int = 0) -> float:
        """Return how differently users and items are distributed, from 0 (alike) to 1: the total variation distance between
        the shares of both whose nearest direction, of 64 that k-means finds among the items, is the same."""
        rng = np.random.default_rng(seed)
        items = unit(self.item_VE[rng.integers(0, len(self.item_VE), 20_000)])
        clusters = faiss.Kmeans(items.shape[1], REGIONS, niter=10, seed=seed, spherical=True)
        clusters.train(items)
        shares = [
            np.bincount((rows @ clusters.centroids.T).argmax(1), minlength=REGIONS) / len(rows)
            for rows in (items, unit(np.concatenate([self.validation_UE, self.test_UE])))
        ]
        return float(np.abs(shares[0] - shares[1]).sum() / 2)


class WorldSize(NamedTuple):
    """How much of a world is drawn."""

    items: int
    train_users: int
    validation_users: int
    test_users: int


def unit(rows: FloatArray) -> FloatArray:
    """Return rows of length 1."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-9))


def exact_top(user_UE: FloatArray, item_VE: FloatArray, k: int) -> IntArray:
    """Return the exact top k of every user by inner product, int64 [U, k]."""
    items = torch.from_numpy(item_VE)
    blocks = torch.from_numpy(user_UE).split(BLOCK)  # type: ignore[no-untyped-call]
    return torch.cat([(block @ items.T).topk(k).indices for block in blocks]).numpy()


class Topics:
    """Overlapping topics on a sphere: an item is as much itself as it is of its topic and subtopic."""

    def __init__(self, num_items: int, rng: Generator) -> None:
        num_topics = max(num_items // 3000, 10)
        topics, subtopics = _normal(num_topics, rng), _normal(num_topics * 20, rng)
        subtopic = rng.integers(0, len(subtopics), num_items)
        self.item_VE = unit(topics[subtopic // 20] + 0.6 * subtopics[subtopic] + 0.9 * _normal(num_items, rng))
        self.rng = rng

    def between_two(self, count: int) -> FloatArray:
        """Draw users between two items of interest, float32 [count, E]."""
        first, second = self.rng.integers(0, len(self.item_VE), (2, count))
        share = self.rng.uniform(0.5, 1.0, (count, 1)).astype(np.float32)
        nearby = share * self.item_VE[first] + (1 - share) * self.item_VE[second]
        return unit(nearby + 0.5 * _normal(count, self.rng))


def users_like_items(size: WorldSize, seed: int) -> World:
    """Draw topics, items near them, and users between two items: both are spread over the same sphere."""
    topics = Topics(size.items, np.random.default_rng(seed))
    train, test, validation = map(topics.between_two, (size.train_users, size.test_users, size.validation_users))
    return World(topics.item_VE, train, validation, test)


def users_unlike_items(size: WorldSize, seed: int) -> World:
    """Draw items in a cone around one direction, and users in a space of few dimensions, shifted away from the cone.

    It stands in where no model is at hand. As in a softmax, the items share a common direction (here two thirds of their
    squared length), their lengths differ, and what users differ in is a quarter of the dimensions; users all lean the same
    way, which no item does. What an item's neighbours among items are says little about who wants it.
    """
    rng = np.random.default_rng(seed)
    topics = Topics(size.items, rng)
    common, lean = unit(_normal(2, rng))
    length_V1 = rng.lognormal(0.0, 0.2, (size.items, 1)).astype(np.float32)
    item_VE = length_V1 * unit(topics.item_VE + np.float32(2**0.5) * common)
    kept_ER, _ = np.linalg.qr(_normal(DIM, rng).T[:, : DIM // 4])

    def users(count: int) -> FloatArray:
        tastes = topics.between_two(count) @ kept_ER @ kept_ER.T
        return unit(unit(tastes) + 0.7 * lean - 0.4 * common)

    return World(item_VE - item_VE.mean(0), *map(users, size[1:]))


class SoftmaxVectors(NamedTuple):
    """What a trained softmax scores <x, e_v> + b_v with."""

    vector_VE: FloatArray
    bias_V: FloatArray
    state_NE: FloatArray
    """User states of the log that it learned from."""

    @classmethod
    def read(cls, source: str, seed: int) -> Self:
        """Read a work folder of ``dr run``, or an .npz of ``vector_VE``, ``bias_V`` and ``state_NE``.

        Of a work folder: the live release's items, and its states after every event of the users' stored histories but the
        first, at most :data:`MOST_STATES` of them.

        Raises:
            InputError: the file lacks an array, or the folder has no release.
        """
        if source.endswith(".npz"):
            with np.load(Path(source)) as arrays:
                if missing := set(cls._fields) - set(arrays):
                    raise InputError(f"{source} lacks {', '.join(sorted(missing))}; save them with numpy.savez")
                return cls(*(arrays[name].astype(np.float32) for name in cls._fields))
        folder = Files(source)
        retriever = ReleaseBundle.open(folder).retriever(None)
        ranker, rng = retriever.ranker, np.random.default_rng(seed)
        _, first = np.unique(ranker.index.item_ids, return_index=True)
        places = ranker.place_R[first] if len(ranker.place_R) else first
        table = read_columns(folder.path("tables", "user_histories"), ["item_ids"]).to_pydict()
        histories = [[item for item in row if item < retriever.num_items] for row in table["item_ids"]]
        cuts = [(row, end) for row, history in enumerate(histories) for end in range(2, len(history) + 1)]
        picked = rng.permutation(len(cuts))[:MOST_STATES]
        states = retriever.encode(ItemLists.from_rows([histories[row][:end] for row, end in (cuts[p] for p in picked)]))
        return cls(ranker.vector_QE[places], ranker.rows.bias_R[first], states)


def world_of_model(model: SoftmaxVectors, size: WorldSize, seed: int) -> World:
    """Scale a trained softmax up to so many items and users.

    The bias becomes a further dimension, in which users have 1. A drawn vector lies around a real one, by a normal
    distribution with the covariance of that vector's 32 nearest; then the whole cloud is mapped linearly to the mean and the
    covariance of the real one (a smoothed bootstrap, Silverman, *Density Estimation*, 1986, section 6.4, with a local
    kernel). So these stay: both clouds' means and covariances, the angle between the clouds, and where each is dense. These
    do not: clusters finer than 32 neighbours, and which item a state was trained to find. Training, validation and
    test users are drawn around different states. The mean is taken off all items, which changes no user's order.
    """
    rng = np.random.default_rng(seed)
    real_VE = np.column_stack([model.vector_VE, model.bias_V])
    item_VE = scaled_up(real_VE - real_VE.mean(0), size.items, rng)
    order = rng.permutation(len(model.state_NE))
    tenth = len(order) // 10
    groups = order[2 * tenth :], order[:tenth], order[tenth : 2 * tenth]
    drawn = [scaled_up(model.state_NE[rows], count, rng) for rows, count in zip(groups, size[1:], strict=True)]
    return World(item_VE, *(np.column_stack([rows, np.ones(len(rows), np.float32)]) for rows in drawn))


def scaled_up(real_RE: FloatArray, count: int, rng: Generator) -> FloatArray:
    """Draw vectors float32 [count, E] around real ones; their mean and covariance are those of the real vectors.

    Raises:
        InputError: there are too few real vectors for a covariance.
    """
    num_real, dim = real_RE.shape
    if num_real <= max(dim, NEIGHBOURS):
        raise InputError(f"{num_real} vectors of {dim} dimensions are too few to draw others from")
    index = faiss.IndexFlatL2(dim)
    index.add(np.ascontiguousarray(real_RE))
    near_RN = index.search(np.ascontiguousarray(real_RE), NEIGHBOURS)[1]
    drawn = np.empty((count, dim), dtype=np.float32)
    for start in range(0, count, 20_000):
        chosen = rng.integers(0, num_real, min(20_000, count - start))
        around_CNE = real_RE[near_RN[chosen]]
        around_CNE -= around_CNE.mean(1, keepdims=True)
        weight_CN = rng.standard_normal((len(chosen), NEIGHBOURS), dtype=np.float32) / np.float32(NEIGHBOURS**0.5)
        drawn[start : start + len(chosen)] = real_RE[chosen] + np.einsum("cn,cne->ce", weight_CN, around_CNE)
    mean_E = drawn.mean(0)
    to_real_EE = _power(np.cov(drawn.T), -0.5) @ _power(np.cov(real_RE.T), 0.5)
    return (drawn - mean_E) @ to_real_EE.astype(np.float32) + real_RE.mean(0)


def _power(covariance_EE: FloatArray, exponent: float) -> FloatArray:
    values, vectors = np.linalg.eigh(covariance_EE)
    return (vectors * np.maximum(values, 1e-12 * values.max()) ** exponent) @ vectors.T


def _normal(rows: int, rng: Generator) -> FloatArray:
    return rng.standard_normal((rows, DIM), dtype=np.float32) / np.float32(DIM**0.5)
