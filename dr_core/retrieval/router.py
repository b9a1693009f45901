"""Routers: what leads a user to groups of items. A space of paths today."""

from __future__ import annotations

from typing import NamedTuple, Protocol, Self

from dr_core.arrays import FloatArray, IntArray
from dr_core.paths.index import PathIndex


class Visits(NamedTuple):
    """The groups that each user visits, best first. Shape legend: U users, B beam."""

    path_UB: IntArray
    """int64 path ids; -1 where fewer are left to visit."""
    log_prob_UB: FloatArray
    """float32 log p(c|x), -inf where there is no path."""


class Router(Protocol):
    """Anything that finds the groups whose items a user most probably wants (Deep Retrieval, Algorithm 1, is one)."""

    @property
    def num_groups(self) -> int:
        """How many groups can be visited."""

    def visit(self, user_UE: FloatArray, width: int) -> Visits:
        """Return up to ``width`` groups of each user, best first."""

    def within(self, index: PathIndex) -> Self:
        """Return the router that visits only groups in which an index has items, and knows their sizes."""

    def multiply_adds(self, width: int) -> int:
        """Count the multiply-adds of one user's visit."""
