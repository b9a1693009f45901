"""Compare methods along a cost axis: at equal candidates, or at equal multiply-adds.

A curve is one method's points as its beam (or another knob) is swept: the mean cost of a point over users, and its figure
for every user. Between two points a method is the mixture of the two beams: a user is served by the wider one with the
probability that makes the mean cost come out, so both cost and figure are linear in between.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dr_core.arrays import DoubleArray
from dr_core.evaluation.bootstrap import paired_bootstrap

CurvePoint = tuple[float, DoubleArray]
"""The mean of the axis over users, and the figure of every user, float64 [U] (NaN where it is not defined)."""
Curve = Sequence[CurvePoint]


def at_axis(points: Curve, at: float) -> DoubleArray:
    """Return every user's figure where the method's mean cost is ``at``, float64 [U].

    Linear between the two bracketing points. Only these two matter, and only the one that is hit where ``at`` is a
    point's own cost: a NaN elsewhere does not spread. Of several points of one cost the first given counts.

    Args:
        points: the method's curve, in any order.
        at: the cost to look at, in the unit of the axis.

    Raises:
        ValueError: no points, a cost that is not finite, points of different users, or ``at`` outside their range.
    """
    costs, values = _sorted_points(points)
    if not costs[0] <= at <= costs[-1]:
        raise ValueError(f"{at:g} lies outside the curve, which runs from {costs[0]:g} to {costs[-1]:g}")
    right = int(np.searchsorted(costs, at))
    if costs[right] == at:
        return values[right].copy()
    share = (at - costs[right - 1]) / (costs[right] - costs[right - 1])
    return np.asarray((1.0 - share) * values[right - 1] + share * values[right], dtype=np.float64)


def shared_range(curves: Sequence[Curve]) -> tuple[float, float]:
    """Return (low, high): the costs at which every one of the curves can be read by :func:`at_axis`.

    Raises:
        ValueError: no curve, a curve without points, or curves that share no cost.
    """
    if not curves:
        raise ValueError("no curves were given")
    ends = [_sorted_points(points)[0][[0, -1]] for points in curves]
    low, high = float(max(end[0] for end in ends)), float(min(end[1] for end in ends))
    if low > high:
        raise ValueError(f"the curves share no cost: one starts at {low:g}, another ends at {high:g}")
    return low, high


def paired_difference(
    method_points: Sequence[Curve],
    against_points: Sequence[Curve],
    at: float,
    num_resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return the mean over users of method - against at equal cost, and its 95 % interval (paired bootstrap).

    Args:
        method_points: one curve a seed.
        against_points: one curve a seed, each of the same users as the method's.
        at: the cost at which both are read, seed by seed.
        num_resamples: bootstrap samples over the users of all seeds.
        seed: of the draws.

    Returns:
        (mean, low, high), in the unit of the figure. A user without a figure in either is left out.

    Raises:
        ValueError: different numbers of seeds or users, ``at`` outside a curve, or no user with both figures.
    """
    if len(method_points) != len(against_points):
        raise ValueError(f"{len(method_points)} seeds of the method, {len(against_points)} of its baseline")
    method, against = ([at_axis(curve, at) for curve in curves] for curves in (method_points, against_points))
    return paired_bootstrap(method, against, num_resamples, seed)


def _sorted_points(points: Curve) -> tuple[DoubleArray, list[DoubleArray]]:
    if not len(points):
        raise ValueError("a curve needs at least one point")
    costs = np.array([cost for cost, _ in points], dtype=np.float64)
    values = [np.asarray(figure, dtype=np.float64) for _, figure in points]
    if not np.isfinite(costs).all():
        raise ValueError("every point of a curve needs a finite cost")
    if any(figure.shape != values[0].shape or figure.ndim != 1 for figure in values):
        raise ValueError("every point of a curve needs one figure for each of the same users")
    order = np.argsort(costs, kind="stable")
    return costs[order], [values[number] for number in order]
