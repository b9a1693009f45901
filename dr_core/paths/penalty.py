"""The penalty alpha * sum_c f(|c|) on path sizes, and how alpha follows from the data."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64Array = NDArray[np.float64]


@dataclass(frozen=True)
class Penalty:
    """alpha * sum over paths of f(|c|) with f(c) = c^p / p (Deep Retrieval, section 2.1).

    Args:
        power: p, at least 2, so that f is convex: 4 is the paper's choice, 2 its milder alternative. The higher, the
            harder the largest paths are held down relative to the mean ones.
        alpha: factor, in nats of log likelihood. Larger spreads the items over more, shorter paths.

    Raises:
        ValueError: power below 2 or above 16, or alpha negative or not finite.
    """

    power: int
    alpha: float

    def __post_init__(self) -> None:
        if not 2 <= self.power <= 16 or self.power != int(self.power):
            raise ValueError(f"power must be an integer from 2 to 16, got {self.power}")
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise ValueError(f"alpha must be finite and not negative, got {self.alpha}")

    def size_cost(self, size: ArrayLike) -> Float64Array:
        """f(size), float64, without alpha; ``size`` int [...] in items."""
        cost: Float64Array = np.asarray(size, dtype=np.float64) ** self.power / self.power
        return cost

    def marginal(self, size: ArrayLike) -> Float64Array:
        """f(size + 1) - f(size), float64, without alpha.

        Summed as sum_i (size + 1)^i size^(p - 1 - i) / p, which has no cancellation however large the path is.
        """
        size = np.asarray(size, dtype=np.float64)
        total: Float64Array = np.ones_like(size)
        size_power = np.ones_like(size)
        for _ in range(self.power - 1):
            size_power = size_power * size
            total = total * (size + 1.0) + size_power
        return total / self.power

    def total(self, sizes: ArrayLike) -> float:
        """alpha * sum of f over ``sizes`` int [...]; empty paths may be left out, f(0) = 0."""
        return self.alpha * float(np.sum(self.size_cost(sizes)))


def derive_alpha(mean_weight: float, items_per_visited_path: float, constant: float = 6.0) -> float:
    """The alpha at which a visited path holds about the wanted number of items: constant * mean_weight / wanted^3.

    For the quartic penalty, where one more item on a path of size l costs about alpha * l^3 and is worth a fraction of
    the item's weight.

    Args:
        mean_weight: mean N_v of the M-step, in events an item.
        items_per_visited_path: l = candidates wanted / beam.
        constant: measured 5 to 17 over three catalogues; it drifts with l, so correct it with :func:`correct_alpha`.

    Raises:
        ValueError: an argument is not positive and finite.
    """
    _require_positive(mean_weight=mean_weight, items_per_visited_path=items_per_visited_path, constant=constant)
    return constant * mean_weight / items_per_visited_path**3


def correct_alpha(alpha: float, measured: float, wanted: float, max_factor: float = 4.0) -> float:
    """alpha * (measured / wanted)^3, the factor clipped to [1 / max_factor, max_factor].

    Args:
        alpha: the one in force.
        measured: items on a visited path after the M-step.
        wanted: items on a visited path asked for.
        max_factor: the largest change in one step, at least 1.

    Raises:
        ValueError: an argument is not positive and finite, or ``max_factor`` is below 1.
    """
    _require_positive(alpha=alpha, measured=measured, wanted=wanted, max_factor=max_factor)
    if max_factor < 1:
        raise ValueError(f"max_factor must be at least 1, got {max_factor}")
    return alpha * min(max((measured / wanted) ** 3, 1.0 / max_factor), max_factor)


def suggest_num_nodes(
    num_items: int, paths_per_item: int, items_per_visited_path: float, num_layers: int, path_length_slack: float = 2.0
) -> int:
    """The smallest K >= 2 with K^D >= path_length_slack * V * J / l.

    Fewer, longer paths cost far fewer node scores at equal recall, so that K need not be larger than this.

    Args:
        num_items: V.
        paths_per_item: J.
        items_per_visited_path: l, items wanted on a visited path.
        num_layers: D.
        path_length_slack: how many times longer a visited path is than the mean path.

    Raises:
        ValueError: an argument is not positive.
    """
    _require_positive(
        path_length_slack=path_length_slack,
        num_items=num_items,
        paths_per_item=paths_per_item,
        items_per_visited_path=items_per_visited_path,
        num_layers=num_layers,
    )
    wanted_paths = path_length_slack * num_items * paths_per_item / items_per_visited_path
    num_nodes = max(2, int(wanted_paths ** (1.0 / num_layers)) - 1)
    while num_nodes**num_layers < wanted_paths:
        num_nodes += 1
    return num_nodes


def _require_positive(**values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive and finite, got {value}")
