"""The structure model compiled for one core: beam search and p(c|x) with no Python between layers or users.

Deep Retrieval, Algorithm 1 and equation 1. The tensors of :mod:`dr_core.model.path_structure` give the same values and learn;
this is what serves and what accumulates scores. Users go through a layer some at a time: one matrix product gives the
logits of all their prefixes, [K, R], and every loop after it runs along R, which the compiler vectorises.

Shape legend: U users, E user dimension, H hidden, K nodes, D layers, B beam, M given paths a user, R rows: the prefixes of
some users, filled up to a multiple of eight; T = 2 H, scales and shifts; W layers that are MLPs, D or D - 1; Q prefixes of
D - 1 nodes where the last layer has path vectors, else 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from dr_core.arrays import FloatArray, IntArray
from dr_core.paths.index import PathIndex
from dr_core.paths.space import PathSpace
from dr_core.retrieval._compiled import BIAS, EXPONENT, LOG2_E, LOWEST, keep_best, mantissa
from dr_core.retrieval.filter import open_prefixes
from dr_core.retrieval.router import WHOLE, Price, Visits, Width

USERS_AT_ONCE = 16
_LANES = 8
_ROUNDING = np.float32(1e-4)
"""What a limit is lowered by, so that no rounding of sums in another order loses a path."""


class StructureTables(NamedTuple):
    """A structure model's weights as the kernel reads them, float32 throughout and contiguous."""

    user_map_WEH: FloatArray
    user_bias_WH: FloatArray
    table_WWKT: FloatArray
    """What node c_l adds to the scales and the shifts of layer d, at [d, l]; the scales' start at 1 is in the last."""
    output_WKH: FloatArray
    bias_WK: FloatArray
    path_vector_QKE: FloatArray
    """Without rows where the last layer is an MLP."""
    path_bias_QK: FloatArray


class CompiledStructure:
    """A structure model laid out for :meth:`search` and :meth:`log_prob`.

    Args:
        tables: the weights, from :func:`dr_core.retrieval.from_model.structure_tables`.
        log_size_P: float32 [K^D], ln |c| of every path; :meth:`search` then ranks paths by p(c|x) / |c|.
        prefixes: of :func:`dr_core.retrieval.filter.open_prefixes`; :meth:`search` then visits nothing else.
    """

    def __init__(
        self,
        tables: StructureTables,
        log_size_P: FloatArray | None = None,
        prefixes: tuple[IntArray, IntArray] | None = None,
    ) -> None:
        self.tables = tables
        num_mlps, nodes = tables.bias_WK.shape
        self.space = PathSpace.even(nodes, num_mlps + (len(tables.path_bias_QK) > 0))
        self.log_size_P = np.zeros(0, np.float32) if log_size_P is None else log_size_P
        by_prefix_QK = self.log_size_P.reshape(-1, nodes)
        self.lowest_Q, self.highest_Q = by_prefix_QK.min(1), by_prefix_QK.max(1)
        self.prefixes = prefixes or (np.zeros(0, np.int64), np.zeros(0, np.int64))

    def within(self, index: PathIndex) -> CompiledStructure:
        """Return the same structure over the paths of an index, by their sizes; no prefix of nothing else is kept."""
        log_size_P = index.log_sizes(self.space.num_paths) if len(self.log_size_P) else None
        return CompiledStructure(self.tables, log_size_P, open_prefixes(index, self.space))

    @property
    def num_groups(self) -> int:
        """Return how many paths can be visited: the open ones, or all."""
        offsets = self.prefixes[0]
        return int(offsets[-1] - offsets[-2]) if len(offsets) else self.space.num_paths

    def visit(self, user_UE: FloatArray, width: Width) -> Visits:
        """Return the paths of :meth:`search`, -1 where fewer hold an item.

        Raises:
            ValueError: the width is a price: layers that are normalised one by one are searched by a beam.
        """
        if isinstance(width, Price):
            raise ValueError("a product of layers is searched by a beam, not by a price (structure.normaliser: layers)")
        path_UB, log_prob_UB = self.search(user_UE, width)
        if len(self.prefixes[0]):
            path_UB[np.isneginf(log_prob_UB)] = -1
        work_U = np.full(len(user_UE), self.multiply_adds(width), np.int64)
        return Visits(path_UB, log_prob_UB, work_U, np.where(path_UB >= 0, WHOLE, 0))

    def search(self, user_UE: FloatArray, beam: int) -> tuple[IntArray, FloatArray]:
        """Return the paths that Algorithm 1 keeps for each user, and their log p(c|x), [U, min(B, K^D)].

        With sizes, the last layer keeps and orders paths by p(c|x) / |c|, the probability of one of their items: of all
        choices of paths that hold C items, the first ones in this order hold the most probability (Dantzig 1957, the
        fractional knapsack). Prefixes above it are kept by p alone, as without. Where only some prefixes are open and
        fewer than B paths, the last have log p(c|x) = -inf.

        Raises:
            ValueError: ``beam`` < 1.
        """
        if beam < 1:
            raise ValueError(f"beam must be at least 1, was {beam}")
        width = min(beam, self.space.num_paths)
        paths = np.empty((len(user_UE), width), dtype=np.int64)
        log_probs = np.empty((len(user_UE), width), dtype=np.float32)
        tables = self.tables
        _search(
            user_UE, self._user_parts(user_UE), tables.table_WWKT, tables.output_WKH, tables.bias_WK,
            (tables.path_vector_QKE, tables.path_bias_QK), (self.log_size_P, self.lowest_Q, self.highest_Q),
            self.prefixes, self.space.num_layers, paths, log_probs,
        )  # fmt: skip
        if len(self.log_size_P):
            log_probs += self.log_size_P[paths]
        return paths, log_probs

    def log_prob(self, user_UE: FloatArray, path_UM: IntArray) -> FloatArray:
        """Return log p(c|x) of given paths, float32 [U, M]; -inf for a path of -1."""
        log_probs = np.zeros(path_UM.shape, dtype=np.float32)
        tables = self.tables
        _log_prob(
            user_UE, self._user_parts(user_UE), tables.table_WWKT, tables.output_WKH, tables.bias_WK,
            (tables.path_vector_QKE, tables.path_bias_QK), self.space.num_layers, np.maximum(path_UM, 0), log_probs,
        )  # fmt: skip
        log_probs[path_UM < 0] = -np.inf
        return log_probs

    def multiply_adds(self, width: int) -> int:
        """Count the multiply-adds of one user's beam search: user parts, then H*K a kept prefix and layer, and H for its
        scales, or E*K in a last layer of path vectors."""
        num_mlps, user_dim, hidden = self.tables.user_map_WEH.shape
        nodes, kept, total = self.space.num_nodes, 1, 0
        for layer in range(self.space.num_layers):
            if layer < num_mlps:
                total += user_dim * hidden + kept * hidden * (nodes + (layer > 0))
            else:
                total += kept * user_dim * nodes
            kept = min(width, kept * nodes)
        return total

    def _user_parts(self, user_UE: FloatArray) -> FloatArray:
        """Return what a user adds to each MLP's hidden units, [W, U, H]."""
        num_mlps, _, hidden = self.tables.user_map_WEH.shape
        part_WUH = np.empty((num_mlps, len(user_UE), hidden), dtype=np.float32)
        for part_UH, weight, bias in zip(part_WUH, self.tables.user_map_WEH, self.tables.user_bias_WH, strict=True):
            np.matmul(user_UE, weight, out=part_UH)
            part_UH += bias
        return part_WUH


@njit(cache=True, nogil=True)
def _fill_logits(user_UE, user_R, prefix_R, vectors, logit_KR, work):  # type: ignore[no-untyped-def]
    """Write <x, w_c> + b_c for all nodes under each row's prefix, some rows of one prefix at a time.

    Always as many, the rest of them of no use: how a sum is rounded must not depend on who else has the same prefix.
    """
    vector_QKE, bias_QK = vectors
    gathered_RE, product_RK = work
    count, num_nodes = len(prefix_R), logit_KR.shape[0]
    logit_KR[:, count:] = np.float32(0)
    order_R = np.argsort(prefix_R)
    first = 0
    while first < count:
        prefix, last = prefix_R[order_R[first]], first
        while last < min(count, first + len(gathered_RE)) and prefix_R[order_R[last]] == prefix:
            gathered_RE[last - first] = user_UE[user_R[order_R[last]]]
            last += 1
        np.dot(gathered_RE, vector_QKE[prefix].T, product_RK)
        for row in range(last - first):
            place = order_R[first + row]
            for node in range(num_nodes):
                logit_KR[node, place] = product_RK[row, node] + bias_QK[prefix, node]
        first = last


@njit(cache=True, nogil=True)
def _fill_hidden(part_H, table_DKT, layer, prefixes, count, hidden_RH):  # type: ignore[no-untyped-def]
    """Write relu(scales * user part + shifts), both summed over the tables' rows of each prefix's nodes."""
    num_nodes, num_hidden = table_DKT.shape[1], len(part_H)
    zero = np.float32(0)
    summed = np.empty(2 * num_hidden if layer > 1 else 0, np.float32)
    for row in range(count):
        units, rest = hidden_RH[row], prefixes[row]
        if layer == 0:
            for unit in range(len(units)):
                units[unit] = max(part_H[unit], zero)
            continue
        added = table_DKT[layer - 1, rest % num_nodes]
        if layer > 1:
            summed[:] = added
            for earlier in range(layer - 2, -1, -1):
                rest //= num_nodes
                added = table_DKT[earlier, rest % num_nodes]
                for entry in range(len(summed)):
                    summed[entry] += added[entry]
            added = summed
        for unit in range(num_hidden):
            units[unit] = max(added[unit] * part_H[unit] + added[num_hidden + unit], zero)


@njit(cache=True, nogil=True, fastmath=True)
def _normalise(logit_KR, bias_K, highest_R, total_R, bits_R):  # type: ignore[no-untyped-def]
    """Add the biases; write each row's highest logit and log sum exp."""
    num_nodes, num_rows = logit_KR.shape
    power_R = bits_R.view(np.float32)
    highest_R[:] = np.float32(-3e38)
    total_R[:] = np.float32(0)
    for node in range(num_nodes):
        bias = bias_K[node]
        for row in range(num_rows):
            value = logit_KR[node, row] + bias
            logit_KR[node, row] = value
            highest_R[row] = value if value > highest_R[row] else highest_R[row]
    for node in range(num_nodes):
        for row in range(num_rows):
            power = (logit_KR[node, row] - highest_R[row]) * LOG2_E
            power = power if power > LOWEST else LOWEST
            whole = np.floor(power)
            rest = power - whole
            bits_R[row] = np.int32(whole * EXPONENT + BIAS)
            total_R[row] += mantissa(rest) * power_R[row]
    for row in range(num_rows):
        total_R[row] = highest_R[row] + np.log(total_R[row])


@njit(cache=True, nogil=True)
def _holds(values, value):  # type: ignore[no-untyped-def]
    """Whether ascending values hold one."""
    place = np.searchsorted(values, value)
    return place < len(values) and values[place] == value


@njit(cache=True, nogil=True)
def _extend(  # type: ignore[no-untyped-def]
    logit_KR,
    highest_R,
    total_R,
    users,
    kept,
    prefix_UB,
    prefix_score_UB,
    sizes,
    is_pruned,
    opened,
    work,
    path_UB,
    score_UB,
):
    """Write the best successors of every user's prefixes, best first; return how many.

    Where prefixes are pruned, only those among ``opened`` are successors; a user who has fewer gets -inf in the others'
    places, and nothing follows from those.

    With as many prefixes as places, the B-th best is at least the lowest of the prefixes' own best successors: the few
    that reach this limit are found by comparing a node's logits of all rows at once. Where sizes count, the limit and
    the comparison allow for the longest and the shortest path of a prefix.
    """
    log_size_P, lowest_Q, highest_Q = sizes
    is_sized = len(log_size_P) > 0
    base_R, limit_R, flag_R, user_R, hit_score_UN, hit_path_UN = work
    num_nodes, num_rows = logit_KR.shape
    base_R[:], limit_R[:] = np.float32(-np.inf), np.float32(np.inf)
    for user in range(users):
        first = user * kept
        for row in range(first, first + kept):
            base_R[row] = prefix_score_UB[user, row - first] - total_R[row]
        lowest = np.float32(np.inf if kept == path_UB.shape[1] else -np.inf)
        for row in range(first, first + kept):
            longest = highest_Q[prefix_UB[user, row - first]] if is_sized else np.float32(0)
            lowest = min(lowest, base_R[row] + highest_R[row] - longest)
        if is_pruned:  # the best successor of a prefix may be a closed one
            lowest = np.float32(-np.inf)
        limit_R[first : first + kept], user_R[first : first + kept] = lowest, user
        if is_sized:
            for row in range(first, first + kept):
                limit_R[row] += lowest_Q[prefix_UB[user, row - first]] - _ROUNDING
    num_hits_U = np.zeros(users, np.int64)
    words = flag_R.view(np.uint64)
    for node in range(num_nodes):
        logit_R = logit_KR[node]
        for row in range(num_rows):
            flag_R[row] = base_R[row] + logit_R[row] >= limit_R[row]
        for word in range(num_rows // _LANES):
            if words[word]:
                for row in range(word * _LANES, (word + 1) * _LANES):
                    if flag_R[row]:
                        user = user_R[row]
                        hit = num_hits_U[user]
                        path = prefix_UB[user, row - user * kept] * num_nodes + node
                        if is_pruned and (base_R[row] == -np.inf or not _holds(opened, path)):
                            continue
                        own_size = log_size_P[path] if is_sized else np.float32(0)
                        hit_score_UN[user, hit] = base_R[row] + logit_R[row] - own_size
                        hit_path_UN[user, hit] = path
                        num_hits_U[user] = hit + 1
    width = min(kept * num_nodes, path_UB.shape[1])
    for user in range(users):
        hits = num_hits_U[user]
        size = keep_best(hit_score_UN[user, :hits], hit_path_UN[user, :hits], path_UB[user], score_UB[user])
        # Unless some are closed, only a user whose logits are not numbers has fewer.
        path_UB[user, size:width], score_UB[user, size:width] = 0, np.float32(-np.inf)
    return width


@njit(cache=True, nogil=True)
def _rows(count):  # type: ignore[no-untyped-def]
    return (count + _LANES - 1) // _LANES * _LANES


@njit(cache=True, nogil=True)
def _search(  # type: ignore[no-untyped-def]
    user_UE, part_WUH, table_WWKT, output_WKH, bias_WK, vectors, sizes, prefixes_open, num_layers, path_UB, log_prob_UB
):
    num_mlps, num_users, num_hidden = part_WUH.shape
    num_nodes, beam = bias_WK.shape[1], path_UB.shape[1]
    most_rows = USERS_AT_ONCE * _rows(beam)
    hidden = np.zeros((most_rows, num_hidden), np.float32)
    logits = np.empty(most_rows * num_nodes, np.float32)
    highest, total = np.empty(most_rows, np.float32), np.empty(most_rows, np.float32)
    base, limit = np.empty(most_rows, np.float32), np.empty(most_rows, np.float32)
    bits, flags = np.empty(most_rows, np.int32), np.empty(most_rows, np.uint8)
    users_of, prefixes_of = np.empty(most_rows, np.int64), np.empty(most_rows, np.int64)
    no_bias = np.zeros(num_nodes, np.float32)
    work = (np.zeros((_LANES, user_UE.shape[1]), np.float32), np.empty((_LANES, num_nodes), np.float32))
    owners = np.empty(most_rows, np.int64)
    hit_scores = np.empty((USERS_AT_ONCE, beam * num_nodes), np.float32)
    hit_paths = np.empty((USERS_AT_ONCE, beam * num_nodes), np.int64)
    prefixes, scores = np.zeros((USERS_AT_ONCE, beam), np.int64), np.zeros((USERS_AT_ONCE, beam), np.float32)
    no_sizes = (sizes[0][:0], sizes[1][:0], sizes[2][:0])
    open_offsets, open_prefixes_of = prefixes_open
    is_pruned = len(open_offsets) > 0
    for start in range(0, num_users, USERS_AT_ONCE):
        users = min(USERS_AT_ONCE, num_users - start)
        prefixes[:, 0], scores[:, 0] = 0, np.float32(0)
        kept = 1
        for layer in range(num_layers):
            rows = _rows(users * kept)
            logit_KR = logits[: rows * num_nodes].reshape(num_nodes, rows)
            if layer < num_mlps:
                for user in range(users):
                    _fill_hidden(
                        part_WUH[layer, start + user], table_WWKT[layer], layer, prefixes[user], kept,
                        hidden[user * kept :],
                    )  # fmt: skip
                np.dot(output_WKH[layer], hidden[:rows].T, logit_KR)
            else:
                for user in range(users):
                    for place in range(kept):
                        users_of[user * kept + place] = start + user
                        prefixes_of[user * kept + place] = prefixes[user, place]
                count = users * kept
                _fill_logits(user_UE, users_of[:count], prefixes_of[:count], vectors, logit_KR, work)
            bias_K = bias_WK[layer] if layer < num_mlps else no_bias
            _normalise(logit_KR, bias_K, highest[:rows], total[:rows], bits[:rows])
            paths_found, scores_found = path_UB[start : start + users], log_prob_UB[start : start + users]
            opened = open_prefixes_of[open_offsets[layer] : open_offsets[layer + 1]] if is_pruned else open_prefixes_of
            size = _extend(
                logit_KR, highest, total, users, kept, prefixes, scores, sizes if layer == num_layers - 1 else no_sizes,
                is_pruned, opened, (base[:rows], limit[:rows], flags[:rows], owners, hit_scores, hit_paths), paths_found, scores_found,
            )  # fmt: skip
            prefixes[:users, :size], scores[:users, :size] = paths_found[:, :size], scores_found[:, :size]
            kept = size


@njit(cache=True, nogil=True)
def _log_prob(  # type: ignore[no-untyped-def]
    user_UE, part_WUH, table_WWKT, output_WKH, bias_WK, vectors, num_layers, path_UM, log_prob_UM
):
    num_mlps, num_users, num_hidden = part_WUH.shape
    num_nodes, num_paths = bias_WK.shape[1], path_UM.shape[1]
    most_rows = _rows(USERS_AT_ONCE * num_paths)
    hidden = np.zeros((most_rows, num_hidden), np.float32)
    logits = np.empty(most_rows * num_nodes, np.float32)
    highest, total = np.empty(most_rows, np.float32), np.empty(most_rows, np.float32)
    bits, row_of = np.empty(most_rows, np.int32), np.empty((USERS_AT_ONCE, num_paths), np.int64)
    prefixes = np.empty(num_paths, np.int64)
    users_of, prefixes_of = np.empty(most_rows, np.int64), np.empty(most_rows, np.int64)
    no_bias = np.zeros(num_nodes, np.float32)
    work = (np.zeros((_LANES, user_UE.shape[1]), np.float32), np.empty((_LANES, num_nodes), np.float32))
    for start in range(0, num_users, USERS_AT_ONCE):
        users = min(USERS_AT_ONCE, num_users - start)
        after = num_nodes**num_layers
        for layer in range(num_layers):
            filled = 0
            for user in range(users):
                distinct = 0
                for place in range(num_paths):
                    prefix = path_UM[start + user, place] // after
                    known = 0
                    while known < distinct and prefixes[known] != prefix:
                        known += 1
                    if known == distinct:
                        prefixes[distinct] = prefix
                        distinct += 1
                    row_of[user, place] = filled + known
                if layer < num_mlps:
                    _fill_hidden(
                        part_WUH[layer, start + user], table_WWKT[layer], layer, prefixes, distinct, hidden[filled:]
                    )
                users_of[filled : filled + distinct] = start + user
                prefixes_of[filled : filled + distinct] = prefixes[:distinct]
                filled += distinct
            rows = _rows(filled)
            logit_KR = logits[: rows * num_nodes].reshape(num_nodes, rows)
            if layer < num_mlps:
                np.dot(output_WKH[layer], hidden[:rows].T, logit_KR)
            else:
                _fill_logits(user_UE, users_of[:filled], prefixes_of[:filled], vectors, logit_KR, work)
            bias_K = bias_WK[layer] if layer < num_mlps else no_bias
            _normalise(logit_KR, bias_K, highest[:rows], total[:rows], bits[:rows])
            after //= num_nodes
            for user in range(users):
                for place in range(num_paths):
                    node, row = path_UM[start + user, place] // after % num_nodes, row_of[user, place]
                    log_prob_UM[start + user, place] += logit_KR[node, row] - total[row]
