"""``dr sweep``: how much the figures depend on K, D, J, alpha, S, the rounds, the start and the assignment.

Deep Retrieval, section 4 (figures 3 to 5, tables 4 and 5). Every point is another structure over the run's own frozen encoder
and softmax, learned in memory by the same E-steps, scores and M-steps, and read at equal candidates. Each is a stage of the
run's record: a killed sweep goes on where it stopped. ``beam`` needs no training: it is the run's own curve.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from dr_core.baselines.softmax_encoders import SoftmaxEncoder, SoftmaxEncoderConfig
from dr_core.errors import ConfigError
from dr_core.evaluation.curves import at_axis
from dr_core.evaluation.evaluator import Arm, Evaluator, Point
from dr_core.evaluation.metrics import user_metrics
from dr_core.evaluation.togetherness import co_occurrence_lift, normalized_mutual_information
from dr_core.learning.budget import choose_structure
from dr_core.learning.em import fresh_structure, learn
from dr_core.learning.mixed_targets import TargetSampler
from dr_core.learning.start import kmeans_paths, spread, starting_vectors
from dr_core.learning.states import States
from dr_core.model.objective import DeepRetrievalModel, batch_from_arrays
from dr_core.paths.health import measure_health
from dr_core.paths.kmeans_tree import random_paths
from pipelines.config.load import validate_config
from pipelines.config.run import RunConfig
from pipelines.evaluation.learned_run import LearnedRun
from pipelines.evaluation.measure import evaluator_of, load_states, without
from pipelines.evaluation.measurement import SWEEP_STAGE, sweep_rows
from pipelines.evaluation.users import load_users
from pipelines.experiments.baselines import RIVALS, cut_of
from pipelines.experiments.compare import Comparison
from pipelines.flows.day_one import Source, finish_report, open_runs, run_stages, seeds_run
from pipelines.stages.ingest.interval import Interval
from pipelines.stages.training.petastorm import read_files
from pipelines.storage.workdir import Workdir

logger = logging.getLogger(__name__)
READ_SHARE = 0.025
"""Candidates, as a share of the items, at which structures are read."""
Overrides = Mapping[str, Any]


def sweep(
    config: RunConfig,
    workdir_uri: str,
    *,
    logs: str | None = None,
    catalogue: str | None = None,
    interval: Interval | None = None,
    studies: Sequence[str] = (),
    num_seeds: int = 1,
) -> list[dict[str, Any]]:
    """Run day one, then every point of the studies; return their rows, seeds put together.

    The report keeps all seeds that day one was run with, though the points be measured on fewer.

    Raises:
        ConfigError: a study is not known.
    """
    unknown = [study for study in studies if study not in STUDIES]
    if unknown:
        raise ConfigError(f"--studies {', '.join(unknown)}: not a study; choose from {', '.join(STUDIES)}")
    source = Source(logs, catalogue, interval)
    all_seeds = max(num_seeds, seeds_run(config, Workdir(workdir_uri), source))
    with open_runs(f"dr sweep {config.name}", config, workdir_uri, source, all_seeds) as runs:
        run_stages(runs)
        sweep_runs(runs[:num_seeds], studies)
        finish_report(runs)
        return sweep_rows(runs)


def sweep_runs(runs: Sequence[LearnedRun], studies: Sequence[str]) -> None:
    """Measure every point of the studies on every seed, unless it was measured before."""
    for day in runs:
        bench = Sweep(day)
        points = [(study, value) for study in studies or STUDIES for value in STUDIES[study](bench)]
        for number, (study, value) in enumerate(points):
            logger.info("seed %d, %d of %d: %s = %s", day.seed, number + 1, len(points), study, value)
            day.run.stage(f"{SWEEP_STAGE}{study}={value}", partial(bench.measure, study, value))


class Sweep:
    """Learns and reads structures over one seed's frozen encoder."""

    def __init__(self, day: LearnedRun) -> None:
        self.day, self.config = day, day.config
        self.comparison = Comparison(day)
        self._states: States | None = None

    @property
    def states(self) -> States:
        """All states of the samples, encoded once."""
        if self._states is None:
            self._states = load_states(self.day, self.comparison.arm.model)
        return self._states

    @property
    def alpha(self) -> float:
        """alpha that the run ended with."""
        return float(self.day.result(f"assign_{self.config.em.rounds}")["alpha"])

    def measure(self, study: str, value: Any) -> dict[str, Any]:
        """Measure one point; return its figures."""
        if study == "two_tower":
            return self._two_tower(value)
        if study == "beam":
            return self._beam(int(value))
        if study == "together":
            return self._together(value)
        if study == "encoder":
            return self._encoder(value)
        overrides, rounds = OVERRIDES[study](self, value)
        return self._structure(
            f"{study}={value}",
            changed(self.config, overrides),
            rounds,
            self.comparison.arm.model,
            self.states,
            self.comparison.evaluator,
            descends=value != REFINEMENT_ALONE,
        )

    def _structure(
        self,
        name: str,
        config: RunConfig,
        rounds: int,
        model: DeepRetrievalModel,
        states: States,
        evaluator: Evaluator,
        *,
        descends: bool = True,
    ) -> dict[str, Any]:
        """Learn a structure over a frozen encoder and softmax, and read it."""
        num_items, num_paths = self.day.num_items, config.paths.paths_per_item
        choice = choose_structure(config, num_items, num_paths)
        arm = fresh_structure(model, config.structure, choice.space, self.day.seed)
        if config.paths.start == "random":
            start = random_paths(num_items, num_paths, choice.space, self.day.seed + 2)
        else:
            sample_NE = spread(states.user_NE, config.paths.profile_states)
            vectors = starting_vectors(model, sample_NE, config.paths, self.day.seed)
            start = kmeans_paths(
                model, sample_NE, vectors, choice.space, num_paths, config.paths, self.day.seed,
                budgets=choice.budgets,
            )  # fmt: skip
        learned = learn(
            config, name, arm, states, start, self.day.validation, choice, rounds, self.day.seed, descends=descends
        )
        health = measure_health(learned.path_VJ, choice.space)
        standing = Arm(learned.name, learned.model, without(learned.path_VJ, self.comparison.retired))
        curve = evaluator.curve(standing, up_to=1.2 * READ_SHARE * num_items)
        return {
            "rows_in": len(states.user_NE),
            "rows_out": len(curve),
            **self._read(curve, READ_SHARE * num_items),
            "K": choice.space.num_nodes,
            "D": choice.space.num_layers,
            "J": num_paths,
            "occupied_paths": health.occupied_paths,
            "largest_path": health.largest_path,
        }

    def _read(self, curve: list[Point], candidates: float) -> dict[str, Any]:
        """Read a curve at some candidates; None where it does not reach them."""
        k, filtered = self.comparison.k, self.comparison.filtered
        costs = [point.mean_candidates for point in curve]
        if not min(costs) <= candidates <= max(costs):
            return {"overlap": None, "candidate_recall": None, "precision": None, "multiply_adds": None, "beam": None}
        figures = {
            name: float(
                np.nanmean(at_axis([(p.mean_candidates, p.metric(name, filtered, k)) for p in curve], candidates))
            )
            for name in ("overlap", "candidate_recall", "precision")
        }
        order = np.argsort(costs)
        for name in ("multiply_adds", "beam"):
            values = [float(getattr(curve[place], name) or 0) for place in order]
            figures[name] = float(np.interp(candidates, np.sort(costs), values))
        return figures

    def _beam(self, beam: int) -> dict[str, Any]:
        point = self.comparison.evaluator.measure_beam(self.comparison.arm, beam)
        k, filtered = self.comparison.k, self.comparison.filtered
        return {
            "rows_in": len(self.comparison.evaluator.users),
            "rows_out": 1,
            **{
                name: float(np.nanmean(point.metric(name, filtered, k)))
                for name in ("overlap", "candidate_recall", "precision")
            },
            "multiply_adds": point.multiply_adds,
            "beam": float(beam),
            "candidates": point.mean_candidates,
        }

    def _together(self, value: str) -> dict[str, Any]:
        """Whether items on one path are met by the same users, and share a category, more than chance would have it."""
        mapping = self.comparison.arm.path_VJ
        if value == "initial":
            mapping = self.day.workdir.read_array("models", self.day.version_id(0), "item_paths.npy")
        if value == "shuffled":
            mapping = np.random.default_rng(self.day.seed).permutation(mapping)
        events = self.comparison.events
        figures: dict[str, Any] = {"lift": co_occurrence_lift(events.matrix, mapping)}
        known = None if events.features is None else events.features.values.get("category")
        if known is not None:
            labelled = np.flatnonzero((np.diff(known.offsets) > 0) & (mapping[:, 0] >= 0))
            labels = known.item_ids[known.offsets[labelled]]
            figures["nmi"] = normalized_mutual_information(mapping[labelled, 0], labels)
        return {"rows_in": len(events.histories.item_ids), "rows_out": len(mapping), **figures}

    def _encoder(self, kind: str) -> dict[str, Any]:
        """The whole method over another encoder: its own softmax, brute force and mixed targets."""
        config, day, comparison = self.config, self.day, self.comparison
        encoder = changed(config, {"encoder.kind": kind}).encoder
        peer = SoftmaxEncoder(
            kind,
            SoftmaxEncoderConfig(
                encoder=encoder,
                reranker=config.reranker,
                cut=cut_of(config),
                learning_rate=config.training.learning_rate,
                weight_decay=config.training.weight_decay,
                epochs=config.em.warm_up_epochs,
            ),
            day.seed,
        )
        peer.fit(comparison.events)
        files = read_files(day.workdir.filesystem, day.workdir.table("samples"))
        states = States.encode(peer.model, (batch_from_arrays(columns) for columns in files))
        mixed = config.mixed_targets
        if mixed.share:
            everywhere = mixed.model_copy(update={"exact_below": day.num_items})
            states = states.mixed(TargetSampler(peer.model.reranker, everywhere, None), day.seed)
        users = load_users(day.spark, day.workdir, "test")
        evaluator = evaluator_of(day, peer.model, users, comparison.up_to, comparison.retired)
        figures = self._structure(f"encoder={kind}", config, config.em.rounds, peer.model, states, evaluator)
        exact = evaluator.brute_force.metric("precision", comparison.filtered, comparison.k)
        return figures | {"brute_force_precision": float(np.nanmean(exact))}

    def _two_tower(self, value: str) -> dict[str, Any]:
        """The rival's own ablation: plain or corrected softmax, by temperature (its table 2)."""
        kind, temperature = value.split("@")
        comparison, evaluator = self.comparison, self.comparison.evaluator
        rival = RIVALS["two_tower"]
        changes = {"temperature": float(temperature), "corrected": kind == "corrected"}
        peer = rival.build(self.config, {**rival.settings[0], **changes}, self.day.seed)
        peer.fit(comparison.events)
        found = peer.retrieve(evaluator.history, comparison.k, filtered=comparison.filtered, barred=comparison.retired)
        figures = user_metrics(found, evaluator.truth, comparison.k)
        return {
            "rows_in": len(comparison.events.histories.item_ids),
            "rows_out": len(found),
            "precision": float(np.nanmean(figures.precision)),
            "recall": float(np.nanmean(figures.recall)),
        }


def changed(config: RunConfig, overrides: Overrides) -> RunConfig:
    """Return a configuration with some keys, written ``a.b``, set to other values."""
    tree = config.model_dump(mode="json")
    for key, value in overrides.items():
        section, name = key.split(".")
        tree[section][name] = value
    return validate_config(tree, "sweep")


REFINEMENT_ALONE = "refinement"
RANDOM_ROUNDS = 4
"""Rounds of EM from random paths in the study of assignments."""
DESCENT_ALONE: Overrides = {"assignment.refine_sweeps": 0}
ASSIGNMENTS: dict[str, Overrides] = {
    "best path": {"penalty.alpha": 0, **DESCENT_ALONE},
    "one sweep": {"assignment.num_sweeps": 1, **DESCENT_ALONE},
    "descent": DESCENT_ALONE,
    REFINEMENT_ALONE: {},
    "both": {},
}


def _nodes(bench: Sweep) -> list[int]:
    chosen = bench.day.choice.space.num_nodes
    return sorted({max(2, round(chosen * factor)) for factor in (0.5, 0.75, 1, 1.5, 2)})


def _beams(bench: Sweep) -> list[int]:
    beam = bench.comparison.measured.beam
    return sorted({max(1, round(beam * factor)) for factor in (0.25, 0.5, 1, 2, 4)})


def _as_long(bench: Sweep, rounds: int, most: int) -> Overrides:
    """Let fewer rounds train as long as the most: what was not spent in rounds is spent on the last mapping."""
    em = bench.config.em
    return {"em.final_epochs": em.final_epochs + (most - rounds) * em.e_step_epochs}


STUDIES: dict[str, Callable[[Sweep], Sequence[Any]]] = {
    "beam": _beams,
    "nodes": _nodes,
    "layers": lambda bench: [2, 3, 4],
    "paths_per_item": lambda bench: [1, 2, 3],
    "alpha": lambda bench: [0, 0.01, 0.1, 1, 10, 100],
    "candidate_paths": lambda bench: [2, 5, 10, 20, 40],
    "rounds": lambda bench: [0, 1, 2, 4],
    "random_start": lambda bench: [1, 2, 4, 8],
    "mean_path": lambda bench: [0.5, 1, 2, 4],
    "assignment": lambda bench: ["best path", "one sweep", "descent", REFINEMENT_ALONE, "both"],
    "assignment_random": lambda bench: ["descent", REFINEMENT_ALONE, "both"],
    "encoder": lambda bench: ["gru", "attention", "mean", "decay"],
    "together": lambda bench: ["learned", "initial", "shuffled"],
    "two_tower": lambda bench: [
        f"{kind}@{temperature}" for kind in ("plain", "corrected") for temperature in (0.05, 0.1, 0.2, 0.5)
    ],
}
"""Studies and the values of each: beam B; nodes K; layers D; paths_per_item J; alpha as a multiple of the run's, and
candidate_paths S, both with the descent alone, which they belong to; rounds of EM, 0 being the clusters that are never
changed; rounds from random paths; mean_path, a multiple of the items wanted on a visited path, alpha corrected to it;
assignment, what the M-step is: every item to its best paths whatever their size, one sweep of the descent, the descent, the
refinement, or (the default) the refinement after the descent; assignment_random, the last three from random paths; encoder;
together, whether items on one path belong together; two_tower, the rival's softmax and temperature."""
OVERRIDES: dict[str, Callable[[Sweep, Any], tuple[Overrides, int]]] = {
    "nodes": lambda bench, value: ({"paths.num_nodes": value}, bench.config.em.rounds),
    "layers": lambda bench, value: ({"paths.num_layers": value}, bench.config.em.rounds),
    "paths_per_item": lambda bench, value: ({"paths.paths_per_item": value}, bench.config.em.rounds),
    "alpha": lambda bench, value: (
        {"penalty.alpha": value * bench.alpha, "paths.num_nodes": bench.day.choice.space.num_nodes, **DESCENT_ALONE},
        bench.config.em.rounds,
    ),
    "candidate_paths": lambda bench, value: ({"scores.num_candidates": value, **DESCENT_ALONE}, bench.config.em.rounds),
    "rounds": lambda bench, value: (_as_long(bench, value, 4), value),
    "random_start": lambda bench, value: ({"paths.start": "random", **_as_long(bench, value, 8)}, value),
    "mean_path": lambda bench, value: (
        {"budget.candidates": max(1, round(value * bench.day.choice.candidates)),
         "paths.num_nodes": bench.day.choice.space.num_nodes},
        bench.config.em.rounds,
    ),
    "assignment": lambda bench, value: (ASSIGNMENTS[value], bench.config.em.rounds),
    "assignment_random": lambda bench, value: ({"paths.start": "random", **ASSIGNMENTS[value]}, RANDOM_ROUNDS),
}  # fmt: skip
"""What a study's value changes in the configuration, and the rounds of EM."""
