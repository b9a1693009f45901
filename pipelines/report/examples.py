"""Examples that the report shows: paths with their items, and one user from history to recommendations."""

from __future__ import annotations

from typing import Any

import numpy as np

from dr_core.arrays import IntArray
from dr_core.evaluation.evaluator import Evaluator
from dr_core.retrieval.router import Width
from pipelines.evaluation.learned_run import LearnedRun
from pipelines.report.item_facts import facts_of, title

SHOWN_PATHS = 6
ITEMS_ON_A_PATH = 8
SHOWN_HISTORY = 12
VISITED_PATHS = 8
ITEMS_ON_A_VISITED_PATH = 4


def example_paths(run: LearnedRun) -> list[dict[str, Any]]:
    """Return the paths of some well-known items, from different parts of the structure."""
    space, mapping = run.space, run.learned.path_VJ
    items_on = {path: _most_popular(run, np.flatnonzero((mapping == path).any(axis=1))) for path in _well_known(run)}
    named = [items[:ITEMS_ON_A_PATH] for items in items_on.values()]
    facts = facts_of(run, np.concatenate(named)) if named else {}
    return [
        {
            "path": [int(node) for node in space.decode(np.array(path))],
            "path_id": path,
            "size": len(items),
            "items": [
                {
                    **{name: facts[item][name] for name in ("item_key", "title", "category")},
                    "num_events": float(run.counts[item]),
                }
                for item in items[:ITEMS_ON_A_PATH].tolist()
            ],
        }
        for path, items in items_on.items()
    ]


def _well_known(run: LearnedRun) -> list[int]:
    """Return the paths of the most popular items, one for each first node."""
    space, paths = run.space, run.learned.path_VJ
    by_node: dict[int, int] = {}
    for item in np.argsort(-run.counts, kind="stable"):
        path = int(paths[item, 0])
        if path >= 0:
            by_node.setdefault(int(space.prefix(np.array(path), 1)), path)
        if len(by_node) == SHOWN_PATHS:
            break
    return list(by_node.values())


def _most_popular(run: LearnedRun, items: IntArray) -> IntArray:
    return items[np.argsort(-run.counts[items], kind="stable")]


def example_user(run: LearnedRun, evaluator: Evaluator, width: Width, k: int) -> dict[str, Any] | None:
    """Return the first test user's history, most probable paths and recommendations; None without test users."""
    if not len(run.test):
        return None
    retriever = evaluator.retriever_of(run.learned)
    history, user_UE = run.test.histories[0], evaluator.user_UE[:1].numpy()
    visited = retriever.search(user_UE, width)
    found = retriever.retrieve(user_UE, k, width=width, excluded=[history.tolist()])
    visits = [
        (path, log_prob, retriever.index.items(path))
        for path, log_prob in zip(visited.path_UB[0].tolist(), visited.log_prob_UB[0].tolist(), strict=True)
        if path >= 0
    ][:VISITED_PATHS]
    recent, recommended = history[-SHOWN_HISTORY:], found.item_Uk[0][found.item_Uk[0] >= 0]
    on_paths = [items[:ITEMS_ON_A_VISITED_PATH].astype(np.int64) for _, _, items in visits]
    facts = facts_of(run, np.unique(np.concatenate([recent, recommended, *on_paths])))
    return {
        "history": [title(facts[item]) for item in recent.tolist()],
        "paths": [
            {
                "path": [int(node) for node in run.space.decode(np.array(path))],
                "probability": float(np.exp(log_prob)),
                "size": len(items),
                "items": [title(facts[item]) for item in items[:ITEMS_ON_A_VISITED_PATH].tolist()],
            }
            for path, log_prob, items in visits
        ],
        "items": [title(facts[item]) for item in recommended.tolist()],
    }
