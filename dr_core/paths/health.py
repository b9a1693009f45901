"""How evenly the items lie on the paths, and when that is no longer a structure worth publishing."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from dr_core.config import Config
from dr_core.paths.space import PathSpace


@dataclass(frozen=True)
class Health:
    """Figures of one mapping of items to paths.

    Gini coefficient and entropy are taken over the paths that could be in use: K^D, or the number of (item, path)
    pairs if that is smaller, counting those not in use as empty. A mapping spread as evenly as possible has a Gini
    coefficient of 0 and a normalised entropy of 1; all items on one path give nearly 1 and 0.

    Attributes:
        occupied_paths: paths that hold an item.
        usable_paths: min(K^D, pairs), as many as could be in use.
        largest_path: items on the longest path.
        mean_path: items on an occupied path, mean.
        visited_path: items on the path of an item drawn at random with one of its paths, mean: sum size^2 / sum size.
        gini: 0 (all paths alike) to 1.
        normalized_entropy: 0 (one path) to 1 (all alike).
        items_without_path: items whose row is all -1.
    """

    occupied_paths: int
    usable_paths: int
    largest_path: int
    mean_path: float
    visited_path: float
    gini: float
    normalized_entropy: float
    items_without_path: int


class HealthLimits(Config):
    """Bounds that a mapping must keep to be published; each refusal names its figure, bound and remedy."""

    max_largest_share: float = Field(default=0.05, gt=0, le=1)
    """Largest path, as a share of the items. Above it one path returns a good part of the catalogue: raise alpha."""

    max_small_path: int = Field(default=10, ge=1)
    """Items that a path may hold whatever their share: in a small catalogue a few items are a large share of it."""

    min_normalized_entropy: float = Field(default=0.5, ge=0, le=1)
    """Entropy of the path sizes, 1 = even. Below it the mapping has collapsed: raise alpha, or start from k-means."""

    max_gini: float = Field(default=0.995, ge=0, le=1)
    """Gini coefficient of the path sizes, 0 = even. Above it few paths hold nearly all items: raise alpha."""

    min_occupied_share: float = Field(default=0.005, ge=0, le=1)
    """Occupied paths, as a share of min(K^D, V * J). Below it most of the space is unused: lower K, or raise alpha."""

    max_share_without_path: float = Field(default=0.0, ge=0, le=1)
    """Items without any path, as a share of the items. They can never be retrieved: give them a start."""


def measure_health(path_ids: ArrayLike, space: PathSpace) -> Health:
    """Measure a mapping.

    Args:
        path_ids: int [V, J], paths of the items, -1 = none.
        space: [K]^D.

    Raises:
        ValueError: not two axes, or an id outside the space.
    """
    path_ids = space.check(path_ids, allow_padding=True)
    if path_ids.ndim != 2:
        raise ValueError(f"path_ids must be [V, J], got shape {path_ids.shape}")
    without_path = int(np.count_nonzero(np.all(path_ids < 0, axis=1)))
    sizes = np.sort(np.unique(path_ids[path_ids >= 0], return_counts=True)[1]).astype(np.float64)
    if len(sizes) == 0:
        return Health(0, 0, 0, 0.0, 0.0, 0.0, 0.0, without_path)
    pairs = sizes.sum()
    usable = min(space.num_paths, int(pairs))
    shares = sizes / pairs
    entropy = float(-np.sum(shares * np.log(shares)))
    rank = np.arange(usable - len(sizes) + 1, usable + 1, dtype=np.float64)
    return Health(
        occupied_paths=len(sizes),
        usable_paths=usable,
        largest_path=int(sizes[-1]),
        mean_path=float(sizes.mean()),
        visited_path=float(np.sum(sizes * shares)),
        gini=float(np.sum((2 * rank - usable - 1) * shares) / usable),
        normalized_entropy=entropy / float(np.log(usable)) if usable > 1 else 1.0,
        items_without_path=without_path,
    )


def check_health(health: Health, limits: HealthLimits, num_items: int) -> list[str]:
    """What a mapping violates, one sentence each: figure, bound and what to turn. Empty if it is healthy.

    Args:
        health: measured figures.
        limits: bounds.
        num_items: V, the items that should have paths.

    Raises:
        ValueError: ``num_items`` below 1.
    """
    if num_items < 1:
        raise ValueError(f"num_items must be at least 1, got {num_items}")
    violations = []
    largest_share = health.largest_path / num_items
    if largest_share > limits.max_largest_share and health.largest_path > limits.max_small_path:
        violations.append(
            f"collapse: the largest path holds {health.largest_path} of {num_items} items ({largest_share:.1%}), "
            f"allowed are {limits.max_largest_share:.1%} (max_largest_share) or {limits.max_small_path} items "
            "(max_small_path); raise alpha, or raise K"
        )
    if health.normalized_entropy < limits.min_normalized_entropy:
        violations.append(
            f"collapse: the normalised entropy of the path sizes is {health.normalized_entropy:.3f}, at least "
            f"{limits.min_normalized_entropy:.3f} is asked for (min_normalized_entropy); raise alpha, or start from "
            "balanced k-means instead of random paths"
        )
    if health.gini > limits.max_gini:
        violations.append(
            f"skew: the Gini coefficient of the path sizes is {health.gini:.3f}, allowed is {limits.max_gini:.3f} "
            "(max_gini); raise alpha"
        )
    occupied_share = health.occupied_paths / max(health.usable_paths, 1)
    if occupied_share < limits.min_occupied_share:
        violations.append(
            f"unused paths: {health.occupied_paths} of {health.usable_paths} usable paths hold an item "
            f"({occupied_share:.2%}), at least {limits.min_occupied_share:.2%} is asked for (min_occupied_share); lower K, "
            "or raise alpha"
        )
    share_without = health.items_without_path / num_items
    if share_without > limits.max_share_without_path:
        violations.append(
            f"unreachable items: {health.items_without_path} of {num_items} items have no path ({share_without:.2%}), "
            f"allowed are {limits.max_share_without_path:.2%} (max_share_without_path); initialise their paths"
        )
    return violations
