"""How many paths a structure has: as many as make a search cheapest.

More paths are shorter ones. A search then visits fewer candidates for the same recall, about C(P) = a P^-beta of them, and
scores more nodes, about n(P) = b P^gamma. With m the cost of a candidate, in nodes, the work n(P) + m C(P) is least where
its derivative is 0: gamma n(P) = beta m C(P). Both powers are the slopes of lines through measurements, by least squares in
logarithms.

Symbols: P paths, V items, J paths an item, C candidates a user, m the cost of a candidate in products of E multiply-adds
(what a node costs).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOST_PATHS = 131_072
"""Paths at most, where the items allow, by default."""
FEWEST_ITEMS = 2
"""Items on a path, at least, on average."""
FEWEST_VISITS, VISITS_OF_BUDGET = 4, 32
"""Mean paths that the candidates fill, at least: with fewer, users can hardly be told apart. Where the user says how many
candidates there are, and not which recall they should reach, more and shorter paths hold more of what is wanted, for more
nodes (docs/decisions.md)."""
CHILDREN, FEW_CHILDREN, FEW_PATHS = 32, 16, 1536
"""Children of a prefix, and children of one where there are fewer than ``FEW_PATHS`` paths."""
USUAL_CANDIDATES_POWER, USUAL_NODES_POWER, USUAL_PREFIXES = 0.4, 0.75, 0.3
"""Powers to expect before anything is measured, and prefixes that are opened for each path that is visited."""
POWER_RANGE = (0.05, 1.0)
"""Powers outside of this range are noise: they are moved to its ends."""


@dataclass(frozen=True)
class SizeCost:
    """What a search costs a user with one number of paths, at the recall wanted."""

    num_paths: int
    candidates: float
    """Items on the paths that are visited."""
    nodes: float
    """Nodes that are scored to find these paths."""


@dataclass(frozen=True)
class CostGrowth:
    """How candidates and nodes depend on the number of paths: two power laws through one point.

    Attributes:
        num_paths: P_0, where the two laws are anchored.
        candidates: C(P_0).
        nodes: n(P_0).
        candidates_power: beta, C(P) = C(P_0) (P / P_0)^-beta.
        nodes_power: gamma, n(P) = n(P_0) (P / P_0)^gamma.
        measured_at: the numbers of paths that were measured; none where the powers are the usual ones.
    """

    num_paths: float
    candidates: float
    nodes: float
    candidates_power: float
    nodes_power: float
    measured_at: tuple[int, ...] = ()

    def candidates_at(self, num_paths: float) -> float:
        """Return C(P)."""
        return float(self.candidates * (num_paths / self.num_paths) ** -self.candidates_power)

    def nodes_at(self, num_paths: float) -> float:
        """Return n(P)."""
        return float(self.nodes * (num_paths / self.num_paths) ** self.nodes_power)

    def cheapest(self, candidate_cost: float) -> float:
        """Return the P at which the wanted recall takes the least work: gamma n(P) = beta m C(P)."""
        ratio = self.candidates_power * candidate_cost * self.candidates / (self.nodes_power * self.nodes)
        return float(self.num_paths * ratio ** (1 / (self.candidates_power + self.nodes_power)))

    def cheapest_for(self, candidates: float, candidate_cost: float) -> float:
        """Return the P at which the recall that ``candidates`` hold takes the least work: gamma n(P) = beta m C, C fixed."""
        ratio = self.candidates_power * candidate_cost * candidates / (self.nodes_power * self.nodes)
        return float(self.num_paths * ratio ** (1 / self.nodes_power))

    def balance(self, candidate_cost: float, candidates: float | None = None) -> float:
        """Return ln of gamma n over beta m C at P_0: below 0 where more paths take less work.

        Args:
            candidate_cost: m.
            candidates: C where it is given, else C(P_0).
        """
        spent = self.candidates if candidates is None else candidates
        return float(np.log(self.nodes_power * self.nodes / (self.candidates_power * candidate_cost * spent)))


def between(first: CostGrowth, second: CostGrowth, share: float) -> CostGrowth:
    """Return the growth at ``share`` of the way from one to another, in logarithms.

    Powers change with the number of paths: nodes rise faster and candidates fall more slowly where there are many. Between
    two growths whose balances have opposite signs, the secant's share b_1 / (b_1 - b_2) gives one of balance 0.
    """

    def mean(one: float, other: float) -> float:
        return float(one ** (1 - share) * other**share)

    return CostGrowth(
        num_paths=mean(first.num_paths, second.num_paths),
        candidates=mean(first.candidates, second.candidates),
        nodes=mean(first.nodes, second.nodes),
        candidates_power=mean(first.candidates_power, second.candidates_power),
        nodes_power=mean(first.nodes_power, second.nodes_power),
        measured_at=tuple(sorted({*first.measured_at, *second.measured_at})),
    )


def fit_growth(costs: Sequence[SizeCost]) -> CostGrowth:
    """Fit both power laws, by least squares in logarithms, to two or more numbers of paths.

    Raises:
        ValueError: fewer than two numbers of paths, or a figure that is not positive.
    """
    paths = np.array([cost.num_paths for cost in costs], dtype=np.float64)
    figures = np.array([(cost.candidates, cost.nodes) for cost in costs], dtype=np.float64).reshape(-1, 2)
    if len(np.unique(paths)) < 2 or not (paths > 0).all() or not (figures > 0).all():
        raise ValueError(f"a growth is fitted to positive figures of two or more numbers of paths, got {list(costs)}")
    middle, logs = np.log(paths).mean(), np.log(figures)
    slopes = np.polyfit(np.log(paths) - middle, logs, 1)[0]
    candidates, nodes = np.exp(logs.mean(axis=0))
    beta, gamma = np.clip([-slopes[0], slopes[1]], *POWER_RANGE)
    sizes = tuple(sorted({cost.num_paths for cost in costs}))
    return CostGrowth(float(np.exp(middle)), float(candidates), float(nodes), float(beta), float(gamma), sizes)


def usual_growth(num_items: int, paths_per_item: int, candidates: float) -> CostGrowth:
    """Return the growth to expect before anything is measured, with the powers of the worlds in docs/algorithm.md.

    Args:
        num_items: V.
        paths_per_item: J.
        candidates: C, taken to be needed at every number of paths.
    """
    num_paths = max(2.0, min(num_items * paths_per_item / FEWEST_ITEMS, candidates))
    visited = candidates * num_paths / (num_items * paths_per_item)
    width = children(num_paths)
    nodes = num_paths / width + width * USUAL_PREFIXES * visited
    return CostGrowth(num_paths, candidates, nodes, USUAL_CANDIDATES_POWER, USUAL_NODES_POWER)


def children(num_paths: float) -> int:
    """Return how many children a prefix gets when there are about ``num_paths`` paths."""
    return CHILDREN if num_paths >= FEW_PATHS else FEW_CHILDREN


def clip_num_paths(
    num_paths: float,
    num_items: int,
    paths_per_item: int,
    candidates: float,
    most_paths: int = MOST_PATHS,
    *,
    fewest_visits: int = FEWEST_VISITS,
) -> float:
    """Return the number of paths within its bounds.

    There are ``FEWEST_ITEMS`` items on a path at least, and then ``fewest_visits`` mean paths among the candidates at least,
    and then ``most_paths`` at most.

    Args:
        num_paths: P as wanted.
        num_items: V.
        paths_per_item: J, which is also the fewest paths there can be.
        candidates: C.
        most_paths: whose energies are all summed.
        fewest_visits: mean paths that the candidates fill.
    """
    places = num_items * paths_per_item
    lowest = fewest_visits * places / candidates
    clipped = max(min(num_paths, most_paths), lowest)
    return max(min(clipped, places / FEWEST_ITEMS), paths_per_item, 4.0)


def layers(num_paths: float, num_layers: int, most_children: int | None = None) -> tuple[int, ...]:
    """Return the nodes of each layer for about ``num_paths`` paths: many prefixes, few children each.

    A first layer of many nodes is predicted better than a later one, and what it opens costs few products: 512 x 32 took less
    work than 128 x 128.

    Args:
        num_paths: P, at least 4.
        num_layers: D, at least 1.
        most_children: of a prefix; by default as :func:`children` says.

    Returns:
        D numbers of at least 2; their product is P, rounded down to a multiple of all but the first.
    """
    if num_layers == 1:
        return (max(2, int(num_paths)),)
    width = min(most_children or children(num_paths), max(2, int(num_paths ** (1 / num_layers))))
    return (max(2, int(num_paths / width ** (num_layers - 1))), *(width,) * (num_layers - 1))
