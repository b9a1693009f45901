"""Routers: what leads a user to groups of items. A space of paths today. Shape legend: U users, B groups visited."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, Self

import numpy as np

from dr_core.arrays import FloatArray, IntArray
from dr_core.paths.index import PathIndex

NOTHING_LEFT_OUT = -60.0
"""A price below which no item is left that a float32 softmax tells from nothing."""
WHOLE = np.iinfo(np.int64).max
"""As many items of a group as it has."""


class Price(NamedTuple):
    """How wide a search is: it stops where an item is not worth its price, wherever that is for each user."""

    price: float
    """lambda: an item is visited if the log of its probability by its path and its share of the path reaches it. Where shares
    are even this is ln p(c|x) - ln |c|, and paths are visited whole."""
    opening: float
    """theta: a prefix is opened if the ln of the probability below it reaches it."""
    most: int
    """Candidates of one user at most."""

    def wider(self, factor: float) -> Price:
        """Return the price for items ``factor`` times less probable, and without a limit on candidates below
        :data:`NOTHING_LEFT_OUT`."""
        lower = math.log(factor)
        if self.price - lower < NOTHING_LEFT_OUT:
            return Price(-math.inf, -math.inf, np.iinfo(np.int64).max)
        return Price(self.price - lower, self.opening - lower, round(min(self.most * factor, 2.0**62)))


Width = int | Price
"""How wide a search is: a beam B, or a price."""


def as_settings(width: Width) -> dict[str, Any]:
    """Return a width as JSON keeps it: ``beam``, or ``price``, ``opening`` and ``most``."""
    if not isinstance(width, Price):
        return {"beam": width}
    return {"price": width.price, "opening": None if math.isinf(width.opening) else width.opening, "most": width.most}


def width_of(settings: Mapping[str, Any]) -> Width:
    """Return the width of what :func:`as_settings` made; other keys may stand beside it."""
    if "price" not in settings:
        return int(settings["beam"])
    opening = settings["opening"]
    return Price(float(settings["price"]), -math.inf if opening is None else float(opening), int(settings["most"]))


class Visits(NamedTuple):
    """The groups that each user visits, best first."""

    path_UB: IntArray
    """int64 path ids; -1 where fewer are left to visit."""
    log_prob_UB: FloatArray
    """float32 log p(c|x), -inf where there is no path."""
    work_U: IntArray
    """int64, multiply-adds that it took to find them."""
    items_UB: IntArray
    """int64, how many of a group's items are visited, in the order of the index; :data:`WHOLE` where all are."""

    def padded(self, width: int) -> Visits:
        """Return the visits with ``width`` columns or more."""
        short = max(0, width - self.path_UB.shape[1])
        return Visits(
            np.pad(self.path_UB, ((0, 0), (0, short)), constant_values=-1),
            np.pad(self.log_prob_UB, ((0, 0), (0, short)), constant_values=-np.inf),
            self.work_U,
            np.pad(self.items_UB, ((0, 0), (0, short))),
        )


class Router(Protocol):
    """Anything that finds the groups whose items a user most probably wants (Deep Retrieval, Algorithm 1, is one)."""

    @property
    def num_groups(self) -> int:
        """How many groups can be visited."""

    def visit(self, user_UE: FloatArray, width: Width) -> Visits:
        """Return each user's groups, best first: up to as many as a beam, or those that are worth a price."""

    def within(self, index: PathIndex) -> Self:
        """Return the router that visits only groups in which an index has items, and knows their sizes."""
