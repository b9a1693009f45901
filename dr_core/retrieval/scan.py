"""The scan of the visited paths' items, compiled for one core: vectors lie in the order of the index.

Deep Retrieval, section 2.2. Shape legend: U users, E user dimension, B beam, R rows of the index (an item has one on each
of its paths), k items returned.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from dr_core.model._heap import rise, sink, unwind
from dr_core.paths.index import PathIndex
from dr_core.retrieval.candidates import _slot, _table

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


class PathOrderedItems:
    """The reranker's items in the order of the index, each vector once more in eight bits a dimension.

    A scan reads a path's items in one go and is bound by memory: it scores the short vectors, knows how far each of these
    scores can be off, and reads the float32 vectors only of items that may still be among the k best. So the answer is
    that of the exact scores.

    Attributes:
        has_repeats: some item lies on several paths.
    """

    def __init__(self, index: PathIndex, vector_VE: FloatArray, bias_V: FloatArray) -> None:
        self.index = index
        self.vector_VE, self.bias_V = np.ascontiguousarray(vector_VE), np.ascontiguousarray(bias_V)
        step_V = np.maximum(np.abs(vector_VE).max(axis=1, initial=0), np.float32(1e-30)) / np.float32(127)
        code_VE = np.rint(vector_VE / step_V[:, None]).astype(np.int8)
        self.code_RE, self.step_R, self.bias_R = code_VE[index.item_ids], step_V[index.item_ids], bias_V[index.item_ids]
        self.has_repeats = bool(len(index.item_ids)) and int(np.bincount(index.item_ids).max()) > 1

    def best(
        self, user_UE: FloatArray, path_UB: IntArray, k: int, excluded: tuple[IntArray, IntArray]
    ) -> tuple[IntArray, FloatArray, IntArray, IntArray]:
        """Return each user's k best items on the paths by <x, e_v> + b_v.

        Args:
            path_UB: int64 path ids, most probable first.
            excluded: CSR (offsets, item ids) of items never to return.

        Returns:
            Items int64 [U, k] (-1 where there are fewer), scores float32 [U, k] (-inf there), beam slots int64 [U, k] of
            the most probable path that holds the item, and rows scanned int64 [U]. Equal scores: the item found earlier
            by the beam first.
        """
        shape = (len(user_UE), k)
        items, slots = np.full(shape, -1, dtype=np.int64), np.full(shape, -1, dtype=np.int64)
        scores = np.full(shape, -np.inf, dtype=np.float32)
        start_UB, end_UB = self.index.lookup(path_UB)
        scanned = (end_UB - start_UB).sum(axis=1)
        _scan(
            np.ascontiguousarray(user_UE), start_UB, end_UB, self.index.item_ids, self.code_RE, self.step_R, self.bias_R,
            self.vector_VE, self.has_repeats, *excluded, int(scanned.max(initial=0)), items, scores, slots,
        )  # fmt: skip
        return items, scores, slots, scanned


@njit(cache=True, nogil=True, fastmath=True)
def _dot(left, right):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for place in range(len(left)):
        total += left[place] * np.float32(right[place])
    return total


@njit(cache=True, nogil=True)
def _bar(keys, owners, owner, items):  # type: ignore[no-untyped-def]
    for item in items:
        where = _slot(keys, owners, owner, np.int64(item))
        keys[where], owners[where] = item, owner


@njit(cache=True, nogil=True)
def _is_barred(keys, owners, owner, item, is_noted):  # type: ignore[no-untyped-def]
    """Whether an item is in its owner's set; if not, and it is to be noted, put it there."""
    where = _slot(keys, owners, owner, item)
    if owners[where] == owner:
        return True
    if is_noted:
        keys[where], owners[where] = item, owner
    return False


@njit(cache=True, nogil=True)
def _scan(  # type: ignore[no-untyped-def]
    user_UE, start_UB, end_UB, item_ids, code_RE, step_R, bias_R, vector_VE, has_repeats, excluded_offsets,
    excluded_items, most_rows, item_Uk, score_Uk, slot_Uk,
):  # fmt: skip
    num_users, beam = start_UB.shape
    k = item_Uk.shape[1]
    most_excluded = 0
    for user in range(num_users):
        most_excluded = max(most_excluded, excluded_offsets[user + 1] - excluded_offsets[user])
    keys, owners = _table(most_excluded + (most_rows if has_repeats else 0))
    heap_keys, lows, low_keys = np.empty(k, np.int64), np.empty(k, np.float32), np.empty(k, np.int64)
    highs = np.empty(most_rows, np.float32)
    for user in range(num_users):
        state = user_UE[user]
        excluded = excluded_items[excluded_offsets[user] : excluded_offsets[user + 1]]
        is_barring = has_repeats or len(excluded) > 0
        half_length, length = np.float32(0), np.float32(0)
        for value in state:
            half_length += abs(value) * np.float32(0.5001)
            length += abs(value) * np.float32(127 * 1.2e-7 * len(state))

        owner, size, place = 2 * user, 0, 0
        _bar(keys, owners, owner, excluded)
        for slot in range(beam):
            for row in range(start_UB[user, slot], end_UB[user, slot]):
                step = step_R[row]
                about = step * _dot(state, code_RE[row]) + bias_R[row]
                # Half a step a dimension, and what float32 sums may lose.
                error = step * (half_length + length) + abs(about) * np.float32(2e-6)
                highs[place] = about + error
                place += 1
                low = about - error
                if size == k and not low > lows[0]:
                    continue
                if is_barring and _is_barred(keys, owners, owner, np.int64(item_ids[row]), has_repeats):
                    continue
                if size < k:
                    rise(lows, low_keys, size, low, row)
                    size += 1
                else:
                    sink(lows, low_keys, size, low, row)
        least = lows[0] if size == k else np.float32(-np.inf)

        owner, size, place = 2 * user + 1, 0, 0
        _bar(keys, owners, owner, excluded)
        scores = score_Uk[user]
        for slot in range(beam):
            for row in range(start_UB[user, slot], end_UB[user, slot]):
                high = highs[place]
                place += 1
                if high < least:
                    continue
                item = np.int64(item_ids[row])
                score = _dot(state, vector_VE[item]) + bias_R[row]
                if size == k and not score > scores[0]:
                    continue
                if is_barring and _is_barred(keys, owners, owner, item, has_repeats):
                    continue
                key = (np.int64(slot) << 40) | row
                if size < k:
                    rise(scores, heap_keys, size, score, key)
                    size += 1
                else:
                    sink(scores, heap_keys, size, score, key)
        unwind(scores, heap_keys, size)
        for rank in range(size):
            item_Uk[user, rank] = item_ids[heap_keys[rank] & ((np.int64(1) << 40) - 1)]
            slot_Uk[user, rank] = heap_keys[rank] >> 40
