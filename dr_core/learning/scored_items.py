"""The items of an M-step with their scores s[v, c], wherever they lie: in memory, or in files that Spark sweeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from dr_core.arrays import IntArray
from dr_core.paths.assignment import changed_rows, coordinate_descent, log_score
from dr_core.paths.penalty import Penalty
from dr_core.paths.scores import PathCandidates
from dr_core.paths.sizes import PathSizes
from dr_core.paths.space import PathSpace

Version = TypeVar("Version")
"""A mapping of the items, as whoever holds the items names it."""


class Ranked(NamedTuple):
    """A mapping compared with the one that the items came with."""

    items_moved: int
    """Items that had paths and got other ones."""
    items_placed: int
    """Items that had none."""
    log_score: float
    """sum_v N_v log(sum_j s[v, pi_j(v)]); a path without a score counts as little as it can
    (:data:`dr_core.paths.assignment.SCORE_FLOOR`)."""


class ScoredItems(Protocol[Version]):
    """What :func:`dr_core.learning.m_step.m_step` works on.

    Attributes:
        mean_weight: mean N_v.
        start: the mapping that the items came with.
        start_log_score: sum_v N_v log(sum_j s[v, pi_j(v)]) of it.
    """

    @property
    def mean_weight(self) -> float: ...

    @property
    def start(self) -> Version: ...

    @property
    def start_log_score(self) -> float: ...

    def descend(self, penalty: Penalty) -> Version:
        """Run the coordinate descent (Algorithm 2) from the start."""

    def sizes(self, version: Version) -> PathSizes:
        """Return the items on each path."""

    def paths(self, version: Version) -> IntArray:
        """Return a mapping, int64 [V, J] by item id, -1 where an item is not among these."""

    def place(self, path_VJ: IntArray) -> Version:
        """Take over a mapping, int64 [V, J] by item id."""

    def rank(self, version: Version, penalty: Penalty) -> Ranked:
        """Order each item's paths by gain, and compare with the start."""


@dataclass(frozen=True)
class Placed:
    """A mapping in memory, int64 [V, J], with the items on each path."""

    path_VJ: IntArray
    path_sizes: PathSizes


@dataclass(frozen=True)
class ItemsInMemory:
    """Scored items in one process: rows are the items 0 … V - 1.

    Attributes:
        candidates: s[v, c], N_v and the paths in force.
        num_sweeps: passes over all items at most.
        space: K and D.
    """

    candidates: PathCandidates
    num_sweeps: int
    space: PathSpace

    @property
    def mean_weight(self) -> float:
        """Mean N_v."""
        return float(self.candidates.weights.mean())

    @property
    def start(self) -> Placed:
        """The paths in force."""
        return self.place(self.candidates.current_paths)

    @property
    def start_log_score(self) -> float:
        """sum_v N_v log s of the paths in force."""
        return log_score(self.candidates, self.candidates.current_paths)

    def descend(self, penalty: Penalty) -> Placed:
        """Run the coordinate descent from the paths in force."""
        num_paths = self.candidates.current_paths.shape[1]
        done = coordinate_descent(
            self.candidates, penalty, num_paths=num_paths, num_sweeps=self.num_sweeps, space=self.space
        )
        return Placed(done.path_ids, done.sizes)

    def sizes(self, version: Placed) -> PathSizes:
        """Return the items on each path."""
        return version.path_sizes

    def paths(self, version: Placed) -> IntArray:
        """Return a mapping, int64 [V, J]."""
        return version.path_VJ

    def place(self, path_VJ: IntArray) -> Placed:
        """Take over a mapping, int64 [V, J]."""
        return Placed(path_VJ, PathSizes.count(path_VJ))

    def rank(self, version: Placed, penalty: Penalty) -> Ranked:
        """Compare a mapping with the paths in force; a descent's rows are in order of gain already."""
        before, after = self.candidates.current_paths, version.path_VJ
        was_nowhere = (before < 0).all(axis=1)
        moved = int(np.count_nonzero(changed_rows(before, after) & ~was_nowhere))
        return Ranked(moved, int(was_nowhere.sum()), log_score(self.candidates, after))
