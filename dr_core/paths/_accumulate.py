"""Compiled sum of w * p(c | x) over the events of each item; ``scores.py`` holds the public face."""

from typing import Any, TypeAlias

import numpy as np
from numba import njit
from numpy.typing import NDArray

_EMPTY = -1
_SPREAD = -7046029254386353131

_Array: TypeAlias = NDArray[Any]


@njit(cache=True)
def sum_terms_by_item(
    pair_order: _Array,
    pair_items: _Array,
    pair_weights: _Array,
    beam_paths: _Array,
    beam_probs: _Array,
    own_paths: _Array,
    own_probs: _Array,
    num_paths: int,
    unit: float,
) -> tuple[_Array, _Array, _Array, _Array]:
    """Sum fixed-point terms by (item, path) in one hash table an item, cleared after each.

    Args:
        pair_order: int64 [P], the (state, target) pairs in use, n * T + t, grouped by item ascending.
        pair_items: int [N * T].
        pair_weights: float64 [N * T].
        beam_paths: int64 [N, S], -1 = none.
        beam_probs: float64 [N, S].
        own_paths: int64 [N * T, J], -1 = none.
        own_probs: float64 [N * T, J].
        num_paths: one more than the largest path: no item needs a larger table, however many events it has.
        unit: 2^fraction bits.

    Returns:
        Rows ascending by (item, path): items int64, paths int64, sums int64, is own bool.
    """
    num_pairs = len(pair_order)
    num_targets = len(pair_items) // max(len(beam_paths), 1)
    num_beams = beam_paths.shape[1]
    num_own = own_paths.shape[1]
    terms_a_pair = num_beams + num_own
    longest, start = 0, 0
    for i in range(1, num_pairs + 1):
        if i == num_pairs or pair_items[pair_order[i]] != pair_items[pair_order[start]]:
            longest, start = max(longest, i - start), i
    table_size = 4
    while table_size < 2 * min(longest * terms_a_pair, num_paths):
        table_size *= 2
    keys = np.full(table_size, _EMPTY, dtype=np.int64)
    rows = np.empty(table_size, dtype=np.int64)
    used_slots = np.empty(table_size // 2, dtype=np.int64)

    capacity = num_pairs * terms_a_pair
    out_items = np.empty(capacity, dtype=np.int64)
    out_paths = np.empty(capacity, dtype=np.int64)
    out_sums = np.empty(capacity, dtype=np.int64)
    out_own = np.empty(capacity, dtype=np.bool_)
    filled = 0
    start = 0
    while start < num_pairs:
        item = pair_items[pair_order[start]]
        end = start + 1
        while end < num_pairs and pair_items[pair_order[end]] == item:
            end += 1
        mask = np.int64(4)
        while mask < 2 * min((end - start) * terms_a_pair, num_paths):
            mask *= 2
        mask -= 1
        item_start = filled
        for i in range(start, end):
            pair = pair_order[i]
            state = pair // num_targets
            weight = pair_weights[pair]
            for term in range(terms_a_pair):
                is_own = term < num_own
                if is_own:
                    path, probability = own_paths[pair, term], own_probs[pair, term]
                else:
                    path, probability = beam_paths[state, term - num_own], beam_probs[state, term - num_own]
                if path < 0:
                    continue
                seen = False
                for earlier in range(min(term, num_own)):
                    seen = seen or own_paths[pair, earlier] == path
                if seen:
                    continue
                spread = np.int64(path * _SPREAD)
                slot = (spread ^ (spread >> 32)) & mask
                while keys[slot] != _EMPTY and keys[slot] != path:
                    slot = (slot + 1) & mask
                if keys[slot] == _EMPTY:
                    keys[slot] = path
                    rows[slot] = filled
                    used_slots[filled - item_start] = slot
                    out_items[filled] = item
                    out_paths[filled] = path
                    out_sums[filled] = 0
                    out_own[filled] = False
                    filled += 1
                row = rows[slot]
                out_sums[row] += np.int64(np.rint(weight * probability * unit))
                out_own[row] = out_own[row] or is_own
        for i in range(filled - item_start):
            keys[used_slots[i]] = _EMPTY
        order = np.argsort(out_paths[item_start:filled]) + item_start
        out_paths[item_start:filled] = out_paths[order]
        out_sums[item_start:filled] = out_sums[order]
        out_own[item_start:filled] = out_own[order]
        start = end
    return out_items[:filled].copy(), out_paths[:filled].copy(), out_sums[:filled].copy(), out_own[:filled].copy()
