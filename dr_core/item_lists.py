"""Ragged lists of items, one a user: histories, truths, candidates, items to leave out.

Shape legend: U users, L history length, W columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from dr_core.arrays import AnyIntArray, IntArray


class ItemLists(NamedTuple):
    """A list of items for each user, as CSR; a plain ``(offsets, item_ids)`` tuple serves as well."""

    offsets: AnyIntArray
    """int64 [U + 1], from 0 to the number of entries."""
    item_ids: AnyIntArray
    """int [entries], in [0, V); not necessarily sorted or distinct."""

    @classmethod
    def from_rows(cls, rows: Iterable[Sequence[int] | AnyIntArray]) -> ItemLists:
        """Build the lists from one sequence of item ids a user."""
        arrays = [np.asarray(row, dtype=np.int64) for row in rows]
        offsets = np.concatenate(([0], np.cumsum([len(array) for array in arrays]))).astype(np.int64)
        return cls(offsets, np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int64))

    @classmethod
    def from_matrix(cls, item_ids: AnyIntArray) -> ItemLists:
        """Build the lists from int [U, W]; negative ids are padding and are dropped."""
        present = item_ids >= 0
        offsets = np.concatenate(([0], np.cumsum(present.sum(axis=1)))).astype(np.int64)
        return cls(offsets, item_ids[present])

    @property
    def num_users(self) -> int:
        """U."""
        return len(self.offsets) - 1

    def known(self, num_items: int) -> ItemLists:
        """Return the lists without ids outside [0, ``num_items``)."""
        is_known = (self.item_ids >= 0) & (self.item_ids < num_items)
        kept = np.concatenate(([0], np.cumsum(is_known)))
        return ItemLists(kept[self.offsets].astype(np.int64), self.item_ids[is_known].astype(np.int64))

    def checked(self, num_items: int, what: str) -> ItemLists:
        """Return the lists; raise ValueError naming an id outside [0, ``num_items``), as keys of a log often are."""
        is_known = (self.item_ids >= 0) & (self.item_ids < num_items)
        if not is_known.all():
            wrong = self.item_ids[int(np.argmin(is_known))]
            raise ValueError(
                f"{what} holds {wrong}: item ids are the model's own, 0 to {num_items - 1}, not keys of a log"
            )
        return self

    def of_users(self, users: IntArray) -> ItemLists:
        """Return the lists of some users, in that order."""
        size_S = np.diff(self.offsets)[users]
        offsets = np.concatenate(([0], np.cumsum(size_S))).astype(np.int64)
        shift = np.repeat(self.offsets[users] - offsets[:-1], size_S)
        return ItemLists(offsets, self.item_ids[np.arange(offsets[-1]) + shift])

    def with_everywhere(self, item_ids: AnyIntArray) -> ItemLists:
        """Return the lists with the same items at the end of each."""
        shift_U1 = np.arange(len(self.offsets)) * len(item_ids)
        offsets = (self.offsets + shift_U1).astype(np.int64)
        merged = np.empty(offsets[-1], dtype=np.int64)
        is_own = np.ones(len(merged), dtype=bool)
        added = offsets[1:, None] - len(item_ids) + np.arange(len(item_ids))
        merged[added], is_own[added] = item_ids, False
        merged[is_own] = self.item_ids
        return ItemLists(offsets, merged)

    def last(self, length: int) -> tuple[IntArray, IntArray]:
        """Return the last items of each list, int64 [U, L] with -1 at the end, and how many they are, int64 [U].

        L is the most that any list has, at most ``length`` and at least 1.
        """
        length_U = np.minimum(np.diff(self.offsets), length).astype(np.int64)
        place_L = np.arange(max(1, int(length_U.max(initial=0))))
        is_held_UL = place_L < length_U[:, None]
        last_UL = np.full(is_held_UL.shape, -1, dtype=np.int64)
        first_U = np.asarray(self.offsets[1:]) - length_U
        last_UL[is_held_UL] = self.item_ids[(first_U[:, None] + place_L)[is_held_UL]]
        return last_UL, length_U
