"""The studies of ``dr sweep``: what is varied, over which values, and what each value changes in the configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dr_core.errors import ConfigError
from pipelines.config.load import validate_config
from pipelines.config.run import RunConfig

Overrides = Mapping[str, Any]


@dataclass(frozen=True)
class RunFacts:
    """What studies choose their values by.

    Attributes:
        rounds, final_epochs: of the run's EM.
        kept_epochs: of an earlier round's E-step, those that the structure model keeps.
        nodes: of each layer of the run's structure.
        candidates: the run's budget, candidates a user.
        beam: B that the run is served with.
        alpha: that the run's descent ended with, or that one would start from; None where that cannot be told.
        refines: whether its items can be refined.
    """

    rounds: int
    final_epochs: int
    kept_epochs: int
    nodes: tuple[int, ...]
    candidates: float
    beam: int
    alpha: float | None
    refines: bool


def changed(config: RunConfig, overrides: Overrides) -> RunConfig:
    """Return a configuration with some keys, written ``a.b``, set to other values."""
    tree = config.model_dump(mode="json")
    for key, value in overrides.items():
        section, name = key.split(".")
        tree[section][name] = value
    return validate_config(tree, "sweep")


REFINEMENT_ALONE = "refinement"
INITIAL, SHUFFLED = "initial", "shuffled"
RANDOM_ROUNDS = 4
"""Rounds of EM from random paths in the study of assignments."""
DESCENT_ALONE: Overrides = {"assignment.m_step": "descent"}
ASSIGNMENTS: dict[str, Overrides] = {
    "best path": {"penalty.alpha": 0, **DESCENT_ALONE},
    "one sweep": {"assignment.num_sweeps": 1, **DESCENT_ALONE},
    "descent": DESCENT_ALONE,
    REFINEMENT_ALONE: {"assignment.m_step": "refinement"},
    "both": {"assignment.m_step": "both"},
}


def _nodes(run: RunFacts) -> list[int]:
    return sorted({max(2, round(run.nodes[0] * factor)) for factor in (0.5, 0.75, 1, 1.5, 2)})


def _shape(nodes: Sequence[int]) -> Overrides:
    """Return a shape of the structure, whatever the configuration says of it."""
    return {"paths.nodes": list(nodes), "paths.num_nodes": "auto", "paths.num_layers": len(nodes)}


def _in_proportion(run: RunFacts, first: int) -> Overrides:
    """Give the first layer some nodes and the others as many more or fewer, by share."""
    return _shape([max(2, round(count * first / run.nodes[0])) for count in run.nodes])


def _beams(run: RunFacts) -> list[int]:
    return sorted({max(1, round(run.beam * factor)) for factor in (0.25, 0.5, 1, 2, 4)})


def _as_long(run: RunFacts, rounds: int, most: int) -> Overrides:
    """Let fewer rounds train as long as the most: what was not spent in rounds is spent on the last mapping."""
    return {"em.final_epochs": run.final_epochs + (most - rounds) * run.kept_epochs}


def _refined(run: RunFacts) -> list[str]:
    return [REFINEMENT_ALONE, "both"] if run.refines else []


def _alpha(run: RunFacts) -> float:
    if run.alpha is None:
        raise ConfigError(
            "--studies alpha: the run's M-step had no descent and its samples are gone, so there is no alpha to vary"
        )
    return run.alpha


STUDIES: dict[str, Callable[[RunFacts], Sequence[Any]]] = {
    "beam": _beams,
    "nodes": _nodes,
    "layers": lambda run: [2, 3, 4],
    "paths_per_item": lambda run: [1, 2, 3],
    "alpha": lambda run: [0, 0.01, 0.1, 1, 10, 100],
    "candidate_paths": lambda run: [2, 5, 10, 20, 40],
    "rounds": lambda run: [0, 1, 2, 4],
    "random_start": lambda run: [1, 2, 4, 8],
    "mean_path": lambda run: [0.5, 1, 2, 4],
    "assignment": lambda run: ["best path", "one sweep", "descent", *_refined(run)],
    "assignment_random": lambda run: ["descent", *_refined(run)],
    "encoder": lambda run: ["gru", "attention", "mean", "decay"],
    "coherence": lambda run: ["learned", INITIAL, SHUFFLED],
    "two_tower": lambda run: [
        f"{kind}@{temperature}" for kind in ("plain", "corrected") for temperature in (0.05, 0.1, 0.2, 0.5)
    ],
}
"""Studies and the values of each: beam B; nodes K, those of the first layer where layers differ, the others in proportion;
layers D; paths_per_item J; alpha as a multiple of the run's, and candidate_paths S, both with the descent alone, which they
belong to; rounds of EM, 0 being the clusters that are never changed; rounds from random paths; mean_path, a multiple of the
items wanted on a visited path, alpha corrected to it; assignment, what the M-step is: every item to its best paths whatever
their size, one sweep of the descent, the descent, the refinement, or (the default) the refinement after the descent;
assignment_random, the last three from random paths; encoder; coherence, whether items on one path share users and categories;
two_tower, that baseline's softmax and temperature."""
READS_INITIAL_MAPPING = ("coherence",)
"""Studies that compare with pi_0."""
READS_NO_SAMPLES = ("beam", "coherence", "two_tower")
"""Studies that learn no structure."""
OVERRIDES: dict[str, Callable[[RunFacts, Any], tuple[Overrides, int]]] = {
    "nodes": lambda run, value: (_in_proportion(run, value), run.rounds),
    "layers": lambda run, value: ({"paths.nodes": None, "paths.num_layers": value}, run.rounds),
    "paths_per_item": lambda run, value: ({"paths.paths_per_item": value}, run.rounds),
    "alpha": lambda run, value: (
        {"penalty.alpha": value * _alpha(run), **_shape(run.nodes), **DESCENT_ALONE},
        run.rounds,
    ),
    "candidate_paths": lambda run, value: ({"scores.num_candidates": value, **DESCENT_ALONE}, run.rounds),
    "rounds": lambda run, value: (_as_long(run, value, 4), value),
    "random_start": lambda run, value: ({"paths.start": "random", **_as_long(run, value, 8)}, value),
    "mean_path": lambda run, value: (
        {"budget.candidates": max(1, round(value * run.candidates)), **_shape(run.nodes)},
        run.rounds,
    ),
    "assignment": lambda run, value: (ASSIGNMENTS[value], run.rounds),
    "assignment_random": lambda run, value: ({"paths.start": "random", **ASSIGNMENTS[value]}, RANDOM_ROUNDS),
}  # fmt: skip
"""What a study's value changes in the configuration, and the rounds of EM."""
