"""Which algorithm runs where a run's size decides it: each choice with the reason for it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

from dr_core.errors import ConfigError
from dr_core.learning.config import AssignmentConfig, LearningConfig
from dr_core.model.structure_config import Normaliser, StructureConfig
from dr_core.paths.sizes import DENSE_LIMIT
from dr_core.paths.space import PathSpace

logger = logging.getLogger(__name__)

MStepKind = Literal["descent", "refinement", "both"]


@dataclass(frozen=True)
class Choice:
    """What runs, and one sentence that says why."""

    kind: str
    reason: str


@dataclass(frozen=True)
class MStepChoice(Choice):
    """Which M-step runs.

    ``descent`` is Algorithm 2 alone; ``refinement`` moves items by the softmax's mass alone; ``both`` descends and then
    refines the better of the descent's mapping and the one before it.
    """

    kind: MStepKind

    @property
    def descends(self) -> bool:
        """Whether s[v, c] is collected and the coordinate descent runs."""
        return self.kind != "refinement"

    @property
    def refines(self) -> bool:
        """Whether the refinement runs."""
        return self.kind != "descent"


def choose_m_step(
    config: AssignmentConfig, num_items: int, num_paths: int, normaliser: Normaliser = "global"
) -> MStepChoice:
    """Choose the M-step of a run.

    Args:
        config: `m_step` as the user wants it.
        num_items: V.
        num_paths: J, paths an item.
        normaliser: of p(c|x).

    Raises:
        ConfigError: a refinement was asked for where it cannot run.
    """
    obstacle = _why_not_refined(config, num_items, num_paths, normaliser)
    if config.m_step == "auto" and obstacle:
        return MStepChoice("descent", f"no refinement: {obstacle}")
    if config.m_step == "auto" and normaliser == "global":
        return MStepChoice(
            "refinement",
            f"{num_items} items are at most {config.refine_items}, and energies say who visits a path",
        )
    if config.m_step == "auto":
        return MStepChoice("both", f"an item has one path, and {num_items} items are at most {config.refine_items}")
    if config.m_step != "descent" and obstacle:
        raise ConfigError(f"assignment.m_step: {config.m_step} cannot run: {obstacle}; choose auto or descent")
    return MStepChoice(config.m_step, "as configured")


def filled_paths(config: LearningConfig, num_items: int, num_paths: int) -> int:
    """Return how many paths most items have: 1 where the refinement adds further ones only if they pay, else J.

    Args:
        config: of the run.
        num_items: V.
        num_paths: J, the most.
    """
    kind = choose_m_step(config.assignment, num_items, num_paths, config.structure.normaliser).kind
    return 1 if kind == "refinement" else num_paths


def round_epochs(config: LearningConfig, m_step: MStepChoice) -> int:
    """Return the epochs of an E-step that an M-step follows.

    One where energies are refined: the refinement fits energies of its own, and the next E-step begins by formula, so that
    this one only tells what p(c|x) is under the mapping so far.

    Args:
        config: of the run.
        m_step: that follows.
    """
    only_told = config.structure.normaliser == "global" and not m_step.descends
    return 1 if only_told else config.em.e_step_epochs


def kept_epochs(config: LearningConfig) -> int:
    """Return the epochs of an E-step before the last that the structure model keeps: none of energies, which begin anew at
    every E-step, all of a product of layers."""
    return config.em.e_step_epochs if config.structure.normaliser == "layers" else 0


def _why_not_refined(config: AssignmentConfig, num_items: int, num_paths: int, normaliser: Normaliser) -> str | None:
    if num_paths > 1 and normaliser == "layers":
        return (
            f"under a product of layers it moves items that have one path each, here they have {num_paths}"
            " (paths.paths_per_item)"
        )
    if num_items > config.refine_items:
        return f"{num_items} items are more than one process refines (assignment.refine_items: {config.refine_items})"
    if config.refine_sweeps == 0:
        return "it may not sweep (assignment.refine_sweeps: 0)"
    return None


def choose_normaliser(config: StructureConfig, space: PathSpace) -> Choice:
    """Return what p(c|x) is normalised over, as configured, and what follows from the size of the space.

    Raises:
        ConfigError: layers of different sizes are to share their tables of K nodes, or there are too many paths.
    """
    if config.normaliser == "layers":
        if not space.is_even:
            raise ConfigError(
                f"paths.nodes={list(space.nodes)}: a product of layers needs as many nodes in each; set"
                " structure.normaliser: global, or one K by paths.num_nodes and paths.num_layers"
            )
        return Choice("layers", "each layer is normalised by itself, as configured (structure.normaliser)")
    if space.num_paths <= config.exact_paths:
        return Choice("global", f"Z sums {space.num_paths} paths, at most {config.exact_paths} (structure.exact_paths)")
    if space.num_prefixes(space.num_layers - 1) > config.exact_paths:
        raise ConfigError(
            f"{space.num_paths} paths below more than {config.exact_paths} prefixes (structure.exact_paths): give the last"
            " layer more nodes by paths.nodes, or raise structure.exact_paths"
        )
    return Choice(
        "global", f"Z is estimated: {space.num_paths} paths are more than {config.exact_paths} (structure.exact_paths)"
    )


def choose_path_vectors(config: StructureConfig, space: PathSpace) -> Choice:
    """Choose the last layer of p(c|x): ``vectors``, one for each path, or an ``mlp`` as in the layers before."""
    if config.normaliser == "global":
        return Choice("vectors", "every path has an energy (structure.normaliser: global)")
    if config.has_path_vectors(space):
        return Choice("vectors", f"{space.num_paths} paths are at most {config.path_vectors} (structure.path_vectors)")
    if space.num_layers == 1:
        return Choice("mlp", "there is one layer only")
    return Choice("mlp", f"{space.num_paths} paths are more than {config.path_vectors} (structure.path_vectors)")


def choose_search(config: StructureConfig, space: PathSpace) -> Choice:
    """Choose what a search ranks whole paths by: ``p/|c|``, the probability of one of their items, or ``p``."""
    if config.normaliser == "global":
        return Choice("p/|c|", "a path is visited if its items are worth the price (structure.normaliser: global)")
    if space.num_paths <= DENSE_LIMIT:
        return Choice("p/|c|", f"{space.num_paths} paths are at most {DENSE_LIMIT}: a table holds the length of each")
    return Choice("p", f"{space.num_paths} paths are more than {DENSE_LIMIT}, the most whose lengths a table holds")


def choose_algorithms(config: LearningConfig, num_items: int, num_paths: int, space: PathSpace) -> dict[str, Choice]:
    """Return every choice of a run by its name in ``summary.structure``: m_step, normaliser, path_vectors, search.

    Args:
        config: of the run.
        num_items: V.
        num_paths: J, paths an item.
        space: of the paths.

    Raises:
        ConfigError: as :func:`choose_m_step` and :func:`choose_normaliser`.
    """
    return {
        "m_step": choose_m_step(config.assignment, num_items, num_paths, config.structure.normaliser),
        "normaliser": choose_normaliser(config.structure, space),
        "path_vectors": choose_path_vectors(config.structure, space),
        "search": choose_search(config.structure, space),
    }


def log_choices(choices: dict[str, Choice]) -> None:
    """Log each choice with its reason, a line each."""
    for name, choice in choices.items():
        logger.info("  %s: %s, since %s", name, choice.kind, choice.reason)
