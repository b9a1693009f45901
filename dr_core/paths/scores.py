"""The scores s[v, c] = sum over events i of item v of w_i * p(c | x_i), and what is kept of them (section 3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dr_core.arrays import AnyFloatArray, BoolArray
from dr_core.paths._accumulate import sum_terms_by_item
from dr_core.paths.space import Int64Array, integer_array

FRACTION_BITS = 32
"""Bits after the binary point of the fixed-point sums: a resolution of 2.3e-10, and room for a weight of 2^31."""

Float64Array = NDArray[np.float64]


@dataclass(frozen=True)
class PathCandidates:
    """What the M-step needs to know of V items: candidate paths with their scores, weights and current paths.

    Attributes:
        offsets: int64 [V + 1]; the candidates of item row v are ``path_ids[offsets[v]:offsets[v + 1]]``.
        path_ids: int64 [nnz], distinct within a row.
        scores: float32 or float64 [nnz], s[v, c] >= 0.
        weights: float64 [V], N_v, the summed event weight of each item.
        current_paths: int64 [V, J], the paths in force; -1 where there is none. A current path that is not among the
            candidates counts as a candidate of score 0.
        item_ids: int64 [V], ids of the rows, which seed the paths of items without any; by default 0 ... V - 1. A
            partition of a larger catalogue must name them.
    """

    offsets: Int64Array
    path_ids: Int64Array
    scores: AnyFloatArray
    weights: Float64Array
    current_paths: Int64Array
    item_ids: Int64Array | None = None

    @property
    def num_items(self) -> int:
        """V, rows here."""
        return len(self.weights)

    def validate(self) -> None:
        """Check shapes and values.

        Raises:
            ValueError: shapes do not fit together, a row repeats a path or a current path, a path id is negative, a
                score or weight is negative or not finite.
        """
        num_items = self.num_items
        if self.offsets.shape != (num_items + 1,) or self.offsets[0] != 0 or self.offsets[-1] != len(self.path_ids):
            raise ValueError(f"offsets must run from 0 to {len(self.path_ids)} in {num_items + 1} steps")
        if np.any(np.diff(self.offsets) < 0):
            raise ValueError("offsets must not decrease")
        if self.scores.shape != self.path_ids.shape:
            raise ValueError(f"scores {self.scores.shape} and path_ids {self.path_ids.shape} differ in shape")
        if self.current_paths.ndim != 2 or len(self.current_paths) != num_items or self.current_paths.shape[1] < 1:
            raise ValueError(f"current_paths must be [{num_items}, J], got {self.current_paths.shape}")
        if self.item_ids is not None and self.item_ids.shape != (num_items,):
            raise ValueError(f"item_ids must be [{num_items}], got {self.item_ids.shape}")
        if self.path_ids.size and self.path_ids.min() < 0:
            raise ValueError("path_ids must not be negative")
        if self.current_paths.size and self.current_paths.min() < -1:
            raise ValueError("current_paths must be path ids, or -1 for none")
        for name, values in (("scores", self.scores), ("weights", self.weights)):
            if values.size and not (np.isfinite(values.sum(dtype=np.float64)) and values.min() >= 0):
                raise ValueError(f"{name} must be finite and not negative")
        row = _first_row_with_repeats(self.offsets, self.path_ids)
        if row is not None:
            raise ValueError(f"row {row} of the candidates repeats a path")
        ordered = np.sort(self.current_paths, axis=1)
        repeats = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
        if repeats.any():
            raise ValueError(f"row {int(np.argmax(repeats.any(axis=1)))} of current_paths repeats a path")


def _first_row_with_repeats(offsets: Int64Array, path_ids: Int64Array) -> int | None:
    if len(path_ids) < 2:
        return None
    within_row = np.ones(len(path_ids) - 1, dtype=np.bool_)
    starts = offsets[1:-1]
    within_row[starts[(starts > 0) & (starts < len(path_ids))] - 1] = False
    if np.all((np.diff(path_ids) > 0) | ~within_row):
        return None
    rows = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.lexsort((path_ids, rows))
    rows, path_ids = rows[order], path_ids[order]
    repeats = (rows[1:] == rows[:-1]) & (path_ids[1:] == path_ids[:-1])
    return int(rows[1:][repeats][0]) if repeats.any() else None


@dataclass(frozen=True)
class ScoreRows:
    """Scores as a table, one row an (item, path), ascending by item and path.

    Attributes:
        item_ids: int64 [n].
        path_ids: int64 [n].
        scores: float64 [n], or int64 [n] in fixed point.
        is_current: bool [n], whether the path is one of the item's paths in force.
    """

    item_ids: Int64Array
    path_ids: Int64Array
    scores: NDArray[Any]
    is_current: BoolArray

    def __len__(self) -> int:
        return len(self.item_ids)

    def select(self, rows: NDArray[Any]) -> "ScoreRows":
        """The rows of a mask or of positions."""
        return ScoreRows(self.item_ids[rows], self.path_ids[rows], self.scores[rows], self.is_current[rows])


class BlockScores(NamedTuple):
    """Sums of one block of events, ascending by (item, path).

    ``item_ids`` and ``path_ids`` int64 [n], ``scores_fixed`` int64 [n] in units of 2^-fraction bits, ``is_current``
    bool [n].
    """

    item_ids: Int64Array
    path_ids: Int64Array
    scores_fixed: Int64Array
    is_current: BoolArray


def accumulate_block(
    target_items: ArrayLike,
    target_weights: ArrayLike,
    beam_paths: ArrayLike,
    beam_probs: ArrayLike,
    own_paths: ArrayLike,
    own_probs: ArrayLike,
    *,
    fraction_bits: int = FRACTION_BITS,
) -> BlockScores:
    """Sum w_i * p(c | x_i) over a block of user states for every (item, path), exactly in any order.

    A state with several targets shares one beam. Each target is scored on the beam's paths and on its own paths in
    force; an own path that the beam found too is added once, with its own probability. Every term is rounded to
    fixed point, round(w * p * 2^fraction_bits), and summed as int64, so that the sums do not depend on the order of
    the states or on how they are cut into blocks.

    Args:
        target_items: int [N, T], -1 = no target.
        target_weights: float [N, T], w_i >= 0.
        beam_paths: int [N, S], distinct in a row, -1 = none.
        beam_probs: float [N, S], p(c | x_i).
        own_paths: int [N, T, J], each target's paths in force, -1 = none.
        own_probs: float [N, T, J], p(c | x_i) of these.
        fraction_bits: bits after the binary point.

    Returns:
        One row for each (item, path) that had a term, also where it rounds to 0.

    Raises:
        ValueError: shapes do not fit together, a weight or probability is negative or not finite, or the weights are
            so large that a sum may overflow.
    """
    items = integer_array(target_items, "target_items")
    beams = integer_array(beam_paths, "beam_paths")
    own = integer_array(own_paths, "own_paths")
    weights, probs, own_p = (np.asarray(values, dtype=np.float64) for values in (target_weights, beam_probs, own_probs))
    if items.ndim != 2 or weights.shape != items.shape:
        raise ValueError(f"target_items {items.shape} and target_weights {weights.shape} must both be [N, T]")
    if beams.ndim != 2 or len(beams) != len(items) or probs.shape != beams.shape:
        raise ValueError(f"beam_paths {beams.shape} and beam_probs {probs.shape} must both be [{len(items)}, S]")
    if own.ndim != 3 or own.shape[:2] != items.shape or own_p.shape != own.shape:
        raise ValueError(f"own_paths {own.shape} and own_probs {own_p.shape} must both be [{len(items)}, T, J]")
    used = items >= 0
    weights = np.where(used, weights, 0.0)
    _require_scores("target_weights", weights)
    _require_scores("beam_probs", probs[beams >= 0])
    _require_scores("own_probs", own_p[(own >= 0) & used[..., np.newaxis]])
    highest = max(float(values.max(initial=0.0)) for values in (probs[beams >= 0], own_p[own >= 0]))
    if weights.sum() * max(highest, 1.0) * 2.0**fraction_bits >= 2.0**62:
        raise ValueError(f"weights sum to {weights.sum()}, too much for {fraction_bits} fraction bits")
    pairs = np.flatnonzero(used)
    pairs = pairs[np.argsort(items.ravel()[pairs], kind="stable")]
    sums = sum_terms_by_item(
        pairs,
        np.ascontiguousarray(items).ravel(),
        np.ascontiguousarray(weights).ravel(),
        np.ascontiguousarray(beams),
        np.ascontiguousarray(probs),
        np.ascontiguousarray(own).reshape(-1, own.shape[2]),
        np.ascontiguousarray(own_p).reshape(-1, own.shape[2]),
        int(max(beams.max(initial=-1), own.max(initial=-1))) + 1,
        2.0**fraction_bits,
    )
    return BlockScores(*sums)


def merge_blocks(blocks: Sequence[BlockScores]) -> BlockScores:
    """Sum the scores of several blocks, exactly in any order; rows by ascending (item, path).

    Raises:
        ValueError: no blocks.
    """
    item, path, fixed, current = (np.concatenate(column) for column in zip(*blocks, strict=True))
    order = np.lexsort((path, item))
    item, path = item[order], path[order]
    starts = np.flatnonzero(np.r_[True, (item[1:] != item[:-1]) | (path[1:] != path[:-1])][: len(item)])
    if len(starts) == 0:
        return BlockScores(item, path, fixed, current)
    summed, is_current = np.add.reduceat(fixed[order], starts), np.maximum.reduceat(current[order], starts)
    return BlockScores(item[starts], path[starts], summed, is_current)


def accumulate_weights(
    target_items: ArrayLike, target_weights: ArrayLike, *, fraction_bits: int = FRACTION_BITS
) -> tuple[Int64Array, Int64Array]:
    """N_v of a block: the summed weight of each item's events, in fixed point.

    Args:
        target_items: int [...], -1 = no target.
        target_weights: float, the same shape.
        fraction_bits: bits after the binary point.

    Returns:
        Item ids int64 [n] ascending, and sums int64 [n] in units of 2^-fraction_bits.

    Raises:
        ValueError: the shapes differ, or a weight is negative, not finite or too large.
    """
    items = integer_array(target_items, "target_items").ravel()
    weights = np.asarray(target_weights, dtype=np.float64).ravel()
    if items.shape != weights.shape:
        raise ValueError(f"target_items {items.shape} and target_weights {weights.shape} differ in size")
    used = items >= 0
    items, weights = items[used], weights[used]
    _require_scores("target_weights", weights)
    if weights.sum() * 2.0**fraction_bits >= 2.0**62:
        raise ValueError(f"weights sum to {weights.sum()}, too much for {fraction_bits} fraction bits")
    item_ids, inverse = np.unique(items, return_inverse=True)
    sums = np.zeros(len(item_ids), dtype=np.int64)
    np.add.at(sums, inverse, np.rint(weights * 2.0**fraction_bits).astype(np.int64))
    return item_ids, sums


def from_fixed(sums: ArrayLike, *, fraction_bits: int = FRACTION_BITS) -> Float64Array:
    """float64 [...] of fixed-point sums int64 [...]."""
    values: Float64Array = np.asarray(sums, dtype=np.float64) * 2.0**-fraction_bits
    return values


def top_candidates(
    item_ids: ArrayLike, path_ids: ArrayLike, scores: ArrayLike, is_current: ArrayLike, num_candidates: int
) -> ScoreRows:
    """Keep each item's ``num_candidates`` best paths and, besides these, always its current paths.

    Args:
        item_ids: int [n].
        path_ids: int [n], distinct for each item.
        scores: float or int [n].
        is_current: bool [n]; current rows are kept and do not count among the best.
        num_candidates: S; ties at the S-th go to the smaller path id.

    Returns:
        The rows kept, ascending by (item, path): at most S + J an item.

    Raises:
        ValueError: lengths differ, or S is negative.
    """
    if num_candidates < 0:
        raise ValueError(f"num_candidates must not be negative, got {num_candidates}")
    rows = _as_rows(item_ids, path_ids, scores, is_current)
    best_first = np.lexsort((rows.path_ids, -rows.scores, rows.is_current, rows.item_ids))
    ordered_items = rows.item_ids[best_first]
    starts = np.flatnonzero(np.diff(ordered_items, prepend=-1)) if len(rows) else np.zeros(0, dtype=np.int64)
    group_sizes = np.diff(np.append(starts, len(rows)))
    rank = np.arange(len(rows)) - np.repeat(starts, group_sizes)
    kept = best_first[(rank < num_candidates) | rows.is_current[best_first]]
    return rows.select(kept[np.lexsort((rows.path_ids[kept], rows.item_ids[kept]))])


def merge_streaming(old: ScoreRows, new: ScoreRows, decay: float, num_candidates: int) -> ScoreRows:
    """Merge the scores of a new interval into those carried so far (section 3, streaming estimation of s[v, c]).

    For each item, with m = the smallest of the ``num_candidates`` best old scores, current paths not counted (0 where
    there is none): a path in both lists gets decay * s + s', one only in the new list decay * m + s', one only in the
    old list decay * s. Then the best ``num_candidates`` are kept, and the current paths always. A path that either
    list marks as current is current; both lists should mark the paths in force now.

    Args:
        old: carried rows, float64 scores.
        new: rows of the new interval, float64 scores.
        decay: eta in (0, 1], for this merge.
        num_candidates: S.

    Returns:
        The merged rows, ascending by (item, path).

    Raises:
        ValueError: ``decay`` outside (0, 1], S negative, or a list repeats an (item, path).
    """
    if not 0 < decay <= 1:
        raise ValueError(f"decay must lie in (0, 1], got {decay}")
    for name, rows in (("old", old), ("new", new)):
        if _has_repeats(rows):
            raise ValueError(f"the {name} scores repeat an (item, path)")
    listed = top_candidates(old.item_ids, old.path_ids, old.scores, old.is_current, num_candidates)
    listed = listed.select(~listed.is_current)
    starts = np.flatnonzero(np.diff(listed.item_ids, prepend=-1)) if len(listed) else np.zeros(0, dtype=np.int64)
    smallest = np.minimum.reduceat(listed.scores, starts) if len(listed) else np.zeros(0)
    smallest_of_new = _lookup(listed.item_ids[starts], smallest, new.item_ids)

    items = np.concatenate([old.item_ids, new.item_ids])
    paths = np.concatenate([old.path_ids, new.path_ids])
    in_old = np.concatenate([np.ones(len(old), dtype=np.bool_), np.zeros(len(new), dtype=np.bool_)])
    order = np.lexsort((~in_old, paths, items))
    items, paths, in_old = items[order], paths[order], in_old[order]
    decayed = np.concatenate([decay * old.scores, np.zeros(len(new))])[order]
    unseen = np.concatenate([np.zeros(len(old)), decay * smallest_of_new])[order]
    fresh = np.concatenate([np.zeros(len(old)), new.scores])[order]
    current = np.concatenate([old.is_current, new.is_current])[order]
    first = np.ones(len(items), dtype=np.bool_)
    first[1:] = (items[1:] != items[:-1]) | (paths[1:] != paths[:-1])
    pair = np.flatnonzero(~first)
    scores = np.where(in_old, decayed, unseen + fresh)
    scores[pair - 1] = decayed[pair - 1] + fresh[pair]
    current[pair - 1] |= current[pair]
    return top_candidates(items[first], paths[first], scores[first], current[first], num_candidates)


def to_candidates(
    rows: ScoreRows, weights: Float64Array, current_paths: Int64Array, *, item_ids: Int64Array | None = None
) -> PathCandidates:
    """Gather score rows into the CSR that the M-step reads.

    Args:
        rows: scores as float, in any order.
        weights: float64 [V], N_v.
        current_paths: int64 [V, J], -1 = none.
        item_ids: int64 [V] ascending, the ids of the rows; by default 0 ... V - 1.

    Raises:
        ValueError: a row's item is not among ``item_ids``, or the result is not valid
            (:meth:`PathCandidates.validate`).
    """
    num_items = len(weights)
    if item_ids is None:
        position = rows.item_ids
        known = (position >= 0) & (position < num_items)
    else:
        position = np.minimum(np.searchsorted(item_ids, rows.item_ids), max(num_items - 1, 0))
        known = item_ids[position] == rows.item_ids if num_items else np.zeros(len(rows), dtype=np.bool_)
    if not known.all():
        raise ValueError(f"item {rows.item_ids[~known][0]} has scores but no weight and paths")
    order = np.lexsort((rows.path_ids, position))
    counts = np.bincount(position, minlength=num_items)
    candidates = PathCandidates(
        offsets=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)]),
        path_ids=rows.path_ids[order],
        scores=rows.scores[order],
        weights=np.asarray(weights, dtype=np.float64),
        current_paths=np.asarray(current_paths, dtype=np.int64),
        item_ids=item_ids,
    )
    candidates.validate()
    return candidates


def _as_rows(item_ids: ArrayLike, path_ids: ArrayLike, scores: ArrayLike, is_current: ArrayLike) -> ScoreRows:
    rows = ScoreRows(
        integer_array(item_ids, "item_ids"),
        integer_array(path_ids, "path_ids"),
        np.asarray(scores),
        np.asarray(is_current, dtype=np.bool_),
    )
    if not len(rows.item_ids) == len(rows.path_ids) == len(rows.scores) == len(rows.is_current):
        raise ValueError("item_ids, path_ids, scores and is_current differ in length")
    return rows


def _has_repeats(rows: ScoreRows) -> bool:
    order = np.lexsort((rows.path_ids, rows.item_ids))
    items, paths = rows.item_ids[order], rows.path_ids[order]
    return bool(np.any((items[1:] == items[:-1]) & (paths[1:] == paths[:-1])))


def _lookup(keys: Int64Array, values: NDArray[Any], wanted: Int64Array) -> Float64Array:
    """Values of the sorted ``keys`` at ``wanted``, 0 where a key is absent."""
    if len(keys) == 0:
        return np.zeros(len(wanted))
    position = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[position] == wanted, values[position], 0.0)


def _require_scores(name: str, values: Float64Array) -> None:
    if values.size and not (np.isfinite(values.sum()) and values.min() >= 0):
        raise ValueError(f"{name} must be finite and not negative")
