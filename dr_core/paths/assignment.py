"""The M-step: penalised coordinate descent over the paths of every item (Deep Retrieval, section 3, Algorithm 2)."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dr_core.arrays import read_only
from dr_core.paths._descent import SCORE_FLOOR, scores_of_paths, sweep_items
from dr_core.paths.penalty import Penalty
from dr_core.paths.scores import Float64Array, PathCandidates
from dr_core.paths.sizes import DENSE_LIMIT, PathSizes
from dr_core.paths.space import Int64Array, PathSpace

__all__ = [
    "SCORE_FLOOR",
    "PathAssignment",
    "coordinate_descent",
    "log_score",
    "penalised_surrogate",
    "rank_paths",
]

_SPARE_FILLERS = 16


@dataclass(frozen=True)
class PathAssignment:
    """The mapping pi that an M-step ends with.

    Attributes:
        path_ids: int64 [V, J], distinct in a row, in descending gain.
        gains: float64 [V, J], what the penalised surrogate would lose without that path alone, in nats.
        sizes: items on every path under ``path_ids``.
        num_moved: items whose set of paths changed.
        num_sweeps: sweeps run; fewer than asked for if one changed nothing.
        objective_before: penalised surrogate of the paths the items came with.
        objective_after: penalised surrogate of ``path_ids``; not below ``objective_before`` if every item came with
            all its paths.
    """

    path_ids: Int64Array
    gains: Float64Array
    sizes: PathSizes
    num_moved: int
    num_sweeps: int
    objective_before: float
    objective_after: float


def coordinate_descent(
    candidates: PathCandidates,
    penalty: Penalty,
    *,
    num_paths: int,
    num_sweeps: int,
    sizes: PathSizes | None = None,
    space: PathSpace | None = None,
) -> PathAssignment:
    """Assign every item to ``num_paths`` distinct paths by penalised coordinate descent.

    Algorithm 2 in two parts. Items without all their paths are built greedily, in the order of Algorithm 2 (at the
    first path the constant log 0 is dropped). Items with all their paths take exact coordinate steps: one slot is
    released, the item's other J - 1 paths stay in the sum and are forbidden, and the best c takes the slot, which
    never lowers the penalised surrogate. Ties keep the path in force, then take the smaller path id. A set whose
    scores sum to less than ``SCORE_FLOOR`` counts as that much.

    Items with N_v = 0, or with fewer than J candidates, keep their paths. Where such an item has not got J paths, it
    takes the candidates there are and then, of a few paths in use drawn by a hash of its id, those with the fewest
    items.

    Args:
        candidates: scores s[v, c], weights N_v and the paths in force.
        penalty: f and alpha.
        num_paths: J, paths per item, as in ``candidates.current_paths``.
        num_sweeps: passes over all items; 3 to 5 suffice.
        sizes: sizes of all paths, these items included, if other items lie on them too; by default counted here.
        space: [K]^D, needed only if an item has to be given paths from outside its candidates.

    Returns:
        The new paths with their gains, and the penalised surrogate before and after.

    Raises:
        ValueError: invalid ``candidates`` (a row repeats a path, a negative score, ...), J not as in
            ``current_paths`` or above K^D, fewer than one sweep, or ``space`` missing where it is needed.
    """
    candidates.validate()
    if candidates.current_paths.shape[1] != num_paths:
        raise ValueError(f"current_paths has {candidates.current_paths.shape[1]} paths per item, num_paths={num_paths}")
    if num_sweeps < 1:
        raise ValueError(f"num_sweeps must be at least 1, got {num_sweeps}")
    if sizes is None:
        sizes = PathSizes.count(candidates.current_paths)
    problem = _Problem.of(candidates, candidates.current_paths, sizes, space)
    before = penalised_surrogate(candidates, candidates.current_paths, penalty, sizes=sizes)
    sweeps_run = 0
    for _ in range(num_sweeps):
        sweeps_run += 1
        if problem.sweep(penalty) == 0:
            break
    paths = problem.path_ids()
    sizes = _moved(sizes, candidates.current_paths, paths)
    ranked, gains = rank_paths(candidates, paths, penalty, sizes=sizes)
    return PathAssignment(
        path_ids=ranked,
        gains=gains,
        sizes=sizes,
        num_moved=int(np.count_nonzero(changed_rows(candidates.current_paths, ranked))),
        num_sweeps=sweeps_run,
        objective_before=before,
        objective_after=penalised_surrogate(candidates, ranked, penalty, sizes=sizes),
    )


def log_score(candidates: PathCandidates, paths: Int64Array) -> float:
    """sum_v N_v log(sum_j s[v, pi_j(v)]), the surrogate without its constant and without the penalty.

    Args:
        candidates: scores and weights.
        paths: int64 [V, J], -1 = none. Items with N_v = 0 contribute nothing.
    """
    summed = _own_scores(candidates, paths).sum(axis=1)
    return float(np.sum(candidates.weights * np.log(np.maximum(summed, SCORE_FLOOR))))


def _own_scores(candidates: PathCandidates, paths: Int64Array) -> Float64Array:
    """float64 [V, J], s[v, c] of each item's own paths."""
    offsets, path_ids = read_only(candidates.offsets), read_only(candidates.path_ids)
    return scores_of_paths(offsets, path_ids, read_only(candidates.scores), read_only(paths))


def penalised_surrogate(
    candidates: PathCandidates, paths: Int64Array, penalty: Penalty, *, sizes: PathSizes | None = None
) -> float:
    """sum_v N_v log(sum_j s[v, pi_j(v)]) - alpha sum_c f(|c|), what the M-step maximises (section 3).

    Args:
        candidates: scores and weights.
        paths: int64 [V, J], -1 = none.
        penalty: f and alpha.
        sizes: |c| of all paths under ``paths``; by default counted from ``paths``.
    """
    if sizes is None:
        sizes = PathSizes.count(paths)
    return log_score(candidates, paths) - penalty.total(sizes.occupied()[1])


def rank_paths(
    candidates: PathCandidates, paths: Int64Array, penalty: Penalty, *, sizes: PathSizes | None = None
) -> tuple[Int64Array, Float64Array]:
    """Each row's paths in descending gain, with the gains.

    Args:
        candidates: scores and weights.
        paths: int64 [V, J], -1 where an item has fewer.
        penalty: f and alpha.
        sizes: |c| of all paths under ``paths``; by default counted from ``paths``.

    Returns:
        Paths int64 [V, J] and gains float64 [V, J]: N_v (log sum - log(sum without c)) - alpha (f(|c|) - f(|c| - 1));
        ties by ascending path id. Empty slots come last, with a gain of 0.
    """
    if sizes is None:
        sizes = PathSizes.count(paths)
    scores = _own_scores(candidates, paths)
    gains = np.empty(paths.shape, dtype=np.float64)
    log_sum = np.log(np.maximum(scores.sum(axis=1), SCORE_FLOOR))
    for slot in range(paths.shape[1]):
        others = np.delete(scores, slot, axis=1).sum(axis=1)
        worth = candidates.weights * (log_sum - np.log(np.maximum(others, SCORE_FLOOR)))
        gains[:, slot] = worth - penalty.alpha * penalty.marginal(np.maximum(sizes.of(paths[:, slot]) - 1, 0))
    is_empty = paths < 0
    gains[is_empty] = 0.0
    order = np.lexsort((paths, -gains, is_empty), axis=1)
    return np.take_along_axis(paths, order, axis=1), np.take_along_axis(gains, order, axis=1)


def changed_rows(before: Int64Array, after: Int64Array) -> NDArray[np.bool_]:
    """bool [V], the items whose set of paths differs between two mappings int64 [V, J]."""
    changed: NDArray[np.bool_] = np.any(np.sort(before, axis=1) != np.sort(after, axis=1), axis=1)
    return changed


@dataclass
class _Problem:
    """The arrays the compiled sweep works on; ``paths`` and ``sizes`` change with each sweep."""

    candidates: PathCandidates
    codes: Int64Array
    universe: Int64Array | None
    paths: Int64Array
    sizes: NDArray[np.int32]
    filler_row: Int64Array
    fillers: Int64Array

    @classmethod
    def of(
        cls, candidates: PathCandidates, current: Int64Array, sizes: PathSizes, space: PathSpace | None
    ) -> "_Problem":
        filler_row, fillers = find_fillers(candidates, current, sizes, space)
        path_ids = candidates.path_ids.astype(np.int64, copy=False)
        arrays: tuple[NDArray[Any], ...] = (path_ids, current, fillers)
        highest = max(int(array.max()) if array.size else -1 for array in arrays)
        if highest < min(DENSE_LIMIT, 4 * path_ids.size + 2**16):
            table = sizes.of(np.arange(highest + 1))
            return cls(candidates, path_ids, None, current.astype(np.int64), table, filler_row, fillers)
        universe = np.unique(np.concatenate([array.ravel() for array in arrays]))
        universe = universe[universe >= 0]
        paths = np.where(current >= 0, np.searchsorted(universe, current), -1)
        return cls(
            candidates,
            np.searchsorted(universe, path_ids),
            universe,
            paths,
            sizes.of(universe),
            filler_row,
            np.searchsorted(universe, fillers),
        )

    def sweep(self, penalty: Penalty) -> int:
        return int(
            sweep_items(
                read_only(self.candidates.offsets),
                read_only(self.codes),
                read_only(self.candidates.scores),
                read_only(self.candidates.weights),
                self.paths,
                self.sizes,
                1,
                penalty.alpha,
                penalty.power,
                self.filler_row,
                self.fillers,
            )
        )

    def path_ids(self) -> Int64Array:
        return self.paths.copy() if self.universe is None else self.universe[self.paths]


def find_fillers(
    candidates: PathCandidates, current: Int64Array, sizes: PathSizes, space: PathSpace | None
) -> tuple[Int64Array, Int64Array]:
    """Paths drawn by a hash of the item id, for items whose candidates may not complete their paths: of the paths in
    use, or of all paths while few are in use.

    Returns:
        Row of the second array or -1, int64 [V], and int64 [F, Q] distinct path ids in a row.

    Raises:
        ValueError: such items exist and ``space`` is None or has fewer than J paths.
    """
    num_paths = current.shape[1]
    needy = np.flatnonzero((np.diff(candidates.offsets) < num_paths) & np.any(current < 0, axis=1))
    filler_row = np.full(candidates.num_items, -1, dtype=np.int64)
    if len(needy) == 0:
        return filler_row, np.zeros((0, 0), dtype=np.int64)
    if space is None:
        raise ValueError(f"{len(needy)} items lack paths and have fewer than {num_paths} candidates: pass the space")
    if space.num_paths < num_paths:
        raise ValueError(f"{num_paths} distinct paths per item need as many paths, the space has {space.num_paths}")
    filler_row[needy] = np.arange(len(needy))
    items = needy if candidates.item_ids is None else candidates.item_ids[needy]
    num_probes = 2 * num_paths + _SPARE_FILLERS
    occupied = sizes.occupied()[0]
    if len(occupied) < num_probes:
        return filler_row, hashed_paths(items, space, num_probes=num_probes)
    # Paths that hold items are paths the model has learned to visit.
    first = (_mix(items.astype(np.uint64)) % np.uint64(len(occupied))).astype(np.int64)
    steps = np.arange(num_probes) * (len(occupied) // num_probes)
    return filler_row, occupied[(first[:, np.newaxis] + steps) % len(occupied)]


def hashed_paths(item_ids: Int64Array, space: PathSpace, *, num_probes: int) -> Int64Array:
    """Distinct pseudo-random paths of each item, the same on every machine and in every run.

    Args:
        item_ids: int64 [n].
        space: [K]^D.
        num_probes: Q, paths wanted; K^D of them if there are not as many.

    Returns:
        int64 [n, min(Q, K^D)]. A step coprime to K^D visits every path once before it returns.
    """
    total, multiple = np.uint64(space.num_paths), np.uint64(math.lcm(*space.nodes))
    first = _mix(item_ids.astype(np.uint64)) % total
    step = 1 + multiple * (_mix(item_ids.astype(np.uint64) ^ np.uint64(0x5851F42D4C957F2D)) % (total // multiple))
    probes = np.empty((len(item_ids), min(num_probes, space.num_paths)), dtype=np.int64)
    probe = first
    for column in range(probes.shape[1]):
        probes[:, column] = probe.astype(np.int64)
        probe = (probe + step) % total
    return probes


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of SplitMix64: every bit of the input moves about half of the output's bits."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _moved(sizes: PathSizes, before: Int64Array, after: Int64Array) -> PathSizes:
    """``sizes`` after items have gone from the paths ``before`` to those ``after``, both int64 [V, J]."""
    moved = changed_rows(before, after)
    left, joined = before[moved].ravel(), after[moved].ravel()
    left, joined = left[left >= 0], joined[joined >= 0]
    return sizes.add(np.concatenate([left, joined]), np.repeat(np.array([-1, 1]), [len(left), len(joined)]))
