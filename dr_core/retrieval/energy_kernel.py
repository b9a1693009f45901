"""Path energies compiled for one core: search by price or by beam, with no Python between layers or users.

The tensors of :mod:`dr_core.model.energy_structure` give the same values and learn; this is what serves and what accumulates
scores. A layer's energies lie prefix by prefix, the children of one prefix side by side, so that a state is multiplied
with one small table for every prefix that it opens.

Shape legend: U users, E user dimension, D layers, Q prefixes above a layer, K children of a prefix in it, P paths, R rows
of an index, M given paths a user, B paths visited by the user who visits most.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
from numba import njit

from dr_core.arrays import FloatArray, IntArray
from dr_core.paths.index import PathIndex
from dr_core.paths.space import PathSpace
from dr_core.retrieval._compiled import BIAS, EXPONENT, LOG2_E, LOWEST, keep_best, mantissa
from dr_core.retrieval.router import Price, Visits, Width
from dr_core.retrieval.shares import log_shares

USERS_AT_ONCE = 128
EXACT_PATHS = 131_072
"""Most paths that are all summed in Z where nobody says otherwise."""
_ALL = np.iinfo(np.int64).max
_OPENED = 64
_DEPTH = 4
"""Deeper structures have a search compiled for their depth alone."""


class EnergyLayers(NamedTuple):
    """The energies of every layer as the kernel reads them, float32 and contiguous, first layer first."""

    vectors: tuple[FloatArray, ...]
    """[Q, E, K] each."""
    biases: tuple[FloatArray, ...]
    """[Q, K] each."""

    @property
    def space(self) -> PathSpace:
        """Nodes of the layers."""
        return PathSpace(tuple(bias_QK.shape[1] for bias_QK in self.biases))

    def arrays(self) -> dict[str, FloatArray]:
        """Return the arrays by name, as a file keeps them."""
        named = {f"vectors_{depth}": array for depth, array in enumerate(self.vectors)}
        return named | {f"biases_{depth}": array for depth, array in enumerate(self.biases)}

    @classmethod
    def of(cls, arrays: Mapping[str, FloatArray]) -> Self:
        """Return the layers of what :meth:`arrays` named."""
        depths = range(len(arrays) // 2)
        return cls(
            tuple(arrays[f"vectors_{depth}"] for depth in depths), tuple(arrays[f"biases_{depth}"] for depth in depths)
        )


class CompiledEnergies:
    """Path energies laid out for :meth:`visit`, :meth:`search` and :meth:`log_prob`.

    Args:
        layers: the energies.
        index: whose paths are visited, by their sizes; by default all paths, by p(c|x) alone.
        bias_V: float32, by which each path's items are ordered (:meth:`PathIndex.ordered`); a price then cuts inside paths
            (:mod:`dr_core.retrieval.shares`). By default paths are visited whole.
        exact_paths: up to so many paths Z is the sum over all of them in :meth:`search` and :meth:`log_prob`.
    """

    def __init__(
        self,
        layers: EnergyLayers,
        index: PathIndex | None = None,
        *,
        bias_V: FloatArray | None = None,
        exact_paths: int = EXACT_PATHS,
    ) -> None:
        self.layers, self.space, self.exact_paths, self.bias_V = layers, layers.space, exact_paths, bias_V
        self.size_P = np.ones(self.space.num_paths, np.int64)
        self.log_share_R = np.zeros(self.space.num_paths, np.float32)
        """ln of the share that each row of the index has of its path."""
        if index is not None:
            self.size_P[:] = 0
            self.size_P[index.path_ids] = np.diff(index.offsets)
            self.log_share_R = log_shares(index, bias_V)
        self.row_P = np.concatenate(([0], np.cumsum(self.size_P)))
        """Where the rows of each path begin, int64 [P + 1]."""
        with np.errstate(divide="ignore"):
            # A path without items is never worth a visit.
            self.log_size_P = np.where(self.size_P > 0, np.log(self.size_P), np.inf).astype(np.float32)
        self.first_P = np.full(self.space.num_paths, np.inf, np.float32)
        """Minus ln of the share of each path's first item."""
        self.first_P[self.size_P > 0] = -self.log_share_R[self.row_P[:-1][self.size_P > 0]]
        opens = tuple(
            self.size_P.reshape(self.space.num_prefixes(depth), -1).any(axis=1)
            for depth in range(1, self.space.num_layers + 1)
        )
        self._layers = _as_deep(layers.vectors), _as_deep(layers.biases), _as_deep(opens)

    @property
    def num_groups(self) -> int:
        """Return how many paths can be visited."""
        return int(np.count_nonzero(self.size_P))

    def within(self, index: PathIndex) -> CompiledEnergies:
        """Return the same energies over the paths of an index; no prefix of nothing else is opened."""
        return CompiledEnergies(self.layers, index, bias_V=self.bias_V, exact_paths=self.exact_paths)

    def visit(self, user_UE: FloatArray, width: Width) -> Visits:
        """Return the paths whose items are the most probable, best first; -1 where fewer are visited.

        By a price, a state opens every prefix with ln p >= ``opening`` and visits every item below them with
        ln p(c|x) + ln q_v >= ``price``, q_v its share of its path and 1 / |c| where paths are visited whole; the best item in
        any case; until ``most`` candidates are found. For one price over all users this is the greedy fractional knapsack
        (Dantzig 1957) that holds most probability for equal candidates in total, where each user alone stops at a price of
        its own. By a beam, every layer keeps the best B (Deep Retrieval, Algorithm 1), the last one by p(c|x) / |c|. Z is the
        sum over what is open, divided by the probability of the opened prefixes.

        Raises:
            ValueError: a beam < 1.
        """
        if isinstance(width, Price):
            return self._visit(user_UE, width.opening, width.price, _ALL, _ALL, width.most)[0]
        if width < 1:
            raise ValueError(f"beam must be at least 1, was {width}")
        visits = self._visit(user_UE, -np.inf, -np.inf, width, width, _ALL)[0]
        return visits.padded(min(width, self.space.num_paths))

    def search(self, user_UE: FloatArray, beam: int) -> tuple[IntArray, FloatArray]:
        """Return the best paths of each user and their log p(c|x), [U, B], by exact search up to ``exact_paths`` paths."""
        opened = _ALL if self.space.num_paths <= self.exact_paths else max(_OPENED, beam)
        visits = self._visit(user_UE, -np.inf, -np.inf, opened, beam, _ALL)[0]
        return visits.padded(min(beam, self.space.num_paths))[:2]

    def log_prob(self, user_UE: FloatArray, path_UM: IntArray) -> FloatArray:
        """Return log p(c|x) of given paths, float32 [U, M]; -inf for a path of -1."""
        opened = _ALL if self.space.num_paths <= self.exact_paths else _OPENED
        log_z_U = self._visit(user_UE, -np.inf, np.inf, opened, 1, _ALL)[1]
        known_UM, nodes = np.maximum(path_UM, 0), self.space.nodes[-1]
        prefix_UM, node_UM = known_UM // nodes, known_UM % nodes
        vector_UME = self.layers.vectors[-1][prefix_UM, :, node_UM]
        energy_UM = np.einsum("ume,ue->um", vector_UME, user_UE) + self.layers.biases[-1][prefix_UM, node_UM]
        log_prob_UM: FloatArray = (energy_UM - log_z_U[:, None]).astype(np.float32)
        log_prob_UM[path_UM < 0] = -np.inf
        return log_prob_UM

    def _visit(
        self, user_UE: FloatArray, opening: float, price: float, most_opened: int, most_paths: int, most: int
    ) -> tuple[Visits, FloatArray]:
        """Return the visits and ln Z, float32 [U]."""
        is_priced = most_paths == _ALL
        vectors, biases, opens = self._layers
        path_UB, log_prob_UB, items_UB, work_U, log_z_U = _walk(
            np.ascontiguousarray(user_UE, dtype=np.float32), vectors, biases, opens, self.space.num_layers,
            self.first_P if is_priced else self.log_size_P, self.row_P, self.log_share_R,
            np.float32(opening), np.float32(price), most_opened, most_paths, most,
        )  # fmt: skip
        return Visits(path_UB, log_prob_UB, work_U, items_UB), log_z_U


@njit(cache=True, nogil=True, fastmath=True)
def _energies(state, vector_EK, bias_K, energy_K):  # type: ignore[no-untyped-def]
    """Write <x, w_k> + b_k of the children of one prefix."""
    num_nodes, dim = len(bias_K), len(state)
    for node in range(num_nodes):
        energy_K[node] = bias_K[node]
    entry = 0
    while entry + 4 <= dim:
        first, second, third, fourth = state[entry], state[entry + 1], state[entry + 2], state[entry + 3]
        row, row_1, row_2, row_3 = vector_EK[entry], vector_EK[entry + 1], vector_EK[entry + 2], vector_EK[entry + 3]
        for node in range(num_nodes):
            energy_K[node] += first * row[node] + second * row_1[node] + third * row_2[node] + fourth * row_3[node]
        entry += 4
    while entry < dim:
        value, row = state[entry], vector_EK[entry]
        for node in range(num_nodes):
            energy_K[node] += value * row[node]
        entry += 1


@njit(cache=True, nogil=True, fastmath=True)
def _log_sum(energies, bits):  # type: ignore[no-untyped-def]
    """Return log sum exp."""
    highest = np.float32(-3e38)
    for entry in range(len(energies)):
        highest = energies[entry] if energies[entry] > highest else highest
    power_of, total = bits.view(np.float32), np.float32(0)
    for entry in range(len(energies)):
        power = (energies[entry] - highest) * LOG2_E
        power = power if power > LOWEST else LOWEST
        whole = np.floor(power)
        rest = power - whole
        bits[entry] = np.int32(whole * EXPONENT + BIAS)
        total += mantissa(rest) * power_of[entry]
    return highest + np.log(total)


@njit(cache=True, nogil=True)
def _by_prefix(prefix_R, num_prefixes):  # type: ignore[no-untyped-def]
    """Return the rows in the order of their prefixes."""
    first_Q, order_R = np.zeros(num_prefixes + 1, np.int64), np.empty(len(prefix_R), np.int64)
    for prefix in prefix_R:
        first_Q[prefix + 1] += 1
    for prefix in range(num_prefixes):
        first_Q[prefix + 1] += first_Q[prefix]
    for row in range(len(prefix_R)):
        order_R[first_Q[prefix_R[row]]] = row
        first_Q[prefix_R[row]] += 1
    return order_R


@njit(cache=True, nogil=True)
def _reaching(energy_RK, prefix_R, limit, opened, log_size, scores, found):  # type: ignore[no-untyped-def]
    """Write the successors whose energy, less the log size where there is one, reaches the limit; the best where none does.

    Returns:
        How many.
    """
    num_nodes, count = energy_RK.shape[1], 0
    best, best_path = np.float32(-np.inf), np.int64(-1)
    for row in range(len(prefix_R)):
        first = prefix_R[row] * num_nodes
        for node in range(num_nodes):
            score = energy_RK[row, node] - (log_size[first + node] if len(log_size) else np.float32(0))
            if score > best and opened[first + node]:
                best, best_path = score, first + node
            if score >= limit and opened[first + node]:
                scores[count], found[count] = score, first + node
                count += 1
    if count == 0 and best_path >= 0:
        scores[0], found[0], count = best, best_path, 1
    return count


@njit(cache=True, nogil=True)
def _worth(log_share_R, start, end, least):  # type: ignore[no-untyped-def]
    """Return how many rows of a path, the first of which has the largest share, have ln of their share less that of the first
    of ``least`` or more."""
    low, high = start, end
    while low < high:
        middle = (low + high) // 2
        if log_share_R[middle] - log_share_R[start] >= least:
            low = middle + 1
        else:
            high = middle
    return low - start


@njit(cache=True, nogil=True)
def _in_rows(offsets, paths, log_probs, items):  # type: ignore[no-untyped-def]
    """Return one row a user, filled up with -1, -inf and 0; one column at least."""
    num_users, width = len(offsets) - 1, 1
    for user in range(num_users):
        width = max(width, offsets[user + 1] - offsets[user])
    path_UB, log_prob_UB = np.full((num_users, width), -1, np.int64), np.full((num_users, width), -np.inf, np.float32)
    items_UB = np.zeros((num_users, width), np.int64)
    for user in range(num_users):
        for place in range(offsets[user], offsets[user + 1]):
            path_UB[user, place - offsets[user]] = paths[place]
            log_prob_UB[user, place - offsets[user]] = log_probs[place]
            items_UB[user, place - offsets[user]] = items[place]
    return path_UB, log_prob_UB, items_UB


def _as_deep(layers: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return one array a layer, and empty ones up to ``_DEPTH``: one compiled search for structures of every usual depth."""
    return layers + (layers[0][:0],) * (_DEPTH - len(layers))


@njit(cache=True, nogil=True)
def _walk(  # type: ignore[no-untyped-def]
    user_UE,
    vectors,
    biases,
    opens,
    num_layers,
    log_size_P,
    row_P,
    log_share_R,
    opening,
    price,
    most_opened,
    most_paths,
    most_candidates,
):
    num_users = len(user_UE)
    offsets, log_z_U, work_U = (
        np.zeros(num_users + 1, np.int64),
        np.zeros(num_users, np.float32),
        np.zeros(num_users, np.int64),
    )
    paths, log_probs, filled = np.empty(64 * num_users, np.int64), np.empty(64 * num_users, np.float32), 0
    items = np.empty(64 * num_users, np.int64)
    no_sizes = log_size_P[:0]
    energies, bits = np.empty(0, np.float32), np.empty(0, np.int32)
    scores, found = np.empty(0, np.float32), np.empty(0, np.int64)
    best_scores, best_found = np.empty(0, np.float32), np.empty(0, np.int64)
    for start in range(0, num_users, USERS_AT_ONCE):
        users = min(USERS_AT_ONCE, num_users - start)
        first_U, prefix_R = np.arange(users + 1), np.zeros(users, np.int64)
        user_R = np.arange(users)
        log_open_U = np.zeros(users, np.float32)
        for layer in range(num_layers):
            vector_QEK, bias_QK = vectors[layer], biases[layer]
            num_rows, num_nodes = len(prefix_R), bias_QK.shape[1]
            if len(energies) < num_rows * num_nodes:
                energies = np.empty(num_rows * num_nodes, np.float32)
            energy_RK = energies[: num_rows * num_nodes].reshape(num_rows, num_nodes)
            order_R = _by_prefix(prefix_R, len(bias_QK)) if users > 1 and layer > 0 else np.arange(num_rows)
            for row in order_R:
                _energies(
                    user_UE[start + user_R[row]], vector_QEK[prefix_R[row]], bias_QK[prefix_R[row]], energy_RK[row]
                )
            is_last = layer == num_layers - 1
            next_first_U, next_prefix_R, next_filled = (
                np.zeros(users + 1, np.int64),
                np.empty(num_rows * 8, np.int64),
                0,
            )
            for user in range(users):
                its_RK, its_R = (
                    energy_RK[first_U[user] : first_U[user + 1]],
                    prefix_R[first_U[user] : first_U[user + 1]],
                )
                size = its_RK.size
                if len(scores) < size:
                    scores, found, bits = np.empty(size, np.float32), np.empty(size, np.int64), np.empty(size, np.int32)
                    best_scores, best_found = np.empty(size, np.float32), np.empty(size, np.int64)
                log_z = _log_sum(its_RK.reshape(size), bits[:size]) - log_open_U[user]
                work_U[start + user] += size * user_UE.shape[1]
                limit = log_z + (price if is_last else opening)
                count = _reaching(
                    its_RK, its_R, limit, opens[layer], log_size_P if is_last else no_sizes, scores, found
                )
                if is_last:
                    log_z_U[start + user] = log_z
                    kept = min(count, most_paths)
                    keep_best(scores[:count], found[:count], best_found[:kept], best_scores[:kept])
                    if len(paths) < filled + kept:
                        paths = np.concatenate((paths, np.empty(len(paths) + kept, np.int64)))
                        log_probs = np.concatenate((log_probs, np.empty(len(log_probs) + kept, np.float32)))
                        items = np.concatenate((items, np.empty(len(items) + kept, np.int64)))
                    candidates = 0
                    for place in range(kept):
                        path, score = best_found[place], best_scores[place]
                        count = _worth(log_share_R, row_P[path], row_P[path + 1], min(limit, score) - score)
                        candidates += count
                        if candidates > most_candidates and place > 0:
                            break
                        paths[filled], log_probs[filled] = path, score + log_size_P[path] - log_z
                        items[filled] = count
                        filled += 1
                    offsets[start + user + 1] = filled
                    continue
                if count > most_opened:
                    keep_best(scores[:count], found[:count], best_found[:most_opened], best_scores[:most_opened])
                    count = most_opened
                    scores[:count], found[:count] = best_scores[:count], best_found[:count]
                if len(next_prefix_R) < next_filled + count:
                    next_prefix_R = np.concatenate((next_prefix_R, np.empty(len(next_prefix_R) + count, np.int64)))
                next_prefix_R[next_filled : next_filled + count] = found[:count]
                next_filled += count
                next_first_U[user + 1] = next_filled
                total = np.float32(0)
                for place in range(count):
                    total += np.exp(scores[place] - log_z)
                log_open_U[user] = np.log(total) if count else np.float32(0)
            if not is_last:
                first_U, prefix_R = next_first_U, next_prefix_R[:next_filled]
                user_R = np.empty(next_filled, np.int64)
                for user in range(users):
                    user_R[first_U[user] : first_U[user + 1]] = user
    path_UB, log_prob_UB, items_UB = _in_rows(offsets, paths, log_probs, items)
    return path_UB, log_prob_UB, items_UB, work_U, log_z_U
