"""Beam search and the scan of its paths compiled for one core, with no Python between layers or users.

Deep Retrieval, Algorithm 1 and section 2.2. Shape legend: U users, E user dimension, H hidden, K nodes, D layers, B beam,
R rows of the index (an item has one on each of its paths), k items returned.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import nn

from dr_core.model.structure import StructureModel
from dr_core.paths.index import PathIndex
from dr_core.retrieval.candidates import _slot, _table

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_LOG2_E = np.float32(1.4426950408889634)
_FIT = np.polynomial.Chebyshev.interpolate(np.exp2, 5, domain=[0, 1])  # type: ignore[no-untyped-call]
_EXP2 = _FIT.convert(kind=np.polynomial.Polynomial).coef.astype(np.float32)
"""Coefficients of 2^f for f in [0, 1], relative error below 3e-7."""
_LOWEST = -120
_POWERS = np.exp2(np.arange(_LOWEST, 1)).astype(np.float32)


class CompiledBeam:
    """The structure model's weights, laid out for :meth:`search`."""

    def __init__(self, structure: StructureModel) -> None:
        space, hidden = structure.space, structure.config.hidden
        layers, nodes = space.num_layers, space.num_nodes
        self.num_nodes = nodes
        maps = [_linear(layer) for layer in structure.user_maps]
        outputs = [_linear(layer) for layer in structure.outputs]
        self.user_maps, self.user_biases = zip(*maps, strict=True)
        self.outputs = np.stack([weight for weight, _ in outputs])
        self.output_biases = np.stack([bias for _, bias in outputs])
        self.tables = np.zeros((layers, layers, nodes, hidden), dtype=np.float32)
        with torch.no_grad():
            for layer, tables in enumerate(structure.prefix_tables()):
                for earlier, table in enumerate(tables):
                    self.tables[layer, earlier] = table.numpy()

    def search(self, user_UE: FloatArray, beam: int) -> tuple[IntArray, FloatArray]:
        """Return what :func:`dr_core.model.beam_search.beam_search` returns: paths and log p(c|x), [U, min(B, K^D)].

        Raises:
            ValueError: ``beam`` < 1.
        """
        if beam < 1:
            raise ValueError(f"beam must be at least 1, was {beam}")
        parts = [user_UE @ weights + bias for weights, bias in zip(self.user_maps, self.user_biases, strict=True)]
        first_UK = np.maximum(parts[0], 0) @ self.outputs[0] + self.output_biases[0]
        width = min(beam, self.num_nodes ** len(parts))
        paths = np.empty((len(user_UE), width), dtype=np.int64)
        log_probs = np.empty((len(user_UE), width), dtype=np.float32)
        _search(np.stack(parts), first_UK, self.tables, self.outputs, self.output_biases, paths, log_probs)
        return paths, log_probs


def _linear(layer: nn.Module) -> tuple[FloatArray, FloatArray]:
    """Return a linear map's weight [in, out], contiguous, and its bias [out]."""
    assert isinstance(layer, nn.Linear)
    return np.ascontiguousarray(layer.weight.detach().numpy().T), layer.bias.detach().numpy()


class PathOrderedItems:
    """The reranker's item vectors in the order of the index, so that a path's items are read in one go.

    Attributes:
        has_repeats: some item lies on several paths.
    """

    def __init__(self, index: PathIndex, vector_VE: FloatArray, bias_V: FloatArray) -> None:
        self.index = index
        self.vector_RE, self.bias_R = vector_VE[index.item_ids], bias_V[index.item_ids]
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
            np.ascontiguousarray(user_UE), start_UB, end_UB, self.index.item_ids, self.vector_RE, self.bias_R,
            self.has_repeats, *excluded, items, scores, slots,
        )  # fmt: skip
        return items, scores, slots, scanned


@njit(cache=True, nogil=True, inline="always")
def _is_worse(score, key, other_score, other_key):  # type: ignore[no-untyped-def]
    """Whether the first of two (score, key) comes later: lower score, or the same with the larger key."""
    return score < other_score or (score == other_score and key > other_key)


@njit(cache=True, nogil=True)
def _sink(scores, keys, size, score, key):  # type: ignore[no-untyped-def]
    """Put an entry in the place of the heap's worst and restore the order."""
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and _is_worse(scores[child + 1], keys[child + 1], scores[child], keys[child]):
            child += 1
        if not _is_worse(scores[child], keys[child], score, key):
            break
        scores[place], keys[place] = scores[child], keys[child]
        place = child
    scores[place], keys[place] = score, key


@njit(cache=True, nogil=True)
def _rise(scores, keys, size, score, key):  # type: ignore[no-untyped-def]
    """Add an entry to a heap of ``size``."""
    place = size
    while place > 0:
        parent = (place - 1) // 2
        if not _is_worse(score, key, scores[parent], keys[parent]):
            break
        scores[place], keys[place] = scores[parent], keys[parent]
        place = parent
    scores[place], keys[place] = score, key


@njit(cache=True, nogil=True)
def _unwind(scores, keys, size):  # type: ignore[no-untyped-def]
    """Turn a heap into a list, best first."""
    while size > 1:
        size -= 1
        score, key = scores[size], keys[size]
        scores[size], keys[size] = scores[0], keys[0]
        _sink(scores, keys, size, score, key)


@njit(cache=True, nogil=True, fastmath=True)
def _log_sum_exp(logits):  # type: ignore[no-untyped-def]
    """log sum exp of a float32 row, in a loop without calls that the compiler can vectorise."""
    highest = logits[0]
    for value in logits:
        highest = max(highest, value)
    total = np.float32(0)
    for value in logits:
        power = max((value - highest) * _LOG2_E, np.float32(_LOWEST))
        whole = np.floor(power)
        rest = power - whole
        mantissa = _EXP2[5]
        for degree in (4, 3, 2, 1, 0):
            mantissa = mantissa * rest + _EXP2[degree]
        total += mantissa * _POWERS[np.int32(whole) - _LOWEST]
    return highest + np.log(total)


@njit(cache=True, nogil=True)
def _search(part_DUH, first_UK, tables, outputs, output_biases, path_UB, log_prob_UB):  # type: ignore[no-untyped-def]
    num_layers, num_users, num_hidden = part_DUH.shape
    num_nodes = first_UK.shape[1]
    beam = path_UB.shape[1]
    hidden = np.empty((beam, num_hidden), np.float32)
    logits = np.empty((beam, num_nodes), np.float32)
    prefix, prefix_score = np.empty(beam, np.int64), np.empty(beam, np.float32)
    for user in range(num_users):
        path, score = path_UB[user], log_prob_UB[user]
        prefix[0], prefix_score[0] = 0, np.float32(0)
        kept = 1
        for layer in range(num_layers):
            if layer == 0:
                logits[0] = first_UK[user]
            else:
                for row in range(kept):
                    for unit in range(num_hidden):
                        hidden[row, unit] = part_DUH[layer, user, unit]
                    rest = prefix[row]
                    for earlier in range(layer - 1, -1, -1):
                        node = rest % num_nodes
                        rest //= num_nodes
                        for unit in range(num_hidden):
                            hidden[row, unit] += tables[layer, earlier, node, unit]
                    for unit in range(num_hidden):
                        hidden[row, unit] = max(hidden[row, unit], np.float32(0))
                np.dot(hidden[:kept], outputs[layer], logits[:kept])
                for row in range(kept):
                    for node in range(num_nodes):
                        logits[row, node] += output_biases[layer, node]
            size = 0
            for row in range(kept):
                base = prefix_score[row] - _log_sum_exp(logits[row])
                first_path = prefix[row] * num_nodes
                for node in range(num_nodes):
                    value = base + logits[row, node]
                    if size < beam:
                        _rise(score, path, size, value, first_path + node)
                        size += 1
                    elif value >= score[0] and _is_worse(score[0], path[0], value, first_path + node):
                        _sink(score, path, size, value, first_path + node)
            _unwind(score, path, size)
            kept = size
            for row in range(kept):
                prefix[row], prefix_score[row] = path[row], score[row]


@njit(cache=True, nogil=True, fastmath=True)
def _dot(left, right):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for place in range(len(left)):
        total += left[place] * right[place]
    return total


@njit(cache=True, nogil=True)
def _scan(  # type: ignore[no-untyped-def]
    user_UE, start_UB, end_UB, item_ids, vector_RE, bias_R, has_repeats, excluded_offsets, excluded_items,
    item_Uk, score_Uk, slot_Uk,
):  # fmt: skip
    num_users, beam = start_UB.shape
    k = item_Uk.shape[1]
    longest = 0
    for user in range(num_users):
        keys_needed = excluded_offsets[user + 1] - excluded_offsets[user]
        if has_repeats:
            for slot in range(beam):
                keys_needed += end_UB[user, slot] - start_UB[user, slot]
        longest = max(longest, keys_needed)
    keys, owners = _table(longest)
    heap_keys = np.empty(k, np.int64)
    for user in range(num_users):
        for position in range(excluded_offsets[user], excluded_offsets[user + 1]):
            where = _slot(keys, owners, user, np.int64(excluded_items[position]))
            keys[where], owners[where] = excluded_items[position], user
        is_barring = has_repeats or excluded_offsets[user + 1] > excluded_offsets[user]
        scores = score_Uk[user]
        size = 0
        for slot in range(beam):
            for row in range(start_UB[user, slot], end_UB[user, slot]):
                score = _dot(user_UE[user], vector_RE[row]) + bias_R[row]
                if size == k and not score > scores[0]:
                    continue
                if is_barring:
                    item = np.int64(item_ids[row])
                    where = _slot(keys, owners, user, item)
                    if owners[where] == user:
                        continue
                    if has_repeats:
                        keys[where], owners[where] = item, user
                key = (np.int64(slot) << 40) | row
                if size < k:
                    _rise(scores, heap_keys, size, score, key)
                    size += 1
                else:
                    _sink(scores, heap_keys, size, score, key)
        _unwind(scores, heap_keys, size)
        for rank in range(size):
            item_Uk[user, rank] = item_ids[heap_keys[rank] & ((np.int64(1) << 40) - 1)]
            slot_Uk[user, rank] = heap_keys[rank] >> 40
