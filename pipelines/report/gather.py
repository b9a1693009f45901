"""What the report says of the runs, as the documents that are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import yaml

from dr_core.arrays import IntArray
from dr_core.evaluation.evaluator import Evaluator
from dr_core.paths.health import measure_health
from dr_core.retrieval.router import Width, as_settings
from pipelines.evaluation.learned_run import LearnedRun
from pipelines.evaluation.measure import evaluator_of
from pipelines.evaluation.measurement import Measurement
from pipelines.evaluation.methods import BRUTE_FORCE, SUBJECT, label, of_family
from pipelines.evaluation.recorded import baseline_fits, baseline_lists, sweep_rows
from pipelines.evaluation.results import curves, differences, results, seeds_measured
from pipelines.evaluation.segments import breadth, by_activity, by_popularity
from pipelines.report.examples import example_paths, example_user
from pipelines.report.item_facts import count_creators, creators_of
from pipelines.report.summary import Health

DATA_COUNTS = {
    "users": "users",
    "items": "items",
    "events": "kept",
    "train_users": "train_users",
    "test_users": "test_users",
    "quarantined": "quarantined",
    "filtered": "filtered",
}
"""Counts of the summary, and their names in the ingest's record."""
ALGORITHM = ("m_step", "normaliser", "path_vectors", "search")
"""Keys of a stage's result that say which algorithm ran, and why."""


def summarize(first: LearnedRun, seeds: Sequence[Measurement]) -> dict[str, Any]:
    """Put ``summary.json`` together; stages, rounds, structure and health are the first seed's."""
    config, ingested = first.config, first.data
    mapping = first.mapping(first.last_version)
    health = asdict(measure_health(mapping[(mapping >= 0).all(axis=1)], first.space))
    return {
        "run_id": first.run.run_id,
        "config_hash": config.identity(),
        "release_id": first.last_id,
        "seeds": len(seeds),
        "data": {name: ingested[recorded] for name, recorded in DATA_COUNTS.items()},
        "structure": _structure(first, seeds[0]),
        "stages": first.run.stages(),
        "rounds": first.rounds(),
        "results": results(seeds, config),
        "curves": curves(seeds, config),
        "health": {name: health[name] for name in Health.model_fields},
        "differences": differences(seeds, config, int(ingested["items"])),
    }


def _structure(run: LearnedRun, measurement: Measurement) -> dict[str, Any]:
    """Return the structure that was chosen, and which algorithm ran, None where the record does not say."""
    said = {key: value for stage in run.run.record["stages"] for key, value in stage["result"].items()}
    return {
        "K": run.space.nodes[0],
        "D": run.space.num_layers,
        "nodes": list(run.space.nodes),
        "J": run.num_paths,
        "S": run.config.scores.num_candidates,
        "alpha": run.m_step.get("alpha"),
        **{name: None for name in ("beam", "price", "opening", "most")},
        **as_settings(measurement.width),
        **({"beam": measurement.operating[SUBJECT].beam} if measurement.operating else {}),
        **{name: said.get(name) for name in ALGORITHM},
    }


def report_data(runs: Sequence[LearnedRun], seeds: Sequence[Measurement]) -> dict[str, Any]:
    """Gather what the report shows beyond ``summary.json``; of several seeds, mostly the first one's.

    Args:
        seeds: the runs' measurements, with what was measured beside them.
    """
    run, measurement = runs[0], seeds[0]
    config = run.config
    if not measurement.operating:
        return _unmeasured(run, seeds)
    k, filtered = config.serving.k, config.serving.filter_history
    evaluator = evaluator_of(run, run.learned.model, run.test, k)
    lists = _headline_lists(run, evaluator, measurement.width, k, filtered)
    shown = (SUBJECT, BRUTE_FORCE, "random_paths", *of_family("popularity", "baseline"))
    methods = [name for name in shown if name in measurement.operating]
    creators = creators_of(run, np.unique(np.concatenate([items.ravel() for items in lists.values()])))
    return {
        "dataset": f"{config.name} ({run.logs or config.dataset.path or 'generated'})",
        "config_text": yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        "notes": notes(run, seeds),
        "path_sizes": path_sizes(run),
        "by_activity": by_activity(measurement, run.test, methods, k, filtered),
        "by_popularity": by_popularity(lists, run.test, run.counts),
        "breadth": breadth(lists, run.counts, creators, count_creators(run)),
        "baselines": baseline_fits(run),
        "sweep": sweep_rows(runs),
        "example_paths": example_paths(run),
        "example_user": example_user(run, evaluator, measurement.width, k),
        "training": _training(run),
    }


def _unmeasured(run: LearnedRun, seeds: Sequence[Measurement]) -> dict[str, Any]:
    """Return what the report of a run without test users shows."""
    config = run.config
    return {
        "dataset": f"{config.name} ({run.logs or config.dataset.path or 'generated'})",
        "config_text": yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        "notes": notes(run, seeds),
        "path_sizes": path_sizes(run),
        "example_paths": example_paths(run),
        "training": _training(run),
    }


def _training(run: LearnedRun) -> list[dict[str, Any]]:
    return [
        {key: epoch[key] for key in ("phase", "epoch", "loss_softmax", "loss_structure", "rows_per_second")}
        for stage in run.run.record["stages"]
        for epoch in stage["result"].get("epochs", [])
    ]


def _headline_lists(run: LearnedRun, evaluator: Evaluator, width: Width, k: int, filtered: bool) -> dict[str, IntArray]:
    """Return the lists, int64 [U, k], of Deep Retrieval, brute force and all that was measured beside the run."""
    return {
        SUBJECT: evaluator.recommended(run.learned, width, filtered=filtered, k=k),
        BRUTE_FORCE: evaluator.reference[filtered][:, :k],
        **baseline_lists(run),
    }


def notes(run: LearnedRun, seeds: Sequence[Measurement]) -> list[str]:
    """Return what a reader has to know beside the figures."""
    said = list(run.result("choose")["reasons"]) if run.has_run("choose") else []
    said += [
        f"{label(name)}: measured on {count} of {len(seeds)} seeds" for name, count in seeds_measured(seeds).items()
    ]
    evaluated = run.result("evaluate") if run.has_run("evaluate") else {}
    for name, why in (evaluated.get("controls_failed") or {}).items():
        said.append(f"{label(name)} failed and is left out: {why}")
    if evaluated.get("controls_left_out"):
        said.append(f"No trained controls: {evaluated['controls_left_out']}")
    return said


def path_sizes(run: LearnedRun) -> list[dict[str, Any]]:
    """Return how many paths hold how many items, by version; versions whose mapping is gone are left out."""
    return [
        {
            "label": run.version_label(t),
            "histogram": _histogram(run.mapping(t)),
        }
        for t in range(run.last_version + 1)
        if run.has_mapping(t)
    ]


def _histogram(path_VJ: IntArray) -> list[list[int]]:
    sizes = np.unique(path_VJ[path_VJ >= 0], return_counts=True)[1]
    return [[int(size), int(count)] for size, count in zip(*np.unique(sizes, return_counts=True), strict=True)]
