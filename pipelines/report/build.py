"""The report of a run: ``report/summary.json``, ``report/report_data.json`` and ``report/index.html``."""

from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from dr_core.evaluation.evaluator import Arm, EvaluationUsers, Evaluator
from dr_core.paths.health import measure_health
from pipelines.evaluation.learned_run import LearnedRun
from pipelines.evaluation.measure import evaluator_of, inactive_items, released_arm, without
from pipelines.evaluation.measurement import RIVAL_STAGE, Measurement, measured_families, rival_lists
from pipelines.evaluation.results import RIVALS, curves, differences, results
from pipelines.evaluation.segments import breadth, by_activity, by_popularity
from pipelines.evaluation.users import load_users
from pipelines.report.render import render_report
from pipelines.report.summary import read_summary, write_summary
from pipelines.storage.workdir import Workdir

logger = logging.getLogger(__name__)
SHOWN_ITEMS = 8


def summarize(first: LearnedRun, seeds: list[Measurement], release_id: str | None) -> dict[str, Any]:
    """Put ``summary.json`` together; stages, rounds, structure and health are the first seed's."""
    config = first.config
    data, last = first.data, first.m_step
    mapping = first.workdir.read_array("models", first.last_id, "item_paths.npy")
    health = measure_health(mapping[(mapping >= 0).all(axis=1)], first.space)
    return {
        "run_id": first.run.run_id,
        "config_hash": config.identity(),
        "release_id": release_id,
        "seeds": len(seeds),
        "data": {
            "users": data["users"],
            "items": data["items"],
            "events": data["kept"],
            "train_users": data["train_users"],
            "test_users": data["test_users"],
            "quarantined": data["quarantined"],
            "filtered": data["filtered"],
        },
        "structure": {
            "K": first.space.num_nodes,
            "D": first.space.num_layers,
            "J": config.paths.paths_per_item,
            "S": config.scores.num_candidates,
            "alpha": last["alpha"],
            "beam": seeds[0].beam,
        },
        "stages": first.run.stages(),
        "rounds": first.rounds(),
        "results": results(seeds, config),
        "curves": curves(seeds, config),
        "health": {
            name: getattr(health, name)
            for name in (
                "occupied_paths",
                "largest_path",
                "mean_path",
                "gini",
                "normalized_entropy",
                "items_without_path",
            )
        },
        "differences": differences(seeds, config, int(data["items"])),
    }


def report_data(day: LearnedRun, measurement: Measurement) -> dict[str, Any]:
    """Gather what the report shows beyond ``summary.json``."""
    config = day.config
    k, filtered = config.serving.k, config.serving.filter_history
    users = load_users(day.spark, day.workdir, "test")
    arm = released_arm(day)
    retired = inactive_items(day)
    standing = Arm(arm.name, arm.model, without(arm.path_VJ, retired))
    evaluator = evaluator_of(day, arm.model, users, k, retired)
    items = {
        "deep_retrieval": evaluator.recommended(standing, measurement.beam, filtered=filtered, k=k),
        "brute_force": evaluator.reference[filtered][:, :k],
    }
    items |= rival_lists(day)
    methods = [
        name
        for name in ("deep_retrieval", "brute_force", "random_paths", "popularity", *RIVALS)
        if name in measurement.operating
    ]
    names = item_names(day)
    return {
        "dataset": f"{config.name} ({day.logs or config.dataset.path or 'generated'})",
        "config_text": yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        "notes": list(day.choice.reasons),
        "path_sizes": [
            {
                "label": "initial" if t == 0 else f"after M-step {t}",
                "histogram": _histogram(day.workdir.read_array("models", day.version_id(t), "item_paths.npy")),
            }
            for t in range(config.em.rounds + 1)
        ],
        "by_activity": by_activity(measurement, users, methods, k, filtered),
        "by_popularity": by_popularity(items, users, day.counts),
        "breadth": breadth(items, day.counts, [name["creator"] for name in names]),
        "rivals": [fit for family in measured_families(day) for fit in day.result(f"{RIVAL_STAGE}{family}")["fits"]],
        "example_paths": _example_paths(day, standing.path_VJ, names),
        "example_user": _example_user(day, evaluator, standing, measurement.beam, users, names, k),
        "training": [
            {key: epoch[key] for key in ("phase", "epoch", "loss_softmax", "loss_structure", "rows_per_second")}
            for stage in day.run.record["stages"]
            for epoch in stage["result"].get("epochs", [])
        ],
    }


def item_names(day: LearnedRun) -> list[dict[str, Any]]:
    """Return key, title, category and creator of every item, by item id."""
    rows = (
        day.workdir.read(day.spark, "items")
        .select("item_id", "item_key", "title", "category", "creator")
        .sort("item_id")
        .collect()
    )
    return [row.asDict() for row in rows]


def _title(name: dict[str, Any]) -> str:
    return str(name["title"] or f"item {name['item_key']}")


def _histogram(mapping: npt.NDArray[np.int64]) -> list[list[int]]:
    sizes = np.unique(mapping[mapping >= 0], return_counts=True)[1]
    return [[int(size), int(count)] for size, count in zip(*np.unique(sizes, return_counts=True), strict=True)]


def _example_paths(
    day: LearnedRun, mapping: npt.NDArray[np.int64], names: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The paths of six well-known items from different parts of the structure."""
    order = np.argsort(-day.counts, kind="stable")
    chosen: list[int] = []
    for item in order:
        path = int(mapping[item, 0])
        if path >= 0 and day.choice.space.prefix(np.array(path), 1) not in [
            day.choice.space.prefix(np.array(other), 1) for other in chosen
        ]:
            chosen.append(path)
        if len(chosen) == 6:
            break
    shown = []
    for path in chosen:
        held = np.flatnonzero((mapping == path).any(axis=1))
        held = held[np.argsort(-day.counts[held], kind="stable")]
        shown.append(
            {
                "path": [int(node) for node in day.choice.space.decode(np.array(path))],
                "path_id": path,
                "size": len(held),
                "items": [
                    {
                        "item_key": names[item]["item_key"],
                        "title": names[item]["title"],
                        "category": names[item]["category"],
                        "num_events": float(day.counts[item]),
                    }
                    for item in held[:SHOWN_ITEMS]
                ],
            }
        )
    return shown


def _example_user(
    day: LearnedRun,
    evaluator: Evaluator,
    arm: Arm,
    beam: int,
    users: EvaluationUsers,
    names: list[dict[str, Any]],
    k: int,
) -> dict[str, Any] | None:
    if not len(users):
        return None
    retriever = evaluator.retriever_of(arm)
    state = evaluator.user_UE[:1].numpy()
    paths = retriever.search(state, beam)
    found = retriever.retrieve(state, k, beam=beam, excluded=[list(users.histories[0])])
    shown = []
    for path, log_prob in zip(paths.path_UB[0].tolist(), paths.log_prob_UB[0].tolist(), strict=True):
        held = retriever.index.items(path)
        shown.append(
            {
                "path": [int(node) for node in day.choice.space.decode(np.array(path))],
                "probability": float(np.exp(log_prob)),
                "size": len(held),
                "items": [_title(names[item]) for item in held[: SHOWN_ITEMS // 2]],
            }
        )
    return {
        "history": [_title(names[item]) for item in users.histories[0][-12:]],
        "paths": shown[:8],
        "items": [_title(names[item]) for item in found.item_Uk[0] if item >= 0],
    }


def write_report(
    workdir: Workdir, summary: dict[str, Any], data: dict[str, Any], *, folder: tuple[str, ...] = ("report",)
) -> None:
    """Write the three files; ``summary.json`` last, since it says that the report is whole."""
    workdir.write_text(json.dumps(data, ensure_ascii=False), *folder, "report_data.json")
    workdir.write_text(render_report(summary, data), *folder, "index.html")
    workdir.write_text(write_summary(summary), *folder, "summary.json")


def redraw(workdir: Workdir) -> None:
    """Draw ``report/index.html`` again from what the run left."""
    summary = read_summary(workdir.read_text("report", "summary.json"))
    data = json.loads(workdir.read_text("report", "report_data.json"))
    workdir.write_text(render_report(summary, data), "report", "index.html")
