"""What users did, as their owner has it: a sparse matrix, a table, or lists of histories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix, issparse

from dr_core.api.item_keys import ItemKeys, number
from dr_core.arrays import IntArray
from dr_core.errors import InputError
from dr_core.learning.samples import Histories


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns. ``order`` is a position or a time; None where events have no order."""

    user: str = "user"
    item: str = "item"
    order: str | None = "order"
    weight: str | None = None


@dataclass(frozen=True)
class Interactions:
    """Histories by number, and the names of their items."""

    histories: Histories
    keys: ItemKeys


def read_interactions(interactions: Any, columns: Columns, seed: int) -> Interactions:
    """Return histories from any of the forms that :meth:`dr_core.DeepRetrieval.fit` takes.

    Args:
        interactions: a scipy sparse matrix, a pandas or pyarrow table, or a sequence of histories.
        columns: of a table.
        seed: shuffles what has no order.

    Raises:
        InputError: another form, no event, a missing column, a missing value or a negative weight.
    """
    if issparse(interactions):
        read = _from_matrix(interactions, seed)
    elif hasattr(interactions, "column_names") or hasattr(interactions, "columns"):
        read = _from_table(interactions, columns, seed)
    elif isinstance(interactions, Sequence) and not isinstance(interactions, str | bytes):
        read = _from_lists(interactions)
    else:
        raise InputError(
            f"interactions are of type {type(interactions).__name__}: give a scipy sparse matrix, a pandas or pyarrow"
            " table, or a list of histories"
        )
    if not len(read.histories.item_ids):
        raise InputError("interactions hold no event: there is nothing to learn from")
    if not (read.histories.weights >= 0).all():
        raise InputError("interactions hold a weight that is negative or not a number: weights must be 0 or more")
    return read


def _from_matrix(matrix: Any, seed: int) -> Interactions:
    """Columns with an event are the items, by their number; rows are shuffled, since a matrix has no order."""
    rows = csr_matrix(matrix)
    rows.sum_duplicates()
    rows.eliminate_zeros()
    used = np.flatnonzero(np.bincount(rows.indices, minlength=rows.shape[1]))
    user = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    item = np.searchsorted(used, rows.indices)
    return _grouped(user, item, None, rows.data, ItemKeys(used.tolist()), seed)


def _from_table(table: Any, columns: Columns, seed: int) -> Interactions:
    user, _ = number(_values(table, columns.user, "user").tolist())
    item, keys = number(_values(table, columns.item, "item").tolist())
    order = None if columns.order is None else _values(table, columns.order, "order")
    weight = None if columns.weight is None else _values(table, columns.weight, "weight")
    return _grouped(user, item, order, weight, ItemKeys(keys), seed)


def _from_lists(lists: Sequence[Any]) -> Interactions:
    lists = [list(history) for history in lists]
    item, keys = number(key for history in lists for key in history)
    offsets = np.concatenate([[0], np.cumsum([len(history) for history in lists])]).astype(np.int64)
    return Interactions(Histories(offsets, item, np.ones(len(item), dtype=np.float32)), ItemKeys(keys))


def _values(table: Any, column: str, argument: str) -> npt.NDArray[Any]:
    names = list(table.column_names if hasattr(table, "column_names") else table.columns)
    if column not in names:
        hint = f"name it with {argument}="
        if argument == "order":
            hint += ", or say order=None where events have no order: then each history is shuffled"
        raise InputError(f"the table has no column {column!r}, it has {', '.join(map(str, names))}: {hint}")
    values = np.asarray(table[column])
    missing = np.array([value is None or value != value for value in values]) if values.dtype.kind in "fOmM" else None
    if missing is not None and missing.any():
        raise InputError(f"column {column!r} has {int(missing.sum())} rows without a value: drop or fill them")
    return values


def _grouped(
    user: IntArray,
    item: IntArray,
    order: npt.NDArray[Any] | None,
    weight: npt.NDArray[Any] | None,
    keys: ItemKeys,
    seed: int,
) -> Interactions:
    """Put each user's events together, in their order or shuffled; of equal order as the rows came."""
    order = np.random.default_rng(seed).permutation(len(user)) if order is None else order
    rows = np.lexsort((order, user))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(user))]).astype(np.int64)
    weights = np.ones(len(user)) if weight is None else weight[rows]
    return Interactions(Histories(offsets, item[rows].astype(np.int64), np.asarray(weights, dtype=np.float32)), keys)
