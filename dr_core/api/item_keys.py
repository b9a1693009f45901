"""The items by the names that their owner gives them, and by the numbers 0 … V - 1 that arrays use."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from dr_core.arrays import AnyIntArray, IntArray
from dr_core.errors import InputError


def number(values: Iterable[Hashable]) -> tuple[IntArray, list[Any]]:
    """Return each value's number, int64 [n], and the distinct values by number.

    Strings and ints are numbered in their order, so that the numbers do not depend on the order of the rows. Values of
    other or mixed types are numbered as they come.
    """
    values = list(values)
    types = {type(value) for value in values}
    distinct = sorted(set(values)) if types in ({str}, {int}) else list(dict.fromkeys(values))  # type: ignore[type-var]
    place = {value: at for at, value in enumerate(distinct)}
    return np.fromiter((place[value] for value in values), dtype=np.int64, count=len(values)), distinct


class ItemKeys:
    """Names of items, hashable and distinct.

    Args:
        keys: the name of each item by its number.
    """

    def __init__(self, keys: Sequence[Any]) -> None:
        self.keys = list(keys)

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def _ids(self) -> dict[Any, int]:
        return {key: at for at, key in enumerate(self.keys)}

    def ids(self, keys: Iterable[Hashable]) -> tuple[IntArray, list[Hashable]]:
        """Return the numbers of the known keys, int64 in the order of the keys, and the unknown keys.

        Raises:
            InputError: ``keys`` is one text, whose letters would be taken for keys.
        """
        if isinstance(keys, str | bytes):
            raise InputError(f"{keys!r} is one text: give a list of keys")
        found = [(key, self._ids.get(key)) for key in keys]
        known = [at for _, at in found if at is not None]
        return np.array(known, dtype=np.int64), [key for key, at in found if at is None]

    def of(self, ids: AnyIntArray) -> list[Any]:
        """Return the keys of some numbers; -1, which is no item, is left out."""
        return [self.keys[at] for at in ids.tolist() if at >= 0]
