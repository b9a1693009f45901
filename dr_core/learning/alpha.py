"""alpha, the weight of the penalty: where it starts, and how it is corrected by what users visit."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dr_core.learning.budget import StructureChoice
from dr_core.learning.config import LearningConfig
from dr_core.paths.penalty import correct_alpha, derive_alpha
from dr_core.paths.sizes import PathSizes


@dataclass(frozen=True)
class AlphaRule:
    """Where alpha comes from: given, or derived from the budget and corrected by measurement (docs/algorithm.md).

    Attributes:
        alpha: the start, or None to derive it from the mean N_v.
        wanted: items wanted on a visited path, or None when alpha is given and stands.
        corrections: M-step repetitions allowed.
    """

    alpha: float | None
    wanted: float | None
    corrections: int = 3
    power: int = 4

    def start(self, mean_weight: float) -> float:
        """Return the first alpha to try."""
        if self.alpha is not None:
            return self.alpha
        if self.wanted is None:
            raise ValueError("alpha is neither given nor can it be derived: items wanted on a visited path are missing")
        return derive_alpha(mean_weight, self.wanted)

    def starting_at(self, alpha: float) -> AlphaRule:
        """Return the same rule with the alpha of an earlier round as its start."""
        return replace(self, alpha=alpha)

    def corrected(self, alpha: float, measured: float, attempt: int) -> float | None:
        """Return the next alpha to try, or None when the measurement is near enough, tells nothing, or no attempt is left."""
        if self.wanted is None or attempt >= self.corrections or measured <= 0:
            return None
        if abs(measured / self.wanted - 1) < 0.1:
            return None
        return correct_alpha(alpha, measured, self.wanted)

    def is_nearer(self, measured: float, before: float) -> bool:
        """Tell whether a correction brought the measurement at least a twentieth nearer to what is wanted.

        Where it does not, the paths that would have to grow or shrink are out of its reach, and alpha stays: corrected
        again from day to day it would leave all proportion.
        """
        if self.wanted is None or measured <= 0:
            return False
        return abs(math.log(measured / self.wanted)) < 0.95 * abs(math.log(before / self.wanted))


def items_per_visited_path(sizes: PathSizes, visited_paths: npt.NDArray[np.int64]) -> float:
    """Return the mean number of items on visited paths, int64 [U, B], -1 for none; 0 where none was visited."""
    visited = visited_paths[visited_paths >= 0]
    return float(sizes.of(visited).mean()) if visited.size else 0.0


def alpha_rule(config: LearningConfig, choice: StructureChoice) -> AlphaRule:
    """Return where alpha comes from in this run."""
    if config.penalty.alpha == "auto":
        return AlphaRule(None, choice.items_per_visited_path, config.penalty.corrections, config.penalty.power)
    return AlphaRule(config.penalty.alpha, None, 0, config.penalty.power)


def carried_alpha_rule(
    config: LearningConfig, choice: StructureChoice, alpha: float | None, growth: float
) -> AlphaRule:
    """Return where alpha comes from in a round that goes on from an earlier run.

    The earlier alpha is scaled as N_v has grown or shrunk, since it must keep its proportion to the mean weight. It is
    corrected once at most: a structure should stay put.

    Args:
        config, choice: of the run.
        alpha: that the structure in force was found with; None where no descent has made it, and the rule is a first
            run's.
        growth: mean N_v now over what it was then.
    """
    rule = alpha_rule(config, choice)
    if rule.wanted is None or alpha is None:
        return rule
    return replace(rule, alpha=alpha * growth, corrections=min(1, rule.corrections))
