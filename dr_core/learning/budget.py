"""From what retrieval may cost to the shape of the structure: its layers, and the items wanted on a visited path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dr_core.learning.choices import choose_algorithms, choose_m_step, filled_paths
from dr_core.learning.config import LearningConfig
from dr_core.paths.length import (
    FEWEST_VISITS,
    VISITS_OF_BUDGET,
    CostGrowth,
    clip_num_paths,
    layers,
    usual_growth,
)
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

    def as_dict(self) -> dict[str, Any]:
        """Return the choice as plain data, which :meth:`from_dict` reads; ``K`` is of the first layer."""
        return {
            "K": self.space.nodes[0],
            "D": self.space.num_layers,
            "nodes": list(self.space.nodes),
            "candidates": self.candidates,
            "items_per_visited_path": self.items_per_visited_path,
            "reasons": list(self.reasons),
        }

    @classmethod
    def from_dict(cls, known: Mapping[str, Any], num_items: int) -> StructureChoice:
        """Return the choice of ``num_items`` items that :meth:`as_dict` wrote."""
        space = PathSpace(tuple(known["nodes"]))
        return cls(num_items, space, known["candidates"], known["items_per_visited_path"], tuple(known["reasons"]))


def served_candidates(config: LearningConfig, choice: StructureChoice) -> float:
    """Return the candidates that a user's search should find on average: as configured for serving, else what the budget
    names, in candidates or by a recall, else 7.5 for every item of a list."""
    budget, serving = config.budget, config.serving
    is_named = budget.candidates is not None or budget.recall is not None
    return choice.candidates if serving.candidates == "auto" and is_named else serving.wanted_candidates


def refuse_unlearnable(config: LearningConfig, num_items: int, num_paths: int) -> None:
    """Refuse, before anything is trained, what :func:`dr_core.learning.choices.choose_algorithms` would refuse after it.

    Args:
        config: of the run.
        num_items: V.
        num_paths: J.

    Raises:
        ConfigError: the M-step cannot run for this V and J, or the structure not over the given layers.
    """
    space = configured_space(config)
    if space is None:
        choose_m_step(config.assignment, num_items, num_paths, config.structure.normaliser)
    else:
        choose_algorithms(config, num_items, num_paths, space)


def follows_costs(config: LearningConfig) -> bool:
    """Whether the layers follow from what searches cost: not where the user gives them, nor where one K is for all layers."""
    return config.structure.normaliser == "global" and configured_space(config) is None


def needs_costs(config: LearningConfig) -> bool:
    """Whether something is chosen that is measured on the data: the layers, or the candidates that a recall needs."""
    return follows_costs(config) or config.budget.recall is not None


def choose_structure(
    config: LearningConfig, num_items: int, num_paths: int, growth: CostGrowth | None = None
) -> StructureChoice:
    """Choose the layers and the items wanted on a visited path from V, J, the budget and what searches cost.

    With a global normaliser there are as many paths as make a search cheapest (:mod:`dr_core.paths.length`). A product of
    layers has one K: a beam of B that is to find C candidates needs C / B items on a visited path, and K is the smallest with
    K^D >= path_length_slack V J / (C / B), since fewer, longer paths cost far fewer node scores at equal recall.

    Args:
        config: of the run.
        num_items: V.
        num_paths: J.
        growth: as measured (:func:`dr_core.learning.path_costs.measure_growth`); None takes the usual one.
    """
    most, num_paths = num_paths, filled_paths(config, num_items, num_paths)
    paths, candidates = config.paths, config.budget.expected_candidates(num_items)
    known = growth or usual_growth(num_items, num_paths, candidates)
    space, why = configured_space(config), "as configured"
    if space is None:
        cheapest, why = cheapest_paths(config, num_items, num_paths, known)
        cheapest = max(cheapest, float(most))
    reasons = []
    if config.budget.recall is not None:
        candidates = max(1.0, known.candidates_at(space.num_paths if space else cheapest))
        reasons.append(
            f"budget: {100 * config.budget.recall:g} % of the softmax's best {config.training.validation_k} items take {candidates:.0f}"
            f" candidates, {_source(known)}"
        )
    if space is None and follows_costs(config):
        space = PathSpace(layers(cheapest, paths.num_layers))
    wanted = _wanted(config, num_items, num_paths, space, candidates)
    if config.structure.normaliser == "layers":
        reasons.append(
            f"budget: {candidates:.0f} candidates with a beam of {config.budget.beam}, so {wanted:.1f} items on a visited path"
        )
    if space is None:
        num_nodes = suggest_num_nodes(num_items, num_paths, wanted, paths.num_layers, paths.path_length_slack)
        space = PathSpace.even(num_nodes, paths.num_layers)
        why = (
            f"the smallest K with K^{paths.num_layers} >= {paths.path_length_slack:g} x {num_items} items x J={num_paths}"
            f" / {wanted:.1f}"
        )
    reasons.append(f"{space}: {why}")
    return _choice(num_items, num_paths, space, candidates, wanted, reasons)


def keep_structure(
    config: LearningConfig, num_items: int, num_paths: int, space: PathSpace, candidates: float
) -> StructureChoice:
    """Return the choice that keeps the paths there are, as a refresh does."""
    num_paths = filled_paths(config, num_items, num_paths)
    wanted = _wanted(config, num_items, num_paths, space, candidates)
    return _choice(num_items, num_paths, space, candidates, wanted, [f"{space}: as they are"])


def _wanted(
    config: LearningConfig, num_items: int, num_paths: int, space: PathSpace | None, candidates: float
) -> float:
    """Return the items wanted on a visited path: what a beam has to find, or little more than the mean where a search stops
    at a price."""
    if config.structure.normaliser == "layers" or space is None:
        return max(1.0, candidates / config.budget.beam)
    return max(1.0, SMALLEST_MULTIPLE * num_items * num_paths / space.num_paths)


def visiting_beam(config: LearningConfig, choice: StructureChoice) -> int:
    """Return B, the paths of a user that count as visited while paths are learned: those that hold the candidates asked for."""
    if config.structure.normaliser == "layers":
        return config.budget.beam
    return max(1, round(choice.candidates / choice.items_per_visited_path))


def cheapest_paths(config: LearningConfig, num_items: int, num_paths: int, growth: CostGrowth) -> tuple[float, str]:
    """Return the number of paths at which a search does least work, within its bounds, and a sentence that says why."""
    budget = config.budget
    candidates = budget.expected_candidates(num_items)
    if budget.recall is None:
        cheapest, visits = growth.cheapest_for(candidates, budget.candidate_cost), VISITS_OF_BUDGET
    else:
        cheapest, visits = growth.cheapest(budget.candidate_cost), FEWEST_VISITS
        candidates = growth.candidates_at(cheapest)
    most = config.structure.exact_paths
    length = clip_num_paths(cheapest, num_items, num_paths, candidates, most, fewest_visits=visits)
    reason = (
        f"{length:.0f} paths, since candidates fall as P^-{growth.candidates_power:.2f} and nodes rise as"
        f" P^{growth.nodes_power:.2f} ({_source(growth)}) and a candidate costs {budget.candidate_cost:g} nodes"
    )
    if abs(length / cheapest - 1) > 1e-6:
        reason += f"; {cheapest:.0f} were cheapest, but {num_items} items and {candidates:.0f} candidates ask for {'more' if length > cheapest else 'fewer'}"
    return length, reason


def _choice(
    num_items: int, num_paths: int, space: PathSpace, candidates: float, wanted: float, reasons: list[str]
) -> StructureChoice:
    mean_path = num_items * num_paths / space.num_paths
    if wanted < SMALLEST_MULTIPLE * mean_path:
        wanted = SMALLEST_MULTIPLE * mean_path
        reasons.append(
            f"items wanted on a visited path raised to {wanted:.1f}: {SMALLEST_MULTIPLE} times the mean path of {mean_path:.1f}"
        )
    return StructureChoice(num_items, space, candidates, wanted, tuple(reasons))


def _source(growth: CostGrowth) -> str:
    if not growth.measured_at:
        return "usual figures, not measured"
    return f"measured with {' and '.join(map(str, growth.measured_at))} paths"


def configured_space(config: LearningConfig) -> PathSpace | None:
    """Return the space that the user gives; None where it is chosen."""
    paths = config.paths
    if paths.nodes is not None:
        return PathSpace(paths.nodes)
    return None if paths.num_nodes == "auto" else PathSpace.even(paths.num_nodes, paths.num_layers)
