"""The scan of the visited paths' items, compiled for one core: vectors lie in the order of the index.

Deep Retrieval, section 2.2. Shape legend: U users, E user dimension, B beam, R rows of the index (an item has one on each
of its paths), k items returned.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from dr_core._heap import rise, sink, unwind
from dr_core.arrays import FloatArray, IntArray
from dr_core.paths.index import PathIndex
from dr_core.retrieval.candidates import _slot, _table

_BINS = 1024


class PathOrderedItems:
    """The reranker's items in the order of the index, each vector once more in eight bits a dimension.

    A scan reads a path's items in one go and is bound by memory: it scores the short vectors, knows how far each of these
    scores can be off, and reads the float32 vectors only of items that may still be among the k best. So the answer is
    that of the exact scores.

    Attributes:
        most_repeats: the most paths that one item lies on.
    """

    def __init__(self, index: PathIndex, vector_VE: FloatArray, bias_V: FloatArray) -> None:
        self.index = index
        self.vector_VE, self.bias_V = np.ascontiguousarray(vector_VE), np.ascontiguousarray(bias_V)
        step_V = np.maximum(np.abs(vector_VE).max(axis=1, initial=0), np.float32(1e-30)) / np.float32(127)
        code_VE = np.rint(vector_VE / step_V[:, None]).astype(np.int8)
        self.code_RE, self.step_R, self.bias_R = code_VE[index.item_ids], step_V[index.item_ids], bias_V[index.item_ids]
        self.most_repeats = int(np.bincount(index.item_ids, minlength=1).max())

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
            self.vector_VE, self.most_repeats, *excluded, int(scanned.max(initial=0)), items, scores, slots,
        )  # fmt: skip
        return items, scores, slots, scanned


@njit(cache=True, nogil=True, fastmath=True)
def _dot(left, right):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for place in range(len(left)):
        total += left[place] * np.float32(right[place])
    return total


@njit(cache=True, nogil=True, fastmath=True)
def _bound(state, start, end, code_RE, step_R, bias_R, half, lows, highs):  # type: ignore[no-untyped-def]
    """Write the least and the greatest score that each row's short vector allows."""
    for row in range(start, end):
        about = step_R[row] * _dot(state, code_RE[row]) + bias_R[row]
        error = step_R[row] * half + abs(about) * np.float32(2e-6)
        lows[row - start], highs[row - start] = about - error, about + error


@njit(cache=True, nogil=True)
def _bin(value, lowest, scale):  # type: ignore[no-untyped-def]
    return min(max(np.int64((value - lowest) * scale), 0), _BINS - 1)


@njit(cache=True, nogil=True)
def _possible(lows, highs, wanted, histogram, places):  # type: ignore[no-untyped-def]
    """Write the places whose greatest score reaches the bin of the ``wanted``-th largest least score; return how many."""
    lowest, highest = np.float32(np.inf), np.float32(-np.inf)
    for low in lows:
        lowest, highest = min(lowest, low), max(highest, low)
    scale = np.float32(_BINS) / (highest - lowest) if highest > lowest else np.float32(np.nan)
    if len(lows) <= wanted or not np.isfinite(scale):
        places[: len(lows)] = np.arange(len(lows))
        return len(lows)
    histogram[:] = 0
    for low in lows:
        histogram[_bin(low, lowest, scale)] += 1
    limit, above = _BINS, 0
    while above < wanted:
        limit -= 1
        above += histogram[limit]
    count = 0
    for place in range(len(highs)):
        places[count] = place
        count += _bin(highs[place], lowest, scale) >= limit
    return count


@njit(cache=True, nogil=True)
def _scan(  # type: ignore[no-untyped-def]
    user_UE, start_UB, end_UB, item_ids, code_RE, step_R, bias_R, vector_VE, most_repeats, excluded_offsets,
    excluded_items, most_rows, item_Uk, score_Uk, slot_Uk,
):  # fmt: skip
    num_users, beam = start_UB.shape
    k = item_Uk.shape[1]
    most_excluded = 0
    for user in range(num_users):
        most_excluded = max(most_excluded, excluded_offsets[user + 1] - excluded_offsets[user])
    keys, owners = _table(most_excluded + (most_rows if most_repeats > 1 else 0))
    lows, highs = np.empty(most_rows, np.float32), np.empty(most_rows, np.float32)
    places, histogram = np.empty(most_rows + 1, np.int64), np.empty(_BINS, np.int64)
    heap_keys, first = np.empty(k, np.int64), np.empty(beam + 1, np.int64)
    for user in range(num_users):
        state = user_UE[user]
        half = np.float32(0)  # half a step a dimension, and what a float32 sum may lose
        for value in state:
            half += abs(value) * np.float32(0.5001 + 127 * 1.2e-7 * len(state))
        first[0] = 0
        for slot in range(beam):
            start, end = start_UB[user, slot], end_UB[user, slot]
            first[slot + 1] = first[slot] + end - start
            here = slice(first[slot], first[slot + 1])
            _bound(state, start, end, code_RE, step_R, bias_R, half, lows[here], highs[here])
        excluded = excluded_items[excluded_offsets[user] : excluded_offsets[user + 1]]
        wanted = (k + len(excluded)) * most_repeats  # rows enough for k items that are not excluded
        num_rows = first[beam]
        count = _possible(lows[:num_rows], highs[:num_rows], wanted, histogram, places)

        is_barring = most_repeats > 1 or len(excluded) > 0
        for item in excluded:
            where = _slot(keys, owners, user, np.int64(item))
            keys[where], owners[where] = item, user
        scores, size, slot = score_Uk[user], 0, 0
        for place in places[:count]:
            while first[slot + 1] <= place:
                slot += 1
            row = start_UB[user, slot] + place - first[slot]
            item = np.int64(item_ids[row])
            score = _dot(state, vector_VE[item]) + bias_R[row]
            if size == k and not score > scores[0]:
                continue
            if is_barring:
                where = _slot(keys, owners, user, item)
                if owners[where] == user:
                    continue
                if most_repeats > 1:
                    keys[where], owners[where] = item, user
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
