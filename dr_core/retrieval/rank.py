"""Rankers: what orders the items of the visited paths. The dot product is a scan, compiled for one core, over vectors that
lie in the order of the index.

Deep Retrieval, section 2.2. Shape legend: U users, E user dimension, V items, B beam, R rows of the index (an item has one
on each of its paths), k items returned.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt
from numba import njit

from dr_core.arrays import AnyIntArray, FloatArray, Int8Array, IntArray
from dr_core.item_lists import ItemLists
from dr_core.paths.index import PathIndex
from dr_core.retrieval.candidates import _slot, _table, gather_candidates
from dr_core.retrieval.filter import Allowed
from dr_core.retrieval.router import WHOLE

_BINS = 1024
_ROW = (1 << 40) - 1
"""The bits of a key that hold a row; above them is the place in the beam."""


class Ranked(NamedTuple):
    """The best items of each user's paths, best first."""

    item_Uk: IntArray
    """int64 item ids, -1 where there are fewer than k."""
    score_Uk: FloatArray
    """-inf where there is no item."""
    slot_Uk: IntArray
    """int64, place in the beam of the most probable path that holds the item; -1 where there is none."""
    num_candidates_U: IntArray
    """int64, distinct items on the paths, excluded ones among them."""


class Ranker(Protocol):
    """Anything that orders the items of the paths that a user visits."""

    def rank(
        self, user_UE: FloatArray, path_UB: IntArray, k: int, excluded: ItemLists, items_UB: IntArray | None = None
    ) -> Ranked:
        """Return each user's k best items on the paths (int64 path ids, most probable first, -1 for none) that are not
        among the ``excluded``; of a path the first ``items_UB``, by default all. Equal scores: the item found earlier by the
        beam first."""

    def only(self, allowed: Allowed) -> Self:
        """Return the ranker that knows only the allowed items."""

    def bias(self, path_id: int) -> FloatArray:
        """Return what the items of a path score for a user of whom nothing is known, in the order of the index."""

    def multiply_adds(self, candidates: float) -> float:
        """Count the multiply-adds of ranking so many candidates of one user."""


class ScanRows(NamedTuple):
    """What a scan reads, in the order of the index: each vector in eight bits a dimension."""

    code_RE: Int8Array
    step_R: FloatArray
    """float32, what one step of a code is worth."""
    bias_R: FloatArray

    @classmethod
    def of(cls, index: PathIndex, vector_VE: FloatArray, bias_V: FloatArray) -> ScanRows:
        """Shorten the items' vectors and lay them out path by path."""
        step_V = np.maximum(np.abs(vector_VE).max(axis=1, initial=0), np.float32(1e-30)) / np.float32(127)
        code_VE = np.rint(vector_VE / step_V[:, None]).astype(np.int8)
        return cls(code_VE[index.item_ids], step_V[index.item_ids], bias_V[index.item_ids])


class DotProductRanker:
    """Scores <x, e_v> + b_v.

    A scan reads a path's items in one go and is bound by memory: it scores the short vectors, knows how far each of these
    scores can be off, and reads the float32 vectors only of items that may still be among the k best. So the answer is
    that of the exact scores.

    Args:
        index: whose paths are visited.
        vector_QE: float32, each once; the closer those of one path lie together, the faster they are read
            (:func:`in_order_of_use`).
        rows: the same vectors in the order of the index.
        most_repeats: the most paths that one item lies on.
        place_R: int32, which of the vectors each row of the index has; without entries: the one of the same number.
    """

    def __init__(
        self,
        index: PathIndex,
        vector_QE: FloatArray,
        rows: ScanRows,
        most_repeats: int,
        place_R: AnyIntArray | None = None,
    ) -> None:
        self.index, self.vector_QE, self.rows, self.most_repeats = index, vector_QE, rows, most_repeats
        self.place_R = np.zeros(0, np.int32) if place_R is None else place_R

    @classmethod
    def of(cls, index: PathIndex, vector_VE: FloatArray, bias_V: FloatArray) -> Self:
        """Return the ranker of items whose vectors [V, E] and biases [V] are in memory."""
        used_Q, place_R = in_order_of_use(index.item_ids)
        return cls(index, vector_VE[used_Q], ScanRows.of(index, vector_VE, bias_V), most_repeats(index), place_R)

    def rank(
        self, user_UE: FloatArray, path_UB: IntArray, k: int, excluded: ItemLists, items_UB: IntArray | None = None
    ) -> Ranked:
        """Return what :class:`Ranker` says; the cost grows with the items on the paths, not with V."""
        shape = (len(user_UE), k)
        items, slots = np.full(shape, -1, dtype=np.int64), np.full(shape, -1, dtype=np.int64)
        scores = np.full(shape, -np.inf, dtype=np.float32)
        if items_UB is None:
            items_UB = np.full(path_UB.shape, WHOLE)
        start_UB, end_UB, count_U = _ranges(path_UB, items_UB, self.index.path_ids, self.index.offsets)
        _scan(
            np.ascontiguousarray(user_UE), start_UB, end_UB, self.index.item_ids, *self.rows, self.vector_QE, self.place_R,
            self.most_repeats, *excluded, int(count_U.max(initial=0)), items, scores, slots,
        )  # fmt: skip
        if self.most_repeats > 1:
            count_U = np.diff(gather_candidates(path_UB, *self.index.arrays, items_UB).offsets)
        return Ranked(items, scores, slots, count_U)

    def only(self, allowed: Allowed) -> DotProductRanker:
        """Return the ranker over the allowed items' rows."""
        is_kept_R = allowed.rows(self.index)
        code_RE, step_R, bias_R = self.rows
        rows = ScanRows(code_RE[is_kept_R], step_R[is_kept_R], bias_R[is_kept_R])
        place_R = self.place_R[is_kept_R] if len(self.place_R) else np.flatnonzero(is_kept_R)
        return DotProductRanker(
            allowed.on(self.index), self.vector_QE, rows, self.most_repeats, place_R.astype(np.int32)
        )

    def bias(self, path_id: int) -> FloatArray:
        """Return b_v of the items of a path."""
        start, end = self.index.lookup(path_id)
        return self.rows.bias_R[int(start) : int(end)]

    def multiply_adds(self, candidates: float) -> float:
        """Count E a candidate: the short vectors are as long as the others."""
        return candidates * self.vector_QE.shape[1]


def in_order_of_use(vector_R: AnyIntArray) -> tuple[AnyIntArray, npt.NDArray[np.int32]]:
    """Order vectors as the rows of an index need them first.

    Args:
        vector_R: the vector of each row, in any numbering.

    Returns:
        The numbers of the vectors in that order, each once; and, int32 [R], which of these each row has, without entries
        where every row has one of its own.
    """
    number_Q, first_Q, place_R = np.unique(vector_R, return_index=True, return_inverse=True)
    order_Q = np.argsort(first_Q)
    if len(number_Q) == len(vector_R):
        return vector_R, np.zeros(0, np.int32)
    rank_Q = np.empty(len(order_Q), np.int32)
    rank_Q[order_Q] = np.arange(len(order_Q), dtype=np.int32)
    return number_Q[order_Q], rank_Q[place_R]


def most_repeats(index: PathIndex) -> int:
    """Return the most paths that one item of an index lies on."""
    return int(np.bincount(index.item_ids, minlength=1).max())


@njit(cache=True, nogil=True)
def _ranges(path_UB, items_UB, path_ids, offsets):  # type: ignore[no-untyped-def]
    """Return where each path's rows start and end, and how many each user has; none for a path of -1 or without items."""
    num_users, beam = path_UB.shape
    start_UB, end_UB = np.zeros((num_users, beam), np.int64), np.zeros((num_users, beam), np.int64)
    count_U = np.zeros(num_users, np.int64)
    for user in range(num_users):
        for slot in range(beam):
            path = path_UB[user, slot]
            if path < 0:
                continue
            place = np.searchsorted(path_ids, path)
            if place < len(path_ids) and path_ids[place] == path:
                start_UB[user, slot] = offsets[place]
                end_UB[user, slot] = offsets[place] + min(offsets[place + 1] - offsets[place], items_UB[user, slot])
                count_U[user] += end_UB[user, slot] - start_UB[user, slot]
    return start_UB, end_UB, count_U


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
    user_UE, start_UB, end_UB, item_ids, code_RE, step_R, bias_R, vector_QE, place_R, most_repeats, excluded_offsets,
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
    found, scores, first = np.empty(most_rows, np.int64), np.empty(most_rows, np.float32), np.empty(beam + 1, np.int64)
    for user in range(num_users):
        state = user_UE[user]
        half = np.float32(0)  # half a step a dimension, and what a float32 sum may lose
        for value in state:
            half += abs(value) * np.float32(0.5001 + 127 * 1.2e-7 * len(state))
        first[0] = 0
        for slot in range(beam):
            start, end = start_UB[user, slot], end_UB[user, slot]
            first[slot + 1] = first[slot] + end - start
            its_rows = slice(first[slot], first[slot + 1])
            _bound(state, start, end, code_RE, step_R, bias_R, half, lows[its_rows], highs[its_rows])
        excluded = excluded_items[excluded_offsets[user] : excluded_offsets[user + 1]]
        wanted = (k + len(excluded)) * most_repeats  # rows enough for k items that are not excluded
        num_rows = first[beam]
        count = _possible(lows[:num_rows], highs[:num_rows], wanted, histogram, places)

        is_barring = most_repeats > 1 or len(excluded) > 0
        for item in excluded:
            where = _slot(keys, owners, user, np.int64(item))
            keys[where], owners[where] = item, user
        size, slot = 0, 0
        for place in places[:count]:
            while first[slot + 1] <= place:
                slot += 1
            row = start_UB[user, slot] + place - first[slot]
            if is_barring:
                where = _slot(keys, owners, user, np.int64(item_ids[row]))
                if owners[where] == user:
                    continue
                if most_repeats > 1:
                    keys[where], owners[where] = item_ids[row], user
            found[size] = (np.int64(slot) << 40) | row
            size += 1
        # A loop without branches: the processor waits for several of these vectors at a time.
        for rank in range(size):
            row = found[rank] & _ROW
            scores[rank] = _dot(state, vector_QE[place_R[row] if len(place_R) else row]) + bias_R[row]
        order = np.argsort(-scores[:size], kind="mergesort")  # keeps what is found first before its equals
        for rank in range(min(size, k)):
            key = found[order[rank]]
            item_Uk[user, rank], slot_Uk[user, rank] = item_ids[key & _ROW], key >> 40
            score_Uk[user, rank] = scores[order[rank]]
