"""The inverse of the mapping: the items on each path, as arrays a retriever maps into memory."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dr_core.errors import InputError
from dr_core.paths.sizes import DENSE_LIMIT
from dr_core.paths.space import Int64Array, integer_array

_ARRAYS = ("path_ids", "offsets", "item_ids")


@dataclass(frozen=True)
class PathIndex:
    """Items of every occupied path, as CSR.

    Attributes:
        path_ids: int64 [P], the occupied paths, ascending.
        offsets: int64 [P + 1].
        item_ids: int32 [V * J], ascending within each path, unless :meth:`ordered` otherwise.
    """

    path_ids: Int64Array
    offsets: Int64Array
    item_ids: NDArray[np.int32]

    @property
    def num_paths(self) -> int:
        """P, occupied paths."""
        return len(self.path_ids)

    @property
    def arrays(self) -> tuple[Int64Array, Int64Array, NDArray[np.int32]]:
        """``path_ids``, ``offsets`` and ``item_ids``."""
        return self.path_ids, self.offsets, self.item_ids

    def lookup(self, path_ids: ArrayLike) -> tuple[Int64Array, Int64Array]:
        """Where each path's items lie in ``item_ids``.

        Args:
            path_ids: int [...]; -1 and unoccupied paths have no items.

        Returns:
            starts and ends, int64 [...]; equal where the path holds nothing.
        """
        path_ids = integer_array(path_ids, "path_ids")
        if self.num_paths == 0:
            return np.zeros(path_ids.shape, dtype=np.int64), np.zeros(path_ids.shape, dtype=np.int64)
        position = np.minimum(np.searchsorted(self.path_ids, path_ids), self.num_paths - 1)
        starts = np.asarray(self.offsets[position])
        ends = np.where(self.path_ids[position] == path_ids, self.offsets[position + 1], starts)
        return starts, ends

    def items(self, path_id: int) -> NDArray[np.int32]:
        """Item ids int32 [|c|] on one path, in the order of the index; empty if it holds none."""
        starts, ends = self.lookup(np.asarray([path_id]))
        return self.item_ids[int(starts[0]) : int(ends[0])]

    def ordered(self, score_V: NDArray[np.float32]) -> "PathIndex":
        """Return the index with the items of each path in descending order of a score, float32 [V]; of equal ones the
        smaller id first."""
        path_R = np.repeat(np.arange(self.num_paths), np.diff(self.offsets))
        order = np.lexsort((self.item_ids, -score_V[self.item_ids], path_R))
        return PathIndex(self.path_ids, self.offsets, self.item_ids[order])

    def log_sizes(self, num_paths: int) -> NDArray[np.float32] | None:
        """ln |c| of every path id below ``num_paths``, float32 [K^D]: what ranks paths by probability per item.

        A path without items counts as the longest. None if there are more ids than a dense table may have
        (:data:`dr_core.paths.sizes.DENSE_LIMIT`) or no items.
        """
        if num_paths > DENSE_LIMIT or not self.num_paths:
            return None
        size_P = np.diff(self.offsets)
        log_size_P = np.full(num_paths, np.log(size_P.max()), dtype=np.float32)
        log_size_P[self.path_ids] = np.log(size_P)
        return log_size_P

    def save(self, folder: str | Path) -> None:
        """Write ``path_ids.npy``, ``offsets.npy`` and ``item_ids.npy``, each replaced in one step."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name in _ARRAYS:
            partial = folder / f"{name}.npy.tmp"
            with partial.open("wb") as file:
                np.save(file, getattr(self, name), allow_pickle=False)
            os.replace(partial, folder / f"{name}.npy")

    @classmethod
    def load(cls, folder: str | Path, *, mmap: bool = True) -> "PathIndex":
        """Read what :meth:`save` wrote, by default mapped into memory and shared between processes.

        Raises:
            InputError: a file is missing, unreadable, or the three do not belong together.
        """
        arrays = {}
        for name in _ARRAYS:
            file = Path(folder) / f"{name}.npy"
            try:
                arrays[name] = np.load(file, mmap_mode="r" if mmap else None, allow_pickle=False)
            except (OSError, ValueError) as error:
                raise InputError(
                    f"the path index file {file} cannot be read: {error}; build the index again"
                ) from error
        index = cls(arrays["path_ids"], arrays["offsets"], arrays["item_ids"])
        if len(index.offsets) != index.num_paths + 1 or int(index.offsets[-1]) != len(index.item_ids):
            raise InputError(f"the path index files in {folder} do not belong together; build the index again")
        return index


def build_index(item_ids: ArrayLike, path_ids: ArrayLike) -> PathIndex:
    """Invert a mapping from items to paths.

    Args:
        item_ids: int [n], each in [0, 2^31).
        path_ids: int [n] or [n, J], the paths of each item; -1 (none) is left out.

    Raises:
        ValueError: the shapes differ, an id is out of range, or an item lies twice on one path.
    """
    item_ids = integer_array(item_ids, "item_ids")
    path_ids = integer_array(path_ids, "path_ids")
    if item_ids.ndim != 1 or path_ids.ndim not in (1, 2) or len(path_ids) != len(item_ids):
        raise ValueError(f"item_ids {item_ids.shape} must be [n] and path_ids {path_ids.shape} [n] or [n, J]")
    if item_ids.size and (item_ids.min() < 0 or item_ids.max() >= 2**31):
        raise ValueError(f"item ids must lie in [0, 2**31), got {item_ids.min()} to {item_ids.max()}")
    if path_ids.size and path_ids.min() < -1:
        raise ValueError(f"path ids must not be below -1, got {path_ids.min()}")
    if path_ids.ndim == 2:
        item_ids = np.repeat(item_ids, path_ids.shape[1])
        path_ids = path_ids.ravel()
    on_path = path_ids >= 0
    item_ids, path_ids = item_ids[on_path], path_ids[on_path]
    if np.any(np.diff(item_ids) < 0):
        by_item = np.argsort(item_ids, kind="stable")
        item_ids, path_ids = item_ids[by_item], path_ids[by_item]
    by_path = np.argsort(path_ids, kind="stable")
    item_ids, path_ids = item_ids[by_path], path_ids[by_path]
    repeats = (path_ids[1:] == path_ids[:-1]) & (item_ids[1:] == item_ids[:-1])
    if repeats.any():
        first = int(np.argmax(repeats))
        raise ValueError(f"item {item_ids[first]} lies twice on path {path_ids[first]}")
    starts = np.flatnonzero(np.diff(path_ids, prepend=-1))
    offsets = np.append(starts, len(path_ids)).astype(np.int64)
    return PathIndex(path_ids[starts], offsets, item_ids.astype(np.int32))
