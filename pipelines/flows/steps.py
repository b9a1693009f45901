"""What the stages do: one function a stage of day one, and what day one and the refresh have in common.

Every function takes what the run has learned so far and its stage, does its work in the work folder, and returns what the
run's record keeps. It may be called again: the same inputs give the same tables. A version ``<run>-<t>`` names the mapping
pi_t, its scores and the model that was trained on it; the last one is the release.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dr_core.arrays import IntArray
from dr_core.errors import DeepRetrievalError, GateRefused
from dr_core.evaluation.metrics import candidate_recall
from dr_core.item_lists import ItemLists
from dr_core.learning.alpha import alpha_rule
from dr_core.learning.budget import refuse_unlearnable, visiting_beam
from dr_core.learning.checkpoint import load_model
from dr_core.learning.choices import choose_algorithms, log_choices, round_epochs
from dr_core.learning.held_out import validation_columns
from dr_core.learning.m_step import refine_alone
from dr_core.learning.path_costs import choose_paths
from dr_core.learning.refine import Refinement
from dr_core.learning.trainer import EpochResult, Phase
from dr_core.learning.visits import visited_paths
from dr_core.learning.warm_up import path_free_space
from dr_core.model.histories import encode_histories
from dr_core.paths.health import check_health, measure_health
from dr_core.paths.index import build_index as invert
from dr_core.retrieval.from_model import model_retriever
from dr_core.retrieval.router import as_settings
from pipelines.evaluation.learned_run import LearnedRun
from pipelines.evaluation.measure import measure, served_width, serving_width
from pipelines.flows.ingest_line import ingest_line
from pipelines.flows.plan import Stage
from pipelines.flows.publish import publish_version, write_serving
from pipelines.serving.batch import retrieve_all
from pipelines.stages.ingest.interval import Interval
from pipelines.stages.ingest.preprocess import preprocess as ingest
from pipelines.stages.ingest.split import training_interactions
from pipelines.stages.structure.assign import assign_paths
from pipelines.stages.structure.index import build_index
from pipelines.stages.structure.initialize import initialize_paths
from pipelines.stages.structure.scores import FrozenModel, accumulate_scores, measure_likelihood
from pipelines.stages.training.mixed_targets import mix_targets
from pipelines.stages.training.samples import samples as cut_samples
from pipelines.stages.training.states import sample_states
from pipelines.stages.training.train import TrainJob, train_model
from pipelines.storage.item_paths import read_paths, write_paths

logger = logging.getLogger(__name__)
Facts = dict[str, Any]
"""What a stage returns: ``rows_in``, ``rows_out`` and what later stages and the report read; JSON-able."""


def preprocess(run: LearnedRun, stage: Stage) -> Facts:
    """Logs to interactions, items, histories, quarantine and the split."""
    config = run.config
    summary = ingest(
        run.spark,
        run.workdir,
        config.dataset,
        config.preprocess,
        config.split,
        history_length=config.history_length,
        run_id=run.run.run_id,
        interval=Interval.from_label(run.interval) if run.interval else None,
        logs=run.logs,
        catalogue=run.catalogue,
        seed=run.seed,
    )
    facts = summary.as_dict()
    return {**facts, "rows_out": summary.kept, "told": ingest_line(facts)}


def samples(run: LearnedRun, stage: Stage) -> Facts:
    """Interactions of training users to (x_i, y_i, w_i)."""
    config = run.config
    summary = cut_samples(run.spark, run.workdir, config.samples, history_length=config.history_length, seed=run.seed)
    return {**summary.as_dict(), "rows_in": run.result("preprocess")["kept"], "rows_out": summary.rows}


def count(run: LearnedRun, stage: Stage) -> Facts:
    """Count the items' training events, write the validation batch."""
    refuse_unlearnable(run.config, run.num_items, run.num_paths)
    events = training_interactions(run.spark, run.workdir).groupBy("item_id").count().toPandas()
    counts = np.zeros(run.num_items)
    counts[events["item_id"].to_numpy()] = events["count"].to_numpy()
    run.workdir.write_array(counts, "models", run.warm_id, "counts.npy")
    users = run.validation
    batch = validation_columns(users.histories, users.truths, run.config.history_length)
    run.workdir.write_arrays(batch, "models", run.warm_id, "validation.npz")
    return {"rows_in": len(counts), "rows_out": len(users)}


def warm_up(run: LearnedRun, stage: Stage) -> Facts:
    """Encoder and softmax alone."""
    training = run.config.training
    validation = f"models/{run.warm_id}/validation.npz" if len(run.validation) else None
    return train(
        run,
        run.warm_id,
        [Phase("warm_up", "warm_up", run.config.em.warm_up_epochs)],
        samples="samples",
        space=path_free_space(run.config),
        validation_file=validation,
        validation_k=training.validation_k,
        validation_filtered=training.validation_filtered,
    )


def choose(run: LearnedRun, stage: Stage) -> Facts:
    """Choose how many paths there are, by what searches cost on the warmed-up softmax."""
    model = load_model(run.workdir.filesystem, run.workdir.path("models", run.warm_id))
    states = sample_states(run.workdir, "samples", model, run.config.paths.profile_states)
    choice, growth = choose_paths(model, states, run.config, run.seed)
    for reason in choice.reasons:
        logger.info("  %s", reason)
    algorithms = choose_algorithms(run.config, run.num_items, run.num_paths, choice.space)
    log_choices(algorithms)
    return {
        "rows_in": run.num_items,
        "rows_out": choice.space.num_paths,
        **choice.as_dict(),
        "growth": growth and vars(growth),
        **{name: f"{choice.kind}: {choice.reason}" for name, choice in algorithms.items()},
    }


def initialize(run: LearnedRun, stage: Stage) -> Facts:
    """pi_0."""
    initialize_paths(
        run.spark,
        run.workdir,
        model_id=run.warm_id,
        samples="samples",
        release_id=run.version_id(0),
        space=run.space,
        config=run.config.paths,
        budgets=run.choice.budgets,
        seed=run.seed,
    )
    mapping = export_paths(run, run.version_id(0))
    return {"rows_in": len(mapping), "rows_out": int((mapping >= 0).sum())}


def targets(run: LearnedRun, stage: Stage) -> Facts:
    """Samples with targets drawn from the softmax."""
    return mix(run, "samples", run.warm_id, run.mapping(0))


def e_step(run: LearnedRun, stage: Stage) -> Facts:
    """Fit the model to pi_{t-1}."""
    em, t = run.config.em, stage.t
    joint = [Phase("joint", "joint", em.joint_epochs)] if t == 1 and em.joint_epochs else []
    return _fit_paths(run, t - 1, [*joint, Phase(f"e_step_{t}", "frozen", round_epochs(run.config, run.chosen_m_step))])


def e_step_final(run: LearnedRun, stage: Stage) -> Facts:
    """Fit the model to the last mapping."""
    em = run.config.em
    return _fit_paths(run, em.rounds, [Phase("e_step_final", "frozen", em.final_epochs)])


def _fit_paths(run: LearnedRun, t: int, phases: Sequence[Phase]) -> Facts:
    return train(
        run,
        run.version_id(t),
        phases,
        samples=run.samples_name,
        paths_file=f"models/{run.version_id(t)}/item_paths.npy",
        start_from=run.version_id(t - 1) if t else run.warm_id,
    )


def scores(run: LearnedRun, stage: Stage) -> Facts:
    """s[v, c] and N_v under the model of pi_{t-1}; none where the refinement decides alone."""
    chosen = run.chosen_m_step
    if not chosen.descends:
        logger.info("  no scores are needed: assignment.m_step is %s, %s", chosen.kind, chosen.reason)
        return {"rows_in": 0, "rows_out": 0}
    return accumulate_scores(
        run.spark,
        run.workdir,
        samples=run.samples_name,
        model=FrozenModel.of(run.workdir, run.version_id(stage.t - 1)),
        release_id=run.version_id(stage.t),
        config=run.config.scores,
    )


def assign(run: LearnedRun, stage: Stage) -> Facts:
    """pi_{t-1} to pi_t, with what it did to the surrogate, the likelihood and the recall of the validation users."""
    t, config = stage.t, run.config
    parent_id, version_id = run.version_id(t - 1), run.version_id(t)
    model = load_model(run.workdir.filesystem, run.workdir.path("models", parent_id))
    users, parent = run.validation, run.mapping(t - 1)
    state_UE = encode_histories(model, users.histories, config.history_length)
    beam = visiting_beam(config, run.choice)
    visited = visited_paths(model, parent, state_UE, beam)
    chosen = run.chosen_m_step
    refinement = None
    if chosen.refines:
        states = sample_states(run.workdir, "samples", model, config.assignment.refine_states)
        refinement = Refinement.of(model, states, run.choice, config.assignment, run.seed + t)
    if refinement is not None and not chosen.descends:
        mapping, facts = refine_alone(refinement, parent, visited)
        write_paths(run.spark, run.workdir, mapping, version_id)
    else:
        rule = alpha_rule(config, run.choice)
        if t > 1:
            rule = rule.starting_at(run.result(f"assign_{t - 1}")["alpha"])
        facts = assign_paths(
            run.spark,
            run.workdir,
            release_id=version_id,
            parent_id=parent_id,
            num_items=run.num_items,
            num_paths=run.num_paths,
            space=run.space,
            config=config.assignment,
            rule=rule,
            visited_paths=visited,
            refinement=refinement,
        )
    mapping = export_paths(run, version_id)
    health = measure_health(mapping, run.space)
    before, after = measure_likelihood(
        run.spark,
        run.workdir,
        samples=run.samples_name,
        model=FrozenModel.of(run.workdir, parent_id),
        paths_uris=[run.workdir.path("models", version, "item_paths.npy") for version in (parent_id, version_id)],
        max_blocks=config.em.likelihood_blocks,
    )
    logger.info(
        "  %d items moved (%d by the descent), likelihood %.4f -> %.4f, %d paths, largest %d, surrogate %s -> %s, alpha %s",
        facts.items_moved, facts.items_moved_by_descent, before, after, health.occupied_paths, health.largest_path,
        *(f"{figure:.6g}" if figure is not None else "none"
          for figure in (facts.surrogate_before, facts.surrogate_after_descent, facts.alpha)),
    )  # fmt: skip
    retriever = model_retriever(model, invert(np.arange(run.num_items), mapping), width=beam, max_length=1)
    found = retriever.candidates(retriever.search(state_UE.numpy()))
    recall = candidate_recall(ItemLists(found.offsets, found.item_ids), ItemLists.from_rows(users.truths))
    return {
        **vars(facts),
        "rows_in": run.num_items,
        "rows_out": int((mapping >= 0).sum()),
        "likelihood_before": before,
        "likelihood_after": after,
        "occupied_paths": health.occupied_paths,
        "largest_path": health.largest_path,
        "validation_recall": float(np.nanmean(recall)) if len(users) else None,
    }


def index(run: LearnedRun, stage: Stage) -> Facts:
    """The inverted index of the last mapping, after the health gate."""
    mapping = export_paths(run, run.last_id)
    problems = check_health(measure_health(mapping, run.space), run.config.health, run.num_items)
    if problems:
        raise GateRefused("the structure is not healthy: " + "; ".join(problems))
    return build_index(run.spark, run.workdir, release_id=run.last_id)


def serving(run: LearnedRun, stage: Stage) -> Facts:
    """Choose how wide a search is served, on users who are not the test's."""
    width = serving_width(run)
    logger.info("  served with %s", ", ".join(f"{name} {value}" for name, value in as_settings(width).items()))
    return {"rows_in": len(run.validation), "rows_out": 1, **as_settings(width)}


def publish(run: LearnedRun, stage: Stage) -> Facts:
    """One commit: live, or a candidate beside another live release."""
    data = run.result("preprocess")
    health = measure_health(run.mapping(run.config.em.rounds), run.space)
    run.workdir.write_array(run.counts, "models", run.last_id, "counts.npy")
    write_serving(run, served_width(run))
    release = publish_version(
        run,
        "live",
        interval=(data["interval_start"], data["interval_end"]),
        learned=[run.interval or "all"],
        gates={"health": vars(health)},
        facts={},
    )
    return {"rows_in": 1, "rows_out": 1, "status": release.status, "release_id": release.release_id}


def retrieve(run: LearnedRun, stage: Stage) -> Facts:
    """Recommendations for every user."""
    return retrieve_all(
        run.spark,
        run.workdir,
        release_id=run.last_id,
        k=run.config.serving.k,
        width=served_width(run),
        max_length=run.config.history_length,
        filter_history=run.config.serving.filter_history,
    )


def evaluate(run: LearnedRun, stage: Stage) -> Facts:
    """Deep Retrieval, its controls and brute force on the test users."""
    return measure(run)


DAY_ONE: dict[str, Callable[[LearnedRun, Stage], Facts]] = {
    step.__name__: step
    for step in (
        preprocess, samples, count, warm_up, choose, initialize, targets, e_step, scores, assign, e_step_final, index, serving,
        publish, retrieve, evaluate,
    )
}  # fmt: skip
"""Day one's steps by the names that :mod:`pipelines.flows.plan` gives them."""


def train(
    run: LearnedRun, model_id: str, phases: Sequence[Phase], *, samples: str, changed: Facts | None = None, **more: Any
) -> Facts:
    """Train a version with the run's settings.

    Args:
        run: the run.
        model_id: what is trained.
        phases: of the training.
        samples: table that it reads.
        changed: training settings in the place of the run's.
        more: further fields of :class:`pipelines.stages.training.train.TrainJob`; ``space`` in the place of the run's.
    """
    config, rows = run.config, run.result("samples")["rows"]
    space = more.pop("space", None) or run.space
    job = TrainJob(
        workdir=run.workdir.uri,
        samples=f"tables/{samples}",
        model_id=model_id,
        phases=tuple(phases),
        seed=run.seed,
        nodes=space.nodes,
        encoder=config.encoder,
        structure=more.pop("structure", config.structure),
        reranker=config.reranker,
        training=config.training.model_copy(update=changed or {}),
        counts_file=f"models/{run.warm_id}/counts.npy",
        **more,
    )
    results: list[EpochResult] = train_model(job)
    return {"rows_in": rows, "rows_out": rows, "epochs": [vars(result) for result in results]}


def mix(run: LearnedRun, source: str, model_id: str, mapping: IntArray) -> Facts:
    """Write ``run.samples_name``: a samples table with targets drawn from a model's softmax, grouped by first paths."""
    if run.samples_name == source:
        rows = run.result("samples")["rows"]
        return {"rows_in": rows, "rows_out": rows}
    return mix_targets(
        run.spark,
        run.workdir,
        samples=source,
        name=run.samples_name,
        model_id=model_id,
        groups_uri=run.workdir.write_array(mapping[:, 0], "models", model_id, "groups.npy"),
        config=run.config.mixed_targets,
        seed=run.seed,
    )


def export_paths(run: LearnedRun, version_id: str) -> IntArray:
    """Write a version's mapping beside the model that is trained on it, and return it, int64 [V, J], -1 = fewer paths.

    Raises:
        DeepRetrievalError: an item has no path.
    """
    mapping = read_paths(run.spark, run.workdir, version_id, num_paths=run.num_paths)
    if len(mapping) != run.num_items or (mapping < 0).all(axis=1).any():
        raise DeepRetrievalError(f"item_paths of {version_id} lack paths for some of {run.num_items} items")
    run.workdir.write_array(mapping, "models", version_id, "item_paths.npy")
    return mapping
