"""How many items lie on each path: dense where [K]^D is small, else a table of the occupied paths."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dr_core.paths.space import Int64Array, integer_array

DENSE_LIMIT = 2**27
"""Above this many path ids a dense int32 table (512 MiB) gives way to the table of occupied paths."""


@dataclass(frozen=True)
class PathSizes:
    """|c| for every path c; a value object, :meth:`add` returns a new one.

    Attributes:
        counts: int32, items on each path: [number of ids] if dense, else [P].
        path_ids: None if dense (the position is the id), else int64 [P], sorted, the only paths not empty.
    """

    counts: NDArray[np.int32]
    path_ids: Int64Array | None = None

    @classmethod
    def count(cls, path_ids: ArrayLike, *, dense_limit: int = DENSE_LIMIT) -> "PathSizes":
        """Sizes under a mapping ``path_ids`` int [...], -1 ignored; dense if the largest id is below ``dense_limit``.

        Raises:
            ValueError: an id below -1.
        """
        path_ids = integer_array(path_ids, "path_ids").ravel()
        if path_ids.size and path_ids.min() < -1:
            raise ValueError(f"path ids must not be below -1, got {path_ids.min()}")
        path_ids = path_ids[path_ids >= 0]
        if path_ids.size == 0 or path_ids.max() < dense_limit:
            return cls(np.bincount(path_ids).astype(np.int32))
        occupied, counts = np.unique(path_ids, return_counts=True)
        return cls(counts.astype(np.int32), occupied)

    @classmethod
    def from_table(cls, path_ids: ArrayLike, counts: ArrayLike, *, dense_limit: int = DENSE_LIMIT) -> "PathSizes":
        """Sizes from rows (path, items), rows of one path summed.

        Raises:
            ValueError: a negative id, or a path whose sum is negative.
        """
        return cls(np.zeros(0, dtype=np.int32)).add(path_ids, counts, dense_limit=dense_limit)

    def of(self, path_ids: ArrayLike) -> NDArray[np.int32]:
        """int32 [...], the sizes of paths int [...]; 0 for paths never seen."""
        path_ids = integer_array(path_ids, "path_ids")
        if len(self.counts) == 0:
            return np.zeros(path_ids.shape, dtype=np.int32)
        if self.path_ids is None:
            known = (path_ids >= 0) & (path_ids < len(self.counts))
            return np.where(known, self.counts[np.where(known, path_ids, 0)], 0).astype(np.int32)
        position = np.minimum(np.searchsorted(self.path_ids, path_ids), len(self.path_ids) - 1)
        return np.where(self.path_ids[position] == path_ids, self.counts[position], 0).astype(np.int32)

    def occupied(self) -> tuple[Int64Array, NDArray[np.int32]]:
        """The paths that hold an item, int64 [P] sorted, and how many each holds, int32 [P]."""
        positions = np.flatnonzero(self.counts)
        path_ids = positions if self.path_ids is None else self.path_ids[positions]
        return path_ids.astype(np.int64, copy=False), self.counts[positions]

    def add(self, path_ids: ArrayLike, deltas: ArrayLike, *, dense_limit: int = DENSE_LIMIT) -> "PathSizes":
        """These sizes plus changes: ``path_ids`` int [M], which may repeat, and ``deltas`` int [M].

        Raises:
            ValueError: a negative id, or a path that would hold fewer than no item.
        """
        path_ids = integer_array(path_ids, "path_ids").ravel()
        deltas = integer_array(deltas, "deltas").ravel()
        if path_ids.size and path_ids.min() < 0:
            raise ValueError(f"path ids must not be negative, got {path_ids.min()}")
        highest = int(path_ids.max()) if path_ids.size else -1
        if self.path_ids is None and highest < dense_limit:
            counts = np.zeros(max(len(self.counts), highest + 1), dtype=np.int64)
            counts[: len(self.counts)] = self.counts
            np.add.at(counts, path_ids, deltas)
            total = PathSizes(_as_counts(counts))
        else:
            own_ids, own_counts = self.occupied()
            ids, inverse = np.unique(np.concatenate([own_ids, path_ids]), return_inverse=True)
            counts = np.zeros(len(ids), dtype=np.int64)
            np.add.at(counts, inverse, np.concatenate([own_counts.astype(np.int64), deltas]))
            total = PathSizes(_as_counts(counts), ids)
        return total


def _as_counts(counts: Int64Array) -> NDArray[np.int32]:
    if counts.size and counts.min() < 0:
        raise ValueError("a path would hold fewer than no item: the changes do not belong to these sizes")
    return counts.astype(np.int32)
