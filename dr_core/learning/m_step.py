"""The M-step (Deep Retrieval, section 3): coordinate descent under a corrected alpha, then the refinement.

One policy for items in memory and for items that Spark sweeps; :class:`dr_core.learning.scored_items.ScoredItems` is
the seam between the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

import numpy as np

from dr_core.arrays import IntArray
from dr_core.learning.alpha import AlphaRule, items_per_visited_path
from dr_core.learning.refine import Refinement
from dr_core.learning.scored_items import ScoredItems, Version
from dr_core.paths.assignment import changed_rows
from dr_core.paths.penalty import Penalty
from dr_core.paths.sizes import PathSizes


@dataclass(frozen=True)
class MStepFacts:
    """What an M-step did. Everything without ``descent`` in its name is of the mapping that is used afterwards.

    The surrogate is sum_v N_v log(sum_j s[v, pi_j(v)]) - alpha sum_c f(|c|) (section 3), of the same scores and alpha in
    all three places. The descent never lowers it. The refinement follows the softmax instead and may lower it, since a
    path for which an item has no score counts as little as it can.
    """

    items_moved: int
    """Items that had paths and got other ones."""
    items_placed: int
    """Items that had none."""
    items_moved_by_descent: int
    """Items that had paths and for which the descent chose other ones."""
    items_refined: int
    """Items whose paths differ from those that the descent chose; all moved ones where it did not run."""
    surrogate_before: float | None
    """None where no scores were collected, as for the next three."""
    surrogate_after_descent: float | None
    surrogate_after: float | None
    alpha: float | None
    """Weight of the penalty."""
    items_per_visited_path: float
    """Mean number of items on the visited paths; 0 where none was visited."""
    corrections: int
    """Descents that were repeated with another alpha."""


@dataclass(frozen=True)
class Descended(Generic[Version]):
    """A coordinate descent with the alpha that it used."""

    version: Version
    alpha: float
    items_per_visited_path: float
    corrections: int


def m_step(
    items: ScoredItems[Version],
    rule: AlphaRule,
    visited_paths: IntArray,
    refinement: Refinement | None = None,
    *,
    only_new: bool = False,
) -> tuple[Version, MStepFacts]:
    """Move items to better paths: the descent, and the refinement of the better of its mapping and the one before it.

    Args:
        items: with scores and the mapping in force.
        rule: where alpha comes from.
        visited_paths: int64 [U, B], the paths that some users visit under the present model and mapping.
        refinement: None for the descent alone.
        only_new: whether items that have paths keep them.

    Returns:
        the version of ``items`` to be used from now on, ranked by gain, and what was done.
    """
    descended = descend_to_budget(items, rule, visited_paths)
    penalty = Penalty(rule.power, descended.alpha)
    version, ranked = descended.version, items.rank(descended.version, penalty)
    after_descent = _surrogate(ranked.log_score, items.sizes(version), penalty)
    moved_by_descent, refined = ranked.items_moved, 0
    if only_new:
        start_VJ = items.paths(items.start)
        is_new_V1 = (start_VJ < 0).all(axis=1, keepdims=True)
        version = items.place(np.where(is_new_V1, items.paths(version), start_VJ))
        ranked = items.rank(version, penalty)
    if refinement is not None:
        path_VJ = items.paths(version)
        refined_VJ = refinement.refine(path_VJ, items.paths(items.start))
        refined = int(changed_rows(path_VJ, refined_VJ).sum())
        version = items.place(refined_VJ)
        ranked = items.rank(version, penalty)
    sizes = items.sizes(version)
    return version, MStepFacts(
        items_moved=ranked.items_moved,
        items_placed=ranked.items_placed,
        items_moved_by_descent=moved_by_descent,
        items_refined=refined,
        surrogate_before=_surrogate(items.start_log_score, items.sizes(items.start), penalty),
        surrogate_after_descent=after_descent,
        surrogate_after=_surrogate(ranked.log_score, sizes, penalty),
        alpha=descended.alpha,
        items_per_visited_path=items_per_visited_path(sizes, visited_paths),
        corrections=descended.corrections,
    )


def descend_to_budget(items: ScoredItems[Version], rule: AlphaRule, visited_paths: IntArray) -> Descended[Version]:
    """Descend, and again with a corrected alpha while the visited paths come nearer to the wanted number of items.

    Args:
        items: with scores and the mapping in force; every descent starts from it.
        rule: where alpha comes from, and when a correction is worth another descent.
        visited_paths: int64 [U, B].
    """

    def descend(alpha: float) -> tuple[Version, float]:
        version = items.descend(Penalty(rule.power, alpha))
        return version, items_per_visited_path(items.sizes(version), visited_paths)

    alpha, attempt = rule.start(items.mean_weight), 0
    version, measured = descend(alpha)
    while (corrected := rule.corrected(alpha, measured, attempt)) is not None:
        attempt += 1
        tried, measured_then = descend(corrected)
        if not rule.is_nearer(measured_then, measured):
            break
        alpha, version, measured = corrected, tried, measured_then
    return Descended(version, alpha, measured, attempt)


def refine_alone(refinement: Refinement, path_VJ: IntArray, visited_paths: IntArray) -> tuple[IntArray, MStepFacts]:
    """M-step without scores and without descent: refine the mapping in force.

    Args:
        refinement: what the softmax wants.
        path_VJ: int64 [V, J].
        visited_paths: int64 [U, B], as for :func:`m_step`.

    Returns:
        the mapping int64 [V, J], -1 where an item has fewer, and what was done.
    """
    refined_VJ = refinement.refine(path_VJ)
    moved = int(changed_rows(path_VJ, refined_VJ).sum())
    measured = items_per_visited_path(PathSizes.count(refined_VJ), visited_paths)
    return refined_VJ, MStepFacts(moved, 0, 0, moved, None, None, None, None, measured, 0)


def _surrogate(log_score: float, sizes: PathSizes, penalty: Penalty) -> float:
    return log_score - penalty.total(sizes.occupied()[1])
