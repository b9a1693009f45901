"""``dr sweep``: how much the figures depend on K, D, J, alpha, S, the rounds, the start and the assignment.

Deep Retrieval, section 4 (figures 3 to 5, tables 4 and 5). Every point is another structure over the run's own frozen encoder
and softmax, learned in memory by the same E-steps, scores and M-steps, and read at equal candidates. Each is a stage of the
run's record: a killed sweep goes on where it stopped. ``beam`` needs no training: it is the run's own curve.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np

from dr_core.arrays import DoubleArray
from dr_core.baselines.softmax_encoders import SoftmaxEncoder, SoftmaxEncoderConfig
from dr_core.errors import ConfigError
from dr_core.evaluation.coherence import co_occurrence_lift, normalized_mutual_information
from dr_core.evaluation.curves import at_axis
from dr_core.evaluation.evaluator import Evaluator, Point, Variant
from dr_core.evaluation.metrics import user_metrics
from dr_core.learning.budget import choose_structure
from dr_core.learning.choices import kept_epochs
from dr_core.learning.e_step import fresh_structure
from dr_core.learning.em import learn_structure
from dr_core.learning.mixed_targets import TargetSampler
from dr_core.learning.placement import PathLearner
from dr_core.learning.start import kmeans_paths, spread, starting_vectors
from dr_core.learning.states import States
from dr_core.model.histories import encode_histories
from dr_core.model.objective import DeepRetrievalModel, batch_from_arrays
from dr_core.paths.health import measure_health
from dr_core.paths.kmeans_tree import random_paths
from dr_core.paths.penalty import derive_alpha
from pipelines.config.run import RunConfig
from pipelines.evaluation.learned_run import LearnedRun, without_items
from pipelines.evaluation.measure import evaluator_of, load_states
from pipelines.evaluation.recorded import SWEEP_STAGE, sweep_rows
from pipelines.experiments.baselines import BASELINES
from pipelines.experiments.history_cut import cut_config
from pipelines.experiments.needs import require_for_sweep
from pipelines.experiments.seed_data import SeedData
from pipelines.experiments.session import learned_seeds, measured_identity
from pipelines.experiments.studies import (
    INITIAL,
    OVERRIDES,
    READS_INITIAL_MAPPING,
    READS_NO_SAMPLES,
    SHUFFLED,
    STUDIES,
    RunFacts,
    changed,
)
from pipelines.flows.day_one import Source
from pipelines.report.build import build_report
from pipelines.stages.ingest.interval import Interval
from pipelines.stages.training.petastorm import read_files

logger = logging.getLogger(__name__)
READ_SHARE = 0.025
"""Candidates, as a share of the items, at which structures are read."""
READ_FIGURES = ("overlap", "candidate_recall", "precision")


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
        InputError: something that a study reads is missing from the work folder.
    """
    studies_of(studies)
    source = Source(logs, catalogue, interval)
    with learned_seeds("sweep", config, workdir_uri, source, num_seeds) as runs:
        sweep_runs(runs[:num_seeds], studies)
        build_report(runs)
        return sweep_rows(runs)


def sweep_runs(runs: Sequence[LearnedRun], studies: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Measure every point of the studies beside every run; return their rows, seeds put together.

    Args:
        runs: one a seed.
        studies: all of them when empty.

    Raises:
        ConfigError: a study is not known.
        InputError: something that a study reads is missing; nothing has been learned.
    """
    chosen = studies_of(studies)
    require_for_sweep(
        runs,
        samples=any(study not in READS_NO_SAMPLES for study in chosen),
        initial_mapping=any(study in READS_INITIAL_MAPPING for study in chosen),
    )
    for run in runs:
        points = Sweep(run)
        values = [(study, value) for study in chosen for value in STUDIES[study](points.facts)]
        for number, (study, value) in enumerate(values):
            logger.info("seed %d, %d of %d: %s = %s", run.seed, number + 1, len(values), study, value)
            work = partial(points.measure, study, value)
            run.run.stage(f"{SWEEP_STAGE}{study}={value}", work, identity=measured_identity(run))
    return sweep_rows(runs)


def studies_of(studies: Sequence[str]) -> list[str]:
    """Return the studies that were asked for, all of them when none was.

    Raises:
        ConfigError: a study is not known; the message names those that are.
    """
    unknown = [study for study in studies if study not in STUDIES]
    if unknown:
        raise ConfigError(f"--studies {', '.join(unknown)}: not a study; choose from {', '.join(STUDIES)}")
    return list(studies or STUDIES)


class Sweep:
    """Learns and reads structures over one seed's frozen encoder."""

    def __init__(self, run: LearnedRun) -> None:
        self.run, self.config, self.data = run, run.config, SeedData(run)

    @cached_property
    def states(self) -> States:
        """All states of the samples, encoded once."""
        return load_states(self.run, self.run.learned.model)

    @property
    def facts(self) -> RunFacts:
        """What the studies choose their values by."""
        run = self.run
        return RunFacts(
            rounds=self.config.em.rounds,
            final_epochs=self.config.em.final_epochs,
            kept_epochs=kept_epochs(self.config),
            nodes=run.choice.space.nodes,
            candidates=run.choice.candidates,
            beam=max(1, round(self.data.served.beam or 1)),
            alpha=self._alpha,
            refines=run.chosen_m_step.refines,
        )

    @cached_property
    def _alpha(self) -> float | None:
        """The run's alpha; where no descent has found one, what it would start from; None without samples."""
        run = self.run
        found: float | None = run.m_step.get("alpha")
        if found is not None or not run.workdir.exists("tables", run.samples_name):
            return found
        return derive_alpha(float(self.states.weight_NT.sum()) / run.num_items, run.choice.items_per_visited_path)

    def measure(self, study: str, value: Any) -> dict[str, Any]:
        """Measure one point; return its figures, None where one is not defined."""
        figures = self._figures(study, value)
        return {
            name: None if isinstance(figure, float) and not np.isfinite(figure) else figure
            for name, figure in figures.items()
        }

    def _figures(self, study: str, value: Any) -> dict[str, Any]:
        if study == "two_tower":
            return self._two_tower(value)
        if study == "beam":
            return self._beam(int(value))
        if study == "coherence":
            return self._coherence(value)
        if study == "encoder":
            return self._encoder(value)
        overrides, rounds = OVERRIDES[study](self.facts, value)
        return self._structure(
            f"{study}={value}",
            changed(self.config, overrides),
            rounds,
            self.run.learned.model,
            self.states,
            self.data.evaluator,
        )

    def _structure(
        self,
        name: str,
        config: RunConfig,
        rounds: int,
        model: DeepRetrievalModel,
        states: States,
        evaluator: Evaluator,
    ) -> dict[str, Any]:
        """Learn a structure over a frozen encoder and softmax, and read it."""
        num_items, num_paths, seed = self.run.num_items, config.paths.paths_per_item, self.run.seed
        choice = choose_structure(config, num_items, num_paths, self.run.growth)
        structure = fresh_structure(model, config.structure, choice.space, seed)
        if config.paths.start == "random":
            start = random_paths(num_items, num_paths, choice.space, seed + 2)
        else:
            sample_NE = spread(states.user_NE, config.paths.profile_states)
            vectors = starting_vectors(model, sample_NE, config.paths, seed)
            start = kmeans_paths(
                model, sample_NE, vectors, choice.space, num_paths, config.paths, seed, budgets=choice.budgets
            )
        validation_UE = encode_histories(model, self.run.validation.histories, config.history_length)
        learner = PathLearner(config, choice, seed)
        paths, _ = learn_structure(config, structure, states, start, validation_UE, learner, rounds=rounds, seed=seed)
        health = measure_health(paths, choice.space)
        active = Variant(name, structure, without_items(paths, self.run.retired))
        curve = evaluator.curve(active, up_to=1.2 * READ_SHARE * num_items)
        return {
            "rows_in": len(states.user_NE),
            "rows_out": len(curve),
            **self._read(curve, READ_SHARE * num_items),
            "K": choice.space.nodes[0],
            "D": choice.space.num_layers,
            "J": num_paths,
            "occupied_paths": health.occupied_paths,
            "largest_path": health.largest_path,
        }

    def _read(self, curve: list[Point], candidates: float) -> dict[str, Any]:
        """Read a curve at some candidates; None where it does not reach them."""
        costs = [point.mean_candidates for point in curve]
        if not min(costs) <= candidates <= max(costs):
            return dict.fromkeys((*READ_FIGURES, "multiply_adds", "beam"))
        figures: dict[str, Any] = {
            name: _mean(at_axis([(point.mean_candidates, self._metric(point, name)) for point in curve], candidates))
            for name in READ_FIGURES
        }
        ascending = sorted(curve, key=lambda point: point.mean_candidates)
        for name in ("multiply_adds", "beam"):
            values = [float(getattr(point, name) or 0) for point in ascending]
            figures[name] = float(np.interp(candidates, np.sort(costs), values))
        return figures

    def _metric(self, point: Point, name: str) -> DoubleArray:
        return point.metric(name, self.data.filtered, self.data.k)

    def _beam(self, beam: int) -> dict[str, Any]:
        point = self.data.evaluator.measure_width(self.run.learned, beam)
        return {
            "rows_in": len(self.data.evaluator.users),
            "rows_out": 1,
            **{name: _mean(self._metric(point, name)) for name in READ_FIGURES},
            "multiply_adds": point.multiply_adds,
            "beam": float(beam),
            "candidates": point.mean_candidates,
        }

    def _coherence(self, value: str) -> dict[str, Any]:
        """Whether items on one path share users, and a category, more than chance would have it."""
        mapping = self.run.learned.path_VJ
        if value == INITIAL:
            mapping = self.run.mapping(0)
        if value == SHUFFLED:
            mapping = np.random.default_rng(self.run.seed).permutation(mapping)
        events = self.data.events
        figures: dict[str, Any] = {"lift": co_occurrence_lift(events.matrix, mapping)}
        categories = None if events.features is None else events.features.values.get("category")
        if categories is not None:
            labelled = np.flatnonzero((np.diff(categories.offsets) > 0) & (mapping[:, 0] >= 0))
            labels = np.asarray(categories.item_ids[categories.offsets[labelled]], dtype=np.int64)
            figures["nmi"] = normalized_mutual_information(mapping[labelled, 0], labels)
        return {"rows_in": len(events.histories.item_ids), "rows_out": len(mapping), **figures}

    def _encoder(self, kind: str) -> dict[str, Any]:
        """The whole method over another encoder: its own softmax, brute force and mixed targets."""
        config, run = self.config, self.run
        baseline = SoftmaxEncoder(
            kind,
            SoftmaxEncoderConfig(
                encoder=changed(config, {"encoder.kind": kind}).encoder,
                reranker=config.reranker,
                cut=cut_config(config),
                learning_rate=config.training.learning_rate,
                weight_decay=config.training.weight_decay,
                epochs=config.em.warm_up_epochs,
            ),
            run.seed,
        )
        baseline.fit(self.data.events)
        files = read_files(run.workdir.filesystem, run.workdir.table("samples"))
        states = States.encode(baseline.model, (batch_from_arrays(columns) for columns in files))
        mixed = config.mixed_targets
        if mixed.share:
            exact = mixed.model_copy(update={"exact_below": run.num_items})
            states = states.mixed(TargetSampler(baseline.model.reranker, exact, None), run.seed)
        evaluator = evaluator_of(run, baseline.model, run.test, self.data.most_candidates)
        figures = self._structure(f"encoder={kind}", config, config.em.rounds, baseline.model, states, evaluator)
        return figures | {"brute_force_precision": _mean(self._metric(evaluator.brute_force, "precision"))}

    def _two_tower(self, value: str) -> dict[str, Any]:
        """The two-tower model's own ablation: plain or corrected softmax, by temperature (its table 2)."""
        kind, temperature = value.split("@")
        data, recipe = self.data, BASELINES["two_tower"]
        changes = {"temperature": float(temperature), "corrected": kind == "corrected"}
        baseline = recipe.build(self.config, {**recipe.settings[0], **changes}, self.run.seed)
        baseline.fit(data.events)
        found = baseline.retrieve(data.evaluator.history, data.k, filtered=data.filtered, barred=self.run.retired)
        figures = user_metrics(found, data.evaluator.truth, data.k)
        return {
            "rows_in": len(data.events.histories.item_ids),
            "rows_out": len(found),
            "precision": _mean(figures.precision),
            "recall": _mean(figures.recall),
        }


def _mean(values: DoubleArray) -> float | None:
    """Return the mean over the users who have a figure, None where nobody has."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else None
