"""Accuracy and fidelity of recommended lists, one figure a user.

Legend: U users, k items recommended, V items. Every figure is float64 [U] and a fraction. A user for whom a figure is
not defined (no truth, no reference) has NaN there: such users are left out of means and of the bootstrap. Duplicates,
on either side, count once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from dr_core.arrays import AnyIntArray, BoolArray, DoubleArray
from dr_core.item_lists import ItemLists

_MARKED_CELLS = 2**24
"""Bytes of the table that marks which items a block of users has: membership without sorting."""


@dataclass(frozen=True)
class UserMetrics:
    """Accuracy of the first k recommended items of each user; each field is float64 [U]."""

    precision: DoubleArray
    """Hits over k, however many items were returned."""
    recall: DoubleArray
    """Hits over the number of true items."""
    f1: DoubleArray
    """The user's own harmonic mean of precision and recall, 2 hits / (k + true items); 0 where both are."""
    ndcg: DoubleArray
    """Binary gains, discount 1 / log2(rank + 1); the ideal list has min(k, true items) hits."""
    hit_rate: DoubleArray
    """1 where at least one recommended item is true."""

    def means(self) -> dict[str, float]:
        """Return the plain mean over users of every figure, NaN users left out (NaN where nobody counts)."""
        return {field.name: mean_over_users(getattr(self, field.name)) for field in fields(self)}


def user_metrics(recommended: AnyIntArray, truth: ItemLists, k: int | None = None) -> UserMetrics:
    """Return precision, recall, F1, NDCG and hit rate at k of every user.

    A duplicate within the first k places is a wasted place: it counts once and nothing moves up.

    Args:
        recommended: int [U, W], best first, padded with -1.
        truth: each user's true items; a user without any gets NaN everywhere.
        k: cut-off, and what precision divides by; W by default. It may exceed W.

    Raises:
        ValueError: shapes disagree, ``k`` < 1, or ``truth`` is not a valid CSR of item ids.
    """
    cutoff = recommended.shape[-1] if k is None else k
    if cutoff < 1:
        raise ValueError(f"k must be at least 1, was {cutoff}")
    top = recommended[:, :cutoff]
    hits = _hits(top, truth)
    num_hits = hits.sum(axis=1).astype(np.float64)
    num_true = distinct_counts(truth).astype(np.float64)
    discounts = 1.0 / np.log2(np.arange(cutoff) + 2.0)
    ideal = np.concatenate(([0.0], np.cumsum(discounts)))[np.minimum(num_true, cutoff).astype(np.int64)]
    has_truth = num_true > 0
    return UserMetrics(
        precision=np.where(has_truth, num_hits / cutoff, np.nan),
        recall=_ratio(num_hits, num_true),
        f1=np.where(has_truth, 2.0 * num_hits / (cutoff + num_true), np.nan),
        ndcg=_ratio(hits @ discounts[: top.shape[1]], ideal),
        hit_rate=np.where(has_truth, (num_hits > 0).astype(np.float64), np.nan),
    )


def overlap(recommended: AnyIntArray, reference: AnyIntArray) -> DoubleArray:
    """Return the share of each user's distinct reference items that are recommended, float64 [U].

    Against the brute-force top k of the same model it says how faithful a structure is to its own model.

    Args:
        recommended: int [U, W], padded with -1.
        reference: int [U, W'], padded with -1; NaN where a user has none.

    Raises:
        ValueError: the two have different numbers of users, or are not matrices.
    """
    wanted = ItemLists.from_matrix(reference)
    return _ratio(_hits(recommended, wanted).sum(axis=1).astype(np.float64), distinct_counts(wanted))


def candidate_recall(candidates: ItemLists, truth: ItemLists) -> DoubleArray:
    """Return the share of each user's distinct true items that are among the candidates, float64 [U].

    Memory does not grow with the number of candidates: users are taken in blocks.

    Raises:
        ValueError: the two have different numbers of users, or one is not a valid CSR of item ids.
    """
    distinct = distinct_lists(truth)
    num_true = np.diff(distinct.offsets)
    users = np.repeat(np.arange(len(num_true)), num_true)
    found = contains(candidates, users, distinct.item_ids, num_users=len(num_true))
    return _ratio(np.bincount(users[found], minlength=len(num_true)).astype(np.float64), num_true)


def mean_over_users(values: DoubleArray) -> float:
    """Return the plain mean over the users for whom ``values`` is defined, NaN where there is none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def distinct_counts(lists: ItemLists) -> AnyIntArray:
    """Return how many distinct items each user's list has, int64 [U].

    Raises:
        ValueError: ``lists`` is not a valid CSR of item ids.
    """
    offsets, item_ids = _validated(lists)
    counts = np.zeros(len(offsets) - 1, dtype=np.int64)
    for start, stop, marked in _marked_blocks(offsets, item_ids):
        counts[start:stop] = marked.sum(axis=1)
    return counts


def distinct_lists(lists: ItemLists) -> ItemLists:
    """Return the lists with every user's items ascending and once each.

    Raises:
        ValueError: ``lists`` is not a valid CSR of item ids.
    """
    offsets, item_ids = _validated(lists)
    num_items = int(item_ids.max(initial=0)) + 1
    keys = np.unique(np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)) * num_items + item_ids)
    counts = np.bincount(keys // num_items, minlength=len(offsets) - 1)
    return ItemLists(np.concatenate(([0], np.cumsum(counts))).astype(np.int64), keys % num_items)


def first_occurrences(item_ids: AnyIntArray) -> BoolArray:
    """Return bool [U, W]: True where an id is not padding and has not stood further left in its row.

    Raises:
        ValueError: ``item_ids`` is not a matrix of integers.
    """
    if item_ids.ndim != 2 or not np.issubdtype(item_ids.dtype, np.integer):
        raise ValueError(f"expected an integer matrix [U, W], was {item_ids.dtype} {item_ids.shape}")
    order = np.argsort(item_ids, axis=1, kind="stable")
    ascending = np.take_along_axis(item_ids, order, axis=1)
    is_first = ascending >= 0
    is_first[:, 1:] &= ascending[:, 1:] != ascending[:, :-1]
    result = np.empty_like(is_first)
    np.put_along_axis(result, order, is_first, axis=1)
    return result


def contains(lists: ItemLists, users: AnyIntArray, item_ids: AnyIntArray, *, num_users: int) -> BoolArray:
    """Tell for each (user, item) pair whether the item is in the user's list, bool [pairs].

    Args:
        lists: the lists looked into.
        users: int [pairs], ascending, in [0, num_users).
        item_ids: int [pairs], at least 0.
        num_users: U, which ``lists`` must have too.

    Raises:
        ValueError: ``lists`` is not a valid CSR of item ids or has another number of users.
    """
    offsets, listed = _validated(lists)
    if len(offsets) - 1 != num_users:
        raise ValueError(f"item lists of {len(offsets) - 1} users, expected {num_users}")
    found = np.zeros(len(users), dtype=np.bool_)
    for start, stop, marked in _marked_blocks(offsets, listed):
        first, last = np.searchsorted(users, (start, stop))
        wanted = item_ids[first:last]
        in_range = wanted < marked.shape[1]
        found[first:last][in_range] = marked[users[first:last][in_range] - start, wanted[in_range]]
    return found


def _hits(recommended: AnyIntArray, truth: ItemLists) -> BoolArray:
    """Return bool [U, W]: True where a place holds a true item that has not stood further left."""
    hits = first_occurrences(recommended)
    users, places = np.nonzero(hits)
    hits[users, places] = contains(truth, users, recommended[users, places], num_users=len(recommended))
    return hits


def _marked_blocks(offsets: AnyIntArray, item_ids: AnyIntArray) -> Iterable[tuple[int, int, BoolArray]]:
    """Yield (start, stop, bool [stop - start, V]) over blocks of users: which items each of them has."""
    num_users = len(offsets) - 1
    num_items = int(item_ids.max(initial=0)) + 1
    block = max(1, min(num_users, _MARKED_CELLS // num_items))
    table = np.zeros((block, num_items), dtype=np.bool_)
    for start in range(0, num_users, block):
        stop = min(start + block, num_users)
        rows = np.repeat(np.arange(stop - start), np.diff(offsets[start : stop + 1]))
        columns = item_ids[offsets[start] : offsets[stop]]
        table[rows, columns] = True
        yield start, stop, table[: stop - start]
        table[rows, columns] = False


def _ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> DoubleArray:
    """Return part / whole, NaN where whole is 0."""
    result = np.full(len(whole), np.nan)
    return np.divide(part, whole, out=result, where=whole > 0)


def _validated(lists: ItemLists) -> ItemLists:
    offsets, item_ids = lists
    if not (np.issubdtype(offsets.dtype, np.integer) and np.issubdtype(item_ids.dtype, np.integer)):
        raise ValueError(f"item lists must be integers, were {offsets.dtype} and {item_ids.dtype}")
    if offsets.ndim != 1 or len(offsets) < 1 or offsets[0] != 0 or offsets[-1] != len(item_ids):
        raise ValueError(f"offsets must run from 0 to the {len(item_ids)} entries")
    if np.any(np.diff(offsets) < 0):
        raise ValueError("offsets must not fall")
    if item_ids.min(initial=0) < 0:
        raise ValueError("item lists hold a negative id")
    return ItemLists(offsets, item_ids)
