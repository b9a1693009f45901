"""``dr refresh``: each day after day one, from yesterday's log to a judged and published release.

The unit of learning is every interval that the live release and its ancestors have not learned: normally
[live.interval_end, T1), after a refused day both days, after a rollback those of the release that was left. Everything starts
from the live release's model, paths and scores, never from a refused one. A day that is corrected after it was learned starts
from the newest release of the live one's line that has not learned it, and learns again what came since.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
from pyspark.sql import functions as F

from dr_core.arrays import IntArray
from dr_core.errors import ConfigError, GateRefused, InputError
from dr_core.learning.alpha import AlphaRule, carried_alpha_rule
from dr_core.learning.budget import visiting_beam
from dr_core.learning.checkpoint import MANIFEST, load_model, read_manifest, structure_config
from dr_core.learning.trainer import Phase
from dr_core.learning.visits import visited_paths
from dr_core.model.encoder import EncoderConfig
from dr_core.model.histories import encode_histories
from dr_core.paths.health import measure_health
from dr_core.retrieval.router import width_of
from pipelines.config.run import RunConfig
from pipelines.flows import plan
from pipelines.flows.gates import (
    Verdict,
    fixed_users,
    judge_data,
    judge_health,
    judge_integrity,
    judge_quality,
    measure_quality,
    refusals,
)
from pipelines.flows.ingest_line import ingest_line
from pipelines.flows.plan import Stage
from pipelines.flows.publish import publish_version, write_serving
from pipelines.flows.refreshed_run import SAMPLES, RefreshedRun, seed_of
from pipelines.flows.retrain import draw_releases
from pipelines.flows.sources import KEY, Sources, overwritten, state_of
from pipelines.flows.steps import Facts, mix, retrieve, train
from pipelines.spark.session import spark_session
from pipelines.stages.ingest.interval import Interval
from pipelines.stages.ingest.preprocess import preprocess
from pipelines.stages.ingest.split import training_interactions
from pipelines.stages.structure.assign import assign_paths
from pipelines.stages.structure.index import build_index
from pipelines.stages.structure.scores import Carried, FrozenModel, accumulate_scores
from pipelines.stages.training.samples import samples as cut_samples
from pipelines.storage.item_paths import read_paths
from pipelines.storage.lease import lease
from pipelines.storage.releases import (
    Release,
    ancestry,
    has_release,
    learned_intervals,
    lineage,
    list_releases,
    live_release,
)
from pipelines.storage.run_record import Run
from pipelines.storage.workdir import Workdir

logger = logging.getLogger(__name__)
SAMPLES_OWNER = "refresh_samples.owner"
STAGES = tuple(stage.name for stage in plan.refresh())


def refresh_identity(config: RunConfig, logs: str | None, interval: Interval) -> str:
    """Return the run id that the same interval, log and configuration always give."""
    later = json.dumps([config.refresh.model_dump(mode="json"), config.gates.model_dump(mode="json")], sort_keys=True)
    text = f"{config.identity()}:{later}:{logs}:{interval.label}"
    return f"{config.name}-{interval.start:%Y%m%dT%H%M}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def run_refresh(
    config: RunConfig,
    workdir_uri: str,
    interval: Interval,
    *,
    logs: str | None = None,
    catalogue: str | None = None,
    only: str | None = None,
    run_id: str | None = None,
) -> dict[str, Any]:
    """Ingest an interval, learn what the live release has not learned, judge it and publish it.

    The same interval again changes nothing once it was published, unless its log has changed since: then the new one
    takes the place of the old one's rows, and is learned by the next try, ``<run_id>.try2``. One that
    was refused is done anew. A killed one goes on where it stopped, unless its log has changed or another release went
    live meanwhile.

    Args:
        config: of the live release.
        workdir_uri: W.
        interval: [T0, T1).
        logs, catalogue: in the place of the configured paths.
        only: one of ``STAGES``; by default all.
        run_id: names the record; by default it follows from the configuration, the log and the interval.

    Returns:
        run_id, release_id, parent_release, status, gates, stages and the counts of the interval.

    Raises:
        ConfigError: nothing is live, the live release has another structure, or an earlier stage has not been done.
        InputError: the log lacks a time.
        GateRefused: a gate refused; the candidate is kept with its reasons, the live release stays.
        PublishConflict: another release went live meanwhile.
        TryAgain: another run holds the folder.
    """
    if only is not None:
        plan.find_stage(plan.refresh(), only, "--stage")
    workdir = Workdir(workdir_uri)
    workdir.filesystem.makedirs(workdir.path("runs"), exist_ok=True)
    name = f"dr refresh {config.name}"
    with (
        lease(workdir, "run"),
        spark_session(name, master=config.spark.master, conf=config.spark.conf) as spark,
    ):
        run_id = newest_try(workdir, run_id or refresh_identity(config, logs, interval))
        record = Run(workdir, run_id, config.identity())
        run = RefreshedRun(
            spark, config, workdir, record, seed_of(config.seed, interval), logs, catalogue, interval.label
        )
        if only in (None, STAGES[0]):
            run = take_up(run)
        return execute(run, only)


def newest_try(workdir: Workdir, run_id: str) -> str:
    """Return the id of the last run that a run id stands for: itself, or the newest of its further tries."""
    while workdir.exists("runs", f"{_next_try(run_id)}.json"):
        run_id = _next_try(run_id)
    return run_id


def _next_try(run_id: str) -> str:
    stem, mark, number = run_id.rpartition(".try")
    return f"{stem}.try{int(number) + 1}" if mark and number.isdigit() else f"{run_id}.try2"


def take_up(run: RefreshedRun) -> RefreshedRun:
    """Return a run whose log is the one it has read: itself, begun anew, or the next try where it was published."""
    record, sources = run.run.record, Sources.of(run.config.dataset, run.logs, run.catalogue)
    change = sources.change_since(record, grows=run.config.preprocess.cumulative)
    change = change or overwritten(run.workdir, run.run, str(run.interval))
    if change and has_release(run.workdir, run.run.run_id):
        again = Run(run.workdir, _next_try(run.run.run_id), run.config.identity())
        logger.info("%s, since run %s was published: done anew as run %s", change, run.run.run_id, again.run_id)
        run = replace(run, run=again)
    elif change:
        logger.info("%s: run %s begins anew", change, run.run.run_id)
        run.run.forget_stages()
    elif record["stages"] and sources.found and KEY not in record:
        logger.info("run %s does not remember what its log was: taken to be unchanged", run.run.run_id)
    if sources.found and (change or KEY not in record):
        sources.note(run.run.record)
        if change or record["stages"]:
            run.run.save()
    return run


def execute(run: RefreshedRun, only: str | None = None) -> dict[str, Any]:
    """Run all stages, or one, under the record's verdict."""
    if run.run.finished:
        logger.info("%s: the same interval again changes nothing", state_of(run.run))
        return summary(run)
    stages = plan.refresh()
    try:
        begin(run)
        inputs = f"{run.logs}:{run.catalogue}:{run.interval}:{run.parent}"
        known = plan.identities(stages, run.config.model_dump(mode="json"), inputs)
        for stage in stages:
            if only in (None, stage.name):
                _require_earlier(run, stage.name)
                run.run.stage(stage.name, partial(REFRESH[stage.step], run, stage), identity=known[stage.name])
    except BaseException as error:
        run.run.fail(error)
        raise
    if only in (None, STAGES[-1]):
        draw_releases(run.spark, run.workdir, run.config)
        run.run.finish("done", 0)
    return summary(run)


def _require_earlier(run: RefreshedRun, name: str) -> None:
    done = {stage["name"] for stage in run.run.record["stages"]}
    missing = [earlier for earlier in STAGES[: STAGES.index(name)] if earlier not in done]
    if missing:
        raise ConfigError(
            f"stage {missing[0]} of {run.run.run_id} has not been done from live release {run.parent}: do it first"
        )


def begin(run: RefreshedRun) -> None:
    """Find the live release and note it as this run's parent; forget the stages of a refused or overtaken try.

    Raises:
        ConfigError: nothing is live yet, or the live release has another structure.
    """
    live = live_release(run.workdir)
    if live is None:
        raise ConfigError(f"{run.workdir.uri} has no live release to start from: `dr run` makes the first")
    record = run.run.record
    if record.get("interval", run.interval) != run.interval:
        raise ConfigError(f"run {run.run.run_id} is of {record['interval']}: give this interval another --run-id")
    is_own = live.release_id == run.last_id
    if not is_own:
        _refuse_other_structure(run, live)
        is_overtaken = record.get("parent") not in (None, live.release_id) or _lost_its_samples(run)
        if record["status"] == "refused" or is_overtaken or record["config_hash"] != run.config.identity():
            record["stages"] = []
    record |= {
        "status": "running",
        "exit_code": None,
        "message": "",
        "started_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "config_hash": run.config.identity(),
        "parent": live.parent_release if is_own else live.release_id,
        "base": record.get("base", live.parent_release) if is_own else _base(run, live),
        "interval": run.interval,
        "config": run.config.model_dump(mode="json"),
        "logs": run.logs,
        "catalogue": run.catalogue,
        "seed": run.config.seed,
    }
    run.run.save()


def _base(run: RefreshedRun, live: Release) -> str:
    """Return the newest release of the live one's line that has not learned the interval; the live one if none is left."""
    rows = list_releases(run.workdir)
    for row in lineage(rows, live):
        is_there = row.status != "deleted" and run.workdir.exists("models", row.release_id, MANIFEST)
        if (row == live or is_there) and run.interval not in learned_intervals(rows, row):
            return row.release_id
    logger.warning("every release that is left has learned %s: its events count once more", run.interval)
    return live.release_id


def _lost_its_samples(run: RefreshedRun) -> bool:
    """Whether another refresh has drawn samples since this one did; all share one table."""
    if not any(stage["name"] == "samples" for stage in run.run.record["stages"]):
        return False
    return run.workdir.read_text("runs", SAMPLES_OWNER) != run.run.run_id


def _refuse_other_structure(run: RefreshedRun, live: Release) -> None:
    config = run.config
    encoder = EncoderConfig.model_validate(_manifest(run, live.release_id)["encoder"])
    wanted = {
        "paths.num_layers": (config.paths.num_layers, live.D),
        "paths.paths_per_item": (config.paths.paths_per_item, live.J),
        "encoder": (config.encoder.model_dump(mode="json"), encoder.model_dump(mode="json")),
    }
    if config.paths.nodes:
        wanted["paths.nodes"] = (list(config.paths.nodes), list(live.space.nodes))
    elif config.paths.num_nodes != "auto":
        wanted["paths.num_nodes"] = (config.paths.num_nodes, live.K if live.space.is_even else list(live.space.nodes))
    for key, (asked, there) in wanted.items():
        if asked != there:
            raise ConfigError(
                f"{key}: the configuration says {asked}, live release {live.release_id} was built with {there}:"
                " a refresh keeps the structure; `dr run --fresh` starts anew"
            )


def _manifest(run: RefreshedRun, model_id: str) -> dict[str, Any]:
    manifest = read_manifest(run.workdir.filesystem, run.workdir.path("models", model_id))
    if manifest is None:
        raise InputError(f"{run.workdir.uri} holds no finished model {model_id}: roll back, or run anew")
    return manifest


def ingest(run: RefreshedRun, stage: Stage) -> Facts:
    """The interval's log, cleaned and appended once; what is to be learned."""
    config = run.config
    summary = preprocess(
        run.spark,
        run.workdir,
        config.dataset,
        config.preprocess,
        config.split,
        history_length=config.history_length,
        run_id=run.run.run_id,
        interval=Interval.from_label(str(run.interval)),
        logs=run.logs,
        catalogue=run.catalogue,
        seed=config.seed,
    )
    learned = learned_intervals(list_releases(run.workdir), run.base_release)
    ledger = run.workdir.read(run.spark, "intervals").where("kept > 0").select("source_interval").collect()
    labels = sorted(row[0] for row in ledger if row[0] == run.interval or row[0] not in {*learned, "all"})
    logger.info("  %d kept, %d late, learning %d interval(s)", summary.kept, summary.late, len(labels))
    facts = summary.as_dict()
    return {**facts, "rows_out": summary.kept, "labels": labels, "told": ingest_line(facts)}


def samples(run: RefreshedRun, stage: Stage) -> Facts:
    """(x_i, y_i, w_i) of what is new, and a replay share of what is old."""
    run.workdir.write_text(run.run.run_id, "runs", SAMPLES_OWNER)
    new = (
        training_interactions(run.spark, run.workdir)
        .where(F.col("source_interval").isin(*run.labels))
        .groupBy("item_id")
        .count()
        .toPandas()
    )
    old = run.workdir.read_array("models", run.base, "counts.npy")
    counts = np.zeros(run.num_items)
    counts[: len(old)] = old
    counts[new["item_id"].to_numpy()] += new["count"].to_numpy()
    run.workdir.write_array(counts, "models", run.warm_id, "counts.npy")
    summary = cut_samples(
        run.spark,
        run.workdir,
        run.config.samples,
        history_length=run.config.history_length,
        seed=run.seed,
        labels=run.labels,
        replay_share=run.config.refresh.replay_share,
        name=SAMPLES,
    )
    return {**summary.as_dict(), "rows_in": int(new["count"].sum()), "rows_out": summary.rows}


def _fit(run: RefreshedRun, model_id: str, phase: Phase, table: str, start_from: str) -> Facts:
    config, rows = run.config, run.result("samples")["rows"]
    changed = {
        "learning_rate": config.refresh.learning_rate,
        "structure_learning_rate": config.refresh.structure_learning_rate,
    }
    if config.training.local_processes:
        worth = max(1, rows * phase.epochs // config.refresh.rows_per_process)
        changed["num_processes"] = min(config.training.num_processes, worth)
    return train(
        run,
        model_id,
        [phase],
        samples=table,
        changed=changed,
        structure=structure_config(_manifest(run, start_from)),
        paths_file=f"models/{model_id}/item_paths.npy",
        start_from=start_from,
    )


def e_step(run: RefreshedRun, stage: Stage) -> Facts:
    """Everything together on the base's paths; new items learn their vectors, and have no path yet."""
    run.workdir.write_array(_paths(run, run.base), "models", run.warm_id, "item_paths.npy")
    phase = Phase("joint", "joint", run.config.refresh.joint_epochs)
    return _fit(run, run.warm_id, phase, SAMPLES, run.base)


def targets(run: RefreshedRun, stage: Stage) -> Facts:
    """Samples with targets drawn from the softmax."""
    return mix(run, SAMPLES, run.warm_id, run.mapping(0))


def scores(run: RefreshedRun, stage: Stage) -> Facts:
    """s[v, c] and N_v of the new events, merged into the base's; alone where no release here has collected any."""
    days = sum(Interval.from_label(label).days for label in run.labels)
    decay = 2.0 ** (-days / run.config.refresh.half_life_days)
    is_first = not run.workdir.has_table(run.spark, "path_scores")
    done = accumulate_scores(
        run.spark,
        run.workdir,
        samples=run.samples_name,
        model=FrozenModel.of(run.workdir, run.warm_id),
        release_id=run.last_id,
        config=run.config.scores,
        carried=None if is_first else Carried(run.base, decay),
    )
    return {**done, "decay": decay}


def assign(run: RefreshedRun, stage: Stage) -> Facts:
    """The base's paths to new ones: new items get theirs, retired ones lose theirs.

    Where day one refines and does not descend, the others keep theirs: a descent would undo what the refinement found.
    """
    model = load_model(run.workdir.filesystem, run.workdir.path("models", run.warm_id))
    state_UE = encode_histories(model, run.validation.histories, run.config.history_length)
    visited = visited_paths(model, run.mapping(0), state_UE, visiting_beam(run.kept_config, run.choice))
    summary = assign_paths(
        run.spark,
        run.workdir,
        release_id=run.last_id,
        parent_id=run.base,
        num_items=run.active.count(),
        num_paths=run.num_paths,
        space=run.space,
        config=run.config.assignment,
        rule=_alpha_rule(run),
        visited_paths=visited,
        active=run.active,
        only_new=not run.chosen_m_step.descends,
    )
    mapping = _paths(run, run.last_id)
    run.workdir.write_array(mapping, "models", run.last_id, "item_paths.npy")
    logger.info("  %d items moved, %d placed, alpha %.3g", summary.items_moved, summary.items_placed, summary.alpha)
    return {**vars(summary), "rows_in": run.num_items, "rows_out": int((mapping >= 0).sum())}


def _paths(run: RefreshedRun, version_id: str) -> IntArray:
    return read_paths(run.spark, run.workdir, version_id, run.num_items, run.num_paths)


def _alpha_rule(run: RefreshedRun) -> AlphaRule:
    before, now = (_mean_weight(run, version_id) for version_id in (run.base, run.last_id))
    return carried_alpha_rule(run.config, run.choice, run.base_release.alpha, growth=now / before)


def _mean_weight(run: RefreshedRun, version_id: str) -> float:
    row = run.workdir.read_release(run.spark, "item_stats", version_id).agg(F.sum("num_events")).first()
    return max(float((row and row[0]) or 0.0), 1e-9)


def e_step_final(run: RefreshedRun, stage: Stage) -> Facts:
    """Fit the structure model to the new paths."""
    phase = Phase("e_step_final", "frozen", run.config.refresh.final_epochs)
    done = _fit(run, run.last_id, phase, run.samples_name, run.warm_id)
    counts = run.workdir.read_array("models", run.warm_id, "counts.npy")
    run.workdir.write_array(counts, "models", run.last_id, "counts.npy")
    return done


def index(run: RefreshedRun, stage: Stage) -> Facts:
    """The inverted index of the active items, and the live release's width."""
    live = json.loads(run.workdir.read_text("models", run.parent, "serving.json"))
    write_serving(run, width_of(live))
    return build_index(run.spark, run.workdir, release_id=run.last_id)


def gates(run: RefreshedRun, stage: Stage) -> Facts:
    """Judge the candidate. Refused or not, every figure is kept."""
    config, interval = run.config, Interval.from_label(str(run.interval))
    mapping = run.mapping(1)
    active = np.sort(run.active.toPandas()["item_id"].to_numpy())
    health = measure_health(mapping[active], run.space)
    users = fixed_users(run.spark, run.workdir, interval.label, interval.start)
    quality = measure_quality(
        run.workdir,
        users,
        run.last_id,
        run.parent,
        ancestry(list_releases(run.workdir), run.parent_release)[-1].release_id,
        k=config.serving.k,
        filter_history=config.serving.filter_history,
        seed=run.seed,
    )
    verdicts: list[Verdict] = [
        *judge_data(
            run.spark,
            run.workdir,
            config.gates,
            label=interval.label,
            known_items=int(run.parent_release.num_items),
            labels=run.labels,
        ),
        *judge_health(health, config.health, len(active)),
        *judge_quality(quality, config.gates),
        *judge_integrity(run.spark, run.workdir, run.last_id),
    ]
    for verdict in verdicts:
        word = {True: "passed", False: "REFUSED", None: "not judged"}[verdict.passed]
        logger.info("  %-18s %-10s %s", verdict.gate, word, verdict.text)
    return {
        "verdicts": [verdict.as_dict() for verdict in verdicts],
        "refused": refusals(verdicts),
        "health": vars(health),
        "quality": quality and vars(quality),
    }


def publish(run: RefreshedRun, stage: Stage) -> Facts:
    """One commit: live, or refused and kept."""
    judged, assigned = run.result("gates"), run.m_step
    start, end = str(run.interval).split("/")
    release = publish_version(
        run,
        "refused" if judged["refused"] else "live",
        interval=(
            min([start, *(label.split("/")[0] for label in run.labels)]),
            max(end, run.parent_release.interval_end or end),
        ),
        parent=run.parent,
        learned=list(run.labels),
        gates={key: judged[key] for key in ("verdicts", "health", "quality")},
        facts={
            **{key: assigned[key] for key in ("items_moved", "items_placed")},
            "late": run.data["late"],
            **({"base": run.base} if run.base != run.parent else {}),
        },
    )
    if judged["refused"]:
        draw_releases(run.spark, run.workdir, run.config)
        raise GateRefused(
            f"{release.release_id} is kept as refused, {run.parent} stays live: " + "; ".join(judged["refused"])
        )
    return {"rows_in": 1, "rows_out": 1, "status": release.status, "release_id": release.release_id}


REFRESH: dict[str, Callable[[RefreshedRun, Stage], Facts]] = {
    step.__name__: step
    for step in (ingest, samples, e_step, targets, scores, assign, e_step_final, index, gates, publish, retrieve)
}
"""The refresh's steps by the names that :mod:`pipelines.flows.plan` gives them."""


def summary(run: RefreshedRun) -> dict[str, Any]:
    """Return what machines read of a refresh."""
    done = {stage["name"]: stage["result"] for stage in run.run.record["stages"]}
    data = done.get("ingest", {})
    return {
        "run_id": run.run.run_id,
        "release_id": run.last_id,
        "parent_release": run.parent,
        "status": done.get("publish", {}).get("status"),
        "interval": run.interval,
        "learned": data.get("labels"),
        "data": {key: data.get(key) for key in ("rows_in", "kept", "quarantined", "filtered", "late", "reasons")},
        "items_moved": done.get("assign", {}).get("items_moved"),
        "items_placed": done.get("assign", {}).get("items_placed"),
        "gates": done.get("gates", {}).get("verdicts"),
        "quality": done.get("gates", {}).get("quality"),
        "stages": run.run.stages(),
    }
