"""From what retrieval may cost to the shape of the structure: K, and the items wanted on a visited path."""

from __future__ import annotations

from dataclasses import dataclass

from dr_core.learning.config import LearningConfig
from dr_core.paths.penalty import suggest_num_nodes
from dr_core.paths.space import PathSpace

SMALLEST_MULTIPLE = 1.5
"""Items wanted on a visited path, at least, in units of the mean path; asked for less, alpha flattens all paths."""

SERVED = (0.4, 1.0, 2.5, 6.5)
"""Widths at which a mapping is judged, in units of the candidates asked for: a structure is not served at one width alone."""
ALWAYS, WIDEST_SHARE = 2.5, 0.05
"""Widths of more than ``ALWAYS`` budgets count only up to this share of the items."""


@dataclass(frozen=True)
class StructureChoice:
    """What was chosen, and the sentences that say why."""

    num_items: int
    space: PathSpace
    candidates: float
    items_per_visited_path: float
    reasons: tuple[str, ...]

    @property
    def budgets(self) -> tuple[float, ...]:
        """Candidates a user at the widths that mappings are refined for."""
        return tuple(
            share * self.candidates
            for share in SERVED
            if share <= ALWAYS or share * self.candidates <= WIDEST_SHARE * self.num_items
        )


def choose_structure(config: LearningConfig, num_items: int, num_paths: int) -> StructureChoice:
    """Choose K and the items wanted on a visited path from V, J and the budget.

    A beam of B that is to find C candidates needs C / B items on a visited path; K is the smallest with
    K^D >= path_length_slack V J / (C / B): fewer, longer paths cost far fewer node scores at equal recall.
    """
    candidates = float(config.budget.candidates or max(1.0, config.budget.candidate_share * num_items))
    wanted = max(1.0, candidates / config.budget.beam)
    reasons = [
        f"budget: {candidates:.0f} candidates with a beam of {config.budget.beam}, so {wanted:.1f} items on a visited path"
    ]
    num_layers = config.paths.num_layers
    if config.paths.nodes:
        space = PathSpace(config.paths.nodes)
        reasons.append(f"{space}: as configured")
    elif config.paths.num_nodes == "auto":
        num_nodes = suggest_num_nodes(num_items, num_paths, wanted, num_layers, config.paths.path_length_slack)
        space = PathSpace.even(num_nodes, num_layers)
        reasons.append(
            f"K={num_nodes}: the smallest with K^{num_layers} >= {config.paths.path_length_slack:g} x {num_items} items x J={num_paths} / {wanted:.1f}"
        )
    else:
        space = PathSpace.even(config.paths.num_nodes, num_layers)
        reasons.append(f"K={config.paths.num_nodes}: as configured")
    mean_path = num_items * num_paths / space.num_paths
    if wanted < SMALLEST_MULTIPLE * mean_path:
        wanted = SMALLEST_MULTIPLE * mean_path
        reasons.append(
            f"items wanted on a visited path raised to {wanted:.1f}: {SMALLEST_MULTIPLE} times the mean path of {mean_path:.1f}"
        )
    return StructureChoice(num_items, space, candidates, wanted, tuple(reasons))
