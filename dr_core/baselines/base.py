"""What a baseline is: it learns from the training users' events, and answers for histories it has never seen."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import sparse

from dr_core.arrays import FloatArray, IntArray
from dr_core.config import Config
from dr_core.item_lists import ItemLists

USERS_AT_ONCE = 256


@dataclass(frozen=True)
class ItemFeatures:
    """What is known of the items besides their events.

    Attributes:
        values: by feature, the values of every item, ids from 0; an item may have several or none of them.
        num_values: by feature, how many different values there are.
        numeric_VM: float32 [V, M], on a scale of about 1.
    """

    values: dict[str, ItemLists]
    num_values: dict[str, int]
    numeric_VM: FloatArray

    @classmethod
    def none(cls, num_items: int) -> ItemFeatures:
        """Return the features of items of which nothing is known."""
        return cls({}, {}, np.zeros((num_items, 0), dtype=np.float32))


@dataclass(frozen=True)
class Events:
    """All events of the training users; held-out users are in none of them.

    Attributes:
        histories: each user's items, oldest first.
        num_items: V.
        rewards: float32 [entries of the histories], what each event is worth, such as the time watched; 1 when None.
        features: of the items.
        ended: float64 [users], when each history's last event was, in seconds; the users' order when None.
    """

    histories: ItemLists
    num_items: int
    rewards: FloatArray | None = None
    features: ItemFeatures | None = None
    ended: npt.NDArray[np.float64] | None = None

    @cached_property
    def counts(self) -> npt.NDArray[np.int64]:
        """Events an item, int64 [V]."""
        return np.bincount(self.histories.item_ids, minlength=self.num_items)

    @cached_property
    def matrix(self) -> sparse.csr_matrix:
        """Who met what: float32 [users, V], 1 where there is an event."""
        return incidence(self.histories, self.num_items)


def incidence(histories: ItemLists, num_items: int) -> sparse.csr_matrix:
    """Return float32 [U, V], 1 where an item is in a user's list."""
    offsets = np.asarray(histories.offsets, dtype=np.int64)
    ones = np.ones(len(histories.item_ids), dtype=np.float32)
    matrix = sparse.csr_matrix((ones, histories.item_ids, offsets), shape=(len(offsets) - 1, num_items))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


class HistoryConfig(Config):
    """What the events of a history are worth when a method without a sense of order answers."""

    half_life: float | None = Field(default=None, gt=0)
    """Events after which one counts half; all count alike when None."""


def weighted(histories: ItemLists, num_items: int, half_life: float | None) -> sparse.csr_matrix:
    """Return float32 [U, V]: :func:`incidence`, an item that was last met n events before the end weighing 2^(-n / half life)."""
    matrix = incidence(histories, num_items)
    if half_life is None:
        return matrix
    offsets = np.asarray(histories.offsets, dtype=np.int64)
    row = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    age = offsets[row + 1] - 1 - np.arange(offsets[-1])
    order = np.lexsort((age, histories.item_ids, row))
    pair = row[order] * num_items + np.asarray(histories.item_ids, dtype=np.int64)[order]
    latest = order[np.r_[True, pair[1:] != pair[:-1]][: len(pair)]]
    matrix.sort_indices()
    matrix.data = np.exp2(-age[latest] / half_life).astype(np.float32)
    return matrix


class Baseline(ABC):
    """A method that scores every item; what cannot score all of them overrides :meth:`retrieve`."""

    name: str

    @abstractmethod
    def fit(self, events: Events) -> None:
        """Learn from the events of the training users."""

    @abstractmethod
    def scores(self, histories: ItemLists) -> FloatArray:
        """Return float32 [U, V], higher is better; -inf where an item can never be returned.

        Args:
            histories: of users outside of the training, oldest first.
        """

    @abstractmethod
    def megabytes(self) -> float:
        """Return what an answer has to be computed from, in MB."""

    @abstractmethod
    def multiply_adds(self, histories: ItemLists) -> float:
        """Return the mean multiply-adds of scoring all items for a user; those of encoding the history are left out."""

    def retrieve(self, histories: ItemLists, k: int, *, filtered: bool, barred: IntArray | None = None) -> IntArray:
        """Return the k best items of each history, int64 [U, k], -1 where there are fewer; ties by item id.

        Args:
            filtered: whether the history's own items are left out.
            barred: items that nobody may get.
        """
        parts = [np.empty((0, k), dtype=np.int64)]
        for start in range(0, len(histories.offsets) - 1, USERS_AT_ONCE):
            block = rows(histories, start, start + USERS_AT_ONCE)
            score_UV = self.scores(block)
            if barred is not None and len(barred):
                score_UV[:, barred] = -np.inf
            parts.append(best(score_UV, k, block if filtered else None))
        return np.concatenate(parts)


class HistoryBaseline(Baseline):
    """A method without a sense of order: the half life changes how it answers, and nothing that it learns."""

    config: HistoryConfig

    def with_half_life(self, half_life: float | None) -> Self:
        """Return this method, as it has been fitted, answering with another half life; what was learned is shared."""
        other = copy.copy(self)
        other.config = self.config.model_copy(update={"half_life": half_life})
        return other


class VectorBaseline(Baseline):
    """A method that scores by an inner product, so that an index of vectors can serve it.

    Attributes:
        item_VE: float32 [V, E], a constant dimension standing for what an item scores with everybody.
    """

    item_VE: FloatArray

    @abstractmethod
    def users(self, histories: ItemLists) -> FloatArray:
        """Return float32 [U, E]: score(u, v) = <user u, item v>."""

    def scores(self, histories: ItemLists) -> FloatArray:
        scored: FloatArray = self.users(histories) @ self.item_VE.T
        return scored

    def multiply_adds(self, histories: ItemLists) -> float:
        return float(self.item_VE.size)

    def megabytes(self) -> float:
        return self.item_VE.nbytes / 1e6


def rows(lists: ItemLists, start: int, end: int) -> ItemLists:
    """Return some of the users' lists."""
    offsets = np.asarray(lists.offsets[start : end + 1], dtype=np.int64)
    return ItemLists(offsets - offsets[0], np.asarray(lists.item_ids[offsets[0] : offsets[-1]], dtype=np.int64))


def best(score_UV: FloatArray, k: int, excluded: ItemLists | None) -> IntArray:
    """Return the k highest of each row, int64 [U, k], best first; ties by item id; -1 for what scores -inf.

    Args:
        excluded: items that a row must not have.
    """
    score_UV = score_UV.copy()
    num_users, num_items = score_UV.shape
    if excluded is not None:
        score_UV[np.repeat(np.arange(num_users), np.diff(excluded.offsets)), excluded.item_ids] = -np.inf
    width = min(k, num_items)
    found = np.full((num_users, k), -1, dtype=np.int64)
    bound = np.partition(score_UV, num_items - width, axis=1)[:, num_items - width] if width else np.zeros(num_users)
    for user in range(num_users):
        items = np.flatnonzero(score_UV[user] >= bound[user])
        items = items[np.lexsort((items, -score_UV[user, items]))][:width]
        items = items[np.isfinite(score_UV[user, items])]
        found[user, : len(items)] = items
    return found
