"""Percentile bootstrap over users: intervals of a mean and of the difference of two paired means.

Several seeds are given as a list of user blocks and are concatenated; users are drawn independently, so each seed
should have its own test users (average over seeds first where they share them).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dr_core.arrays import DoubleArray

UserBlocks = DoubleArray | Sequence[DoubleArray]
"""float64 [U], or one such array a seed."""

_CHUNK_CELLS = 2**21
"""Draws held at once."""


def bootstrap_interval(
    values: UserBlocks, num_resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Return the percentile interval of the mean over users.

    Args:
        values: a figure a user; NaN users are left out.
        num_resamples: bootstrap samples; the ends' noise falls with its root.
        seed: of the draws.
        level: share of bootstrap means inside the interval.

    Returns:
        (low, high), in the unit of ``values``.

    Raises:
        ValueError: no user has a figure, ``num_resamples`` < 1, or ``level`` not within (0, 1).
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie between 0 and 1, was {level}")
    means = bootstrap_means(values, num_resamples, seed)
    low, high = np.quantile(means, ((1.0 - level) / 2.0, (1.0 + level) / 2.0))
    return float(low), float(high)


def paired_bootstrap(
    values_a: UserBlocks, values_b: UserBlocks, num_resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float, float]:
    """Return the mean of a - b over users and its percentile interval; both methods are drawn together.

    Args:
        values_a: a figure a user; a user with NaN in either is left out of both.
        values_b: the other method's, the same users in the same order.
        num_resamples: bootstrap samples.
        seed: of the draws.
        level: share of bootstrap means inside the interval.

    Returns:
        (mean, low, high), in the unit of the values.

    Raises:
        ValueError: the methods have different users, no user has both figures, or a bad number of resamples or level.
    """
    sizes_a, sizes_b = ([len(block) for block in _blocks(values)] for values in (values_a, values_b))
    if sizes_a != sizes_b:
        raise ValueError(f"paired methods need the same users, have blocks of {sizes_a} and {sizes_b}")
    difference = _concatenate(values_a) - _concatenate(values_b)
    low, high = bootstrap_interval(difference, num_resamples, seed, level)
    return float(np.nanmean(difference)), low, high


def bootstrap_means(values: UserBlocks, num_resamples: int, seed: int) -> DoubleArray:
    """Return the means of ``num_resamples`` samples of the users, with replacement, float64 [num_resamples].

    Raises:
        ValueError: no user has a figure, or ``num_resamples`` < 1.
    """
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, was {num_resamples}")
    defined = _concatenate(values)
    defined = defined[~np.isnan(defined)]
    if not len(defined):
        raise ValueError("no user has a figure to resample")
    generator = np.random.default_rng(seed)
    means = np.empty(num_resamples)
    chunk = max(1, _CHUNK_CELLS // len(defined))
    for start in range(0, num_resamples, chunk):
        stop = min(start + chunk, num_resamples)
        drawn = generator.integers(0, len(defined), size=(stop - start, len(defined)), dtype=np.int32)
        means[start:stop] = defined[drawn].mean(axis=1)
    return means


def _blocks(values: UserBlocks) -> list[DoubleArray]:
    blocks = [values] if isinstance(values, np.ndarray) else list(values)
    arrays = [np.asarray(block, dtype=np.float64) for block in blocks]
    if any(array.ndim != 1 for array in arrays):
        raise ValueError("a block of users must be a vector of one figure a user")
    return arrays


def _concatenate(values: UserBlocks) -> DoubleArray:
    return np.concatenate([np.empty(0), *_blocks(values)])
