"""Items that may be returned (stock, country, age), and what follows from them for an index.

Shape legend: V items, R rows of an index (an item has one on each of its paths), D layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dr_core.arrays import AnyIntArray, BoolArray, IntArray
from dr_core.item_lists import ItemLists
from dr_core.paths.index import PathIndex
from dr_core.paths.space import PathSpace


@dataclass(frozen=True, eq=False)
class Allowed:
    """A set of items as a bitmap; two sets are the same only if they are the same object, so that what follows from one
    is computed once."""

    item_V: BoolArray
    """Whether each item may be returned."""

    @classmethod
    def of(cls, item_ids: AnyIntArray, num_items: int) -> Allowed:
        """Return the set of some items; raise ValueError for an id outside [0, ``num_items``)."""
        item_V = np.zeros(num_items, dtype=np.bool_)
        item_V[ItemLists.from_rows([item_ids]).checked(num_items, "allowed").item_ids] = True
        return cls(item_V)

    def rows(self, index: PathIndex) -> BoolArray:
        """Return which rows of an index hold an allowed item, bool [R]."""
        return self.item_V[index.item_ids]

    def on(self, index: PathIndex) -> PathIndex:
        """Return the index without the other items: a path's size is that of what is left, an empty path is gone."""
        is_kept_R = self.rows(index)
        kept_before = np.concatenate(([0], np.cumsum(is_kept_R)))[index.offsets]
        is_occupied_P = np.diff(kept_before) > 0
        offsets = np.concatenate(([0], kept_before[1:][is_occupied_P])).astype(np.int64)
        return PathIndex(index.path_ids[is_occupied_P], offsets, index.item_ids[is_kept_R])


def open_prefixes(index: PathIndex, space: PathSpace) -> tuple[IntArray, IntArray]:
    """Return the prefixes that an index holds an item under.

    Returns:
        Offsets int64 [D + 1] and prefixes int64: those of d + 1 nodes, ascending, lie between offsets d and d + 1.
    """
    layers = [np.unique(index.path_ids // space.paths_below(depth)) for depth in range(1, space.num_layers + 1)]
    offsets = np.concatenate(([0], np.cumsum([len(layer) for layer in layers]))).astype(np.int64)
    return offsets, np.concatenate(layers).astype(np.int64)
