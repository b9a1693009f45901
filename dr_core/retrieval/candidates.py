"""From paths to items: gathering, de-duplicating and reranking, compiled (the hot loops of retrieval after the beam).

Shape legend: U users, B beam, E dimension, V items, k items returned.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from dr_core.arrays import AnyIntArray, IntArray
from dr_core.retrieval.router import WHOLE

_SPREAD = -7046029254386353131


class Candidates(NamedTuple):
    """Distinct items of each user as CSR, in the order in which the beam found them."""

    offsets: IntArray
    """int64 [U + 1]."""
    item_ids: IntArray
    """int64 [nnz], distinct within a user."""
    beam_slots: IntArray
    """int64 [nnz], place in the beam of the most probable path that holds the item."""


def gather_candidates(
    path_UB: IntArray,
    path_ids: IntArray,
    offsets: IntArray,
    items: npt.NDArray[np.int32],
    items_UB: IntArray | None = None,
) -> Candidates:
    """Collect the items on each user's paths; an item on several of them counts once, at the best.

    The cost grows with the items on the paths, not with V.

    Args:
        path_UB: int64 path ids, most probable first, -1 for none.
        path_ids, offsets, items: the arrays of a :class:`dr_core.paths.index.PathIndex`.
        items_UB: int64, how many of its items each path gives, by default all.
    """
    if items_UB is None:
        items_UB = np.full(path_UB.shape, WHOLE)
    return Candidates(*_gather(np.ascontiguousarray(path_UB), np.ascontiguousarray(items_UB), path_ids, offsets, items))


@njit(cache=True, nogil=True)
def _table(longest):  # type: ignore[no-untyped-def]
    """Keys and owners of a hash table that holds, one owner after the other, a set of up to ``longest`` keys each."""
    size = 4
    while size < 2 * longest:
        size *= 2
    return np.empty(size, np.int64), np.full(size, -1, np.int64)


@njit(cache=True, nogil=True)
def _slot(keys, owners, owner, key):  # type: ignore[no-untyped-def]
    """The slot of a key in its owner's set; its owner is another one where the set lacks the key."""
    mask = len(keys) - 1
    spread = np.int64(key * _SPREAD)
    slot = (spread ^ (spread >> 32)) & mask
    while owners[slot] == owner and keys[slot] != key:
        slot = (slot + 1) & mask
    return slot


@njit(cache=True, nogil=True)
def _gather(  # type: ignore[no-untyped-def]
    path_UB, items_UB, path_ids, offsets, items
):
    num_users, beam = path_UB.shape
    upper, longest = 0, 0
    place = np.searchsorted(path_ids, path_UB.ravel())
    for user in range(num_users):
        before = upper
        for slot in range(beam):
            at = place[user * beam + slot]
            if at < len(path_ids) and path_ids[at] == path_UB[user, slot]:
                upper += min(offsets[at + 1] - offsets[at], items_UB[user, slot])
        longest = max(longest, upper - before)
    found = np.empty(upper, np.int64)
    slots = np.empty(upper, np.int64)
    user_offsets = np.zeros(num_users + 1, np.int64)
    keys, owners = _table(longest)
    total = 0
    for user in range(num_users):
        for slot in range(beam):
            at = place[user * beam + slot]
            if at >= len(path_ids) or path_ids[at] != path_UB[user, slot]:
                continue
            for position in range(offsets[at], offsets[at] + min(offsets[at + 1] - offsets[at], items_UB[user, slot])):
                item = np.int64(items[position])
                where = _slot(keys, owners, user, item)
                if owners[where] != user:
                    keys[where], owners[where] = item, user
                    found[total] = item
                    slots[total] = slot
                    total += 1
        user_offsets[user + 1] = total
    return user_offsets, found[:total].copy(), slots[:total].copy()


def rerank(
    user_UE: npt.NDArray[np.float32],
    candidates: Candidates,
    vector_VE: npt.NDArray[np.float32],
    bias_V: npt.NDArray[np.float32],
    k: int,
    excluded: tuple[AnyIntArray, AnyIntArray] | None = None,
) -> tuple[IntArray, npt.NDArray[np.float32], IntArray]:
    """Return each user's k best candidates by <x, e_v> + b_v.

    Args:
        excluded: CSR (offsets, item ids) of items never to return, such as a user's own history; ids of no item are
            ignored.

    Returns:
        items int64 [U, k] (-1 where there are fewer), scores float32 [U, k] (-inf there) and beam slots int64 [U, k].
        Equal scores: the item found earlier by the beam first.
    """
    num_users = len(user_UE)
    excluded_offsets, excluded_items = excluded or (np.zeros(num_users + 1, np.int64), np.zeros(0, np.int64))
    result: tuple[IntArray, npt.NDArray[np.float32], IntArray] = _rerank(
        user_UE, *candidates, vector_VE, bias_V, k, excluded_offsets, excluded_items
    )
    return result


@njit(cache=True, nogil=True, fastmath=True)
def _dot(left, right):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for index in range(len(left)):
        total += left[index] * right[index]
    return total


@njit(cache=True, nogil=True)
def _rerank(  # type: ignore[no-untyped-def]
    user_UE, offsets, items, slots, vector_VE, bias_V, k, excluded_offsets, excluded_items
):
    num_users = len(offsets) - 1
    best_items = np.full((num_users, k), -1, np.int64)
    best_scores = np.full((num_users, k), -np.inf, np.float32)
    best_slots = np.full((num_users, k), -1, np.int64)
    keys, owners = _table(np.max(np.diff(excluded_offsets)) if num_users else 0)
    for user in range(num_users):
        for position in range(excluded_offsets[user], excluded_offsets[user + 1]):
            where = _slot(keys, owners, user, excluded_items[position])
            keys[where], owners[where] = excluded_items[position], user
        start, end = offsets[user], offsets[user + 1]
        score = np.empty(end - start, np.float32)
        for position in range(start, end):
            item = items[position]
            if owners[_slot(keys, owners, user, item)] == user:
                score[position - start] = -np.inf
            else:
                score[position - start] = _dot(user_UE[user], vector_VE[item]) + bias_V[item]
        order = np.argsort(-score, kind="mergesort")
        for rank in range(min(k, end - start)):
            position = order[rank]
            if score[position] == -np.inf:
                break
            best_items[user, rank] = items[start + position]
            best_scores[user, rank] = score[position]
            best_slots[user, rank] = slots[start + position]
    return best_items, best_scores, best_slots
