"""Item keys and ids, mapped from files: no item costs memory before it is asked for.

Shape legend: V items, N bytes of all texts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dr_core.arrays import IntArray
from pipelines.serving.given_keys import spellings


@dataclass(frozen=True)
class Texts:
    """One text an item, in UTF-8."""

    bytes_N: npt.NDArray[np.uint8]
    offset_V: IntArray
    """int64 [V + 1], where each text begins and the last one ends."""

    def __len__(self) -> int:
        return len(self.offset_V) - 1

    def encoded(self, item_id: int) -> bytes:
        """Return the bytes of an item's text."""
        return self.bytes_N[self.offset_V[item_id] : self.offset_V[item_id + 1]].tobytes()

    def __getitem__(self, item_id: int) -> str:
        return self.encoded(item_id).decode()


@dataclass(frozen=True)
class ItemKeys:
    """Keys as they stand in the logs, to ids and back."""

    keys: Texts
    by_key_V: npt.NDArray[np.int32]
    """int32 item ids in the order of their keys' bytes."""

    def id_of(self, key: str) -> int | None:
        """Return an item's id, or None when there is no such key: a binary search, about 25 keys read of 10 million."""
        wanted = key.encode()
        place = bisect_left(self.by_key_V, wanted, key=lambda item_id: self.keys.encoded(int(item_id)))
        if place < len(self.by_key_V) and self.keys.encoded(int(self.by_key_V[place])) == wanted:
            return int(self.by_key_V[place])
        return None

    def ids(self, keys: Sequence[str]) -> tuple[list[int], list[str]]:
        """Return the ids of known keys, in their order, and the keys that are unknown in all of their spellings."""
        found = [(key, self._id_of_any(spellings(key))) for key in keys]
        return [item_id for _, item_id in found if item_id is not None], [
            key for key, item_id in found if item_id is None
        ]

    def _id_of_any(self, keys: Sequence[str]) -> int | None:
        return next((item_id for item_id in map(self.id_of, keys) if item_id is not None), None)
