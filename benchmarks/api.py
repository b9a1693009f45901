"""The Python API on a log, measured as ``dr run`` measures: half of a held-out user's events given, the other half wanted.

``python -m benchmarks.api --logs LOG --config conf/movielens_1m.yaml``

The configuration's learning sections, columns, positives and split count. To compare with a run on the same users, name them
with ``--test-users`` and ``--validation-users``, files with a user a line; by default both are drawn from the seed.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dr_core import DeepRetrieval
from dr_core.evaluation.metrics import user_metrics
from dr_core.item_lists import ItemLists
from dr_core.learning.config import LearningConfig
from pipelines.config.load import load_config
from pipelines.config.run import RunConfig


def positive_histories(config: RunConfig, logs: str) -> dict[str, list[Any]]:
    """Return the items of each user with enough positive events, oldest first, by the user's name."""
    columns, positive = config.dataset.columns, config.preprocess.positive
    table = pd.read_parquet(logs)
    if positive.kind == "threshold":
        table = table[table[getattr(columns, positive.column)] >= positive.at_least]
    elif positive.kind == "flag":
        table = table[table[getattr(columns, positive.column)].astype(bool)]
    table = table.sort_values([columns.user, columns.order or columns.time], kind="stable")
    histories = table.groupby(table[columns.user].astype(str))[columns.item].agg(list)
    return {user: items for user, items in histories.items() if len(items) >= config.preprocess.min_events}


def named_users(path: Path | None, drawn: list[str]) -> list[str]:
    """Return the users that a file names, or those drawn."""
    return drawn if path is None else path.read_text().split()


def measure(
    config: RunConfig, histories: dict[str, list[Any]], arguments: argparse.Namespace, seed: int
) -> dict[str, float]:
    """Fit on all but the held-out users; return figures of the test users."""
    k = config.serving.k
    order = np.random.default_rng(seed).permutation(sorted(histories)).tolist()
    split = config.split
    test = named_users(arguments.test_users, order[: split.num_test])
    validation = named_users(arguments.validation_users, order[split.num_test : split.num_test + split.num_validation])
    held_out = {*test, *validation}
    sections = {name: getattr(config, name) for name in LearningConfig.model_fields}
    model = DeepRetrieval(k=k, seed=seed, config=LearningConfig(**sections))
    began = time.perf_counter()
    model.fit(
        [items for user, items in histories.items() if user not in held_out],
        validation=[histories[user] for user in validation],
        progress=arguments.progress,
    )
    fitted = time.perf_counter() - began
    place = {key: at for at, key in enumerate(model.items)}
    truths = [histories[user][len(histories[user]) // 2 :] for user in test]
    known = [[key for key in histories[user][: len(histories[user]) // 2] if key in place] for user in test]
    figures: dict[str, float] = {"fit_seconds": fitted}
    # An item that no training user has cannot be returned; it still counts as wanted.
    numbers = [[place.setdefault(key, len(place)) for key in truth] for truth in truths]
    for name, exclude in (("filtered", True), ("unfiltered", False)):
        lists = model.recommend_all(known, k, exclude=exclude)
        item_Uk = np.full((len(test), k), -1, dtype=np.int64)
        for row, found in enumerate(lists):
            item_Uk[row, : len(found.items)] = [place[key] for key in found.items]
        means = user_metrics(item_Uk, ItemLists.from_rows(numbers), k).means()
        figures |= {f"{name}_{metric}": means[metric] for metric in ("precision", "recall", "ndcg")}
    return figures


def main() -> None:
    """Print one JSON line: means over seeds and their standard deviations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", required=True)
    parser.add_argument("--config", required=True)
    parser.add_argument("--test-users", type=Path)
    parser.add_argument("--validation-users", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--progress", action="store_true")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    histories = positive_histories(config, arguments.logs)
    rows = [measure(config, histories, arguments, config.seed + number) for number in range(arguments.seeds)]
    document: dict[str, Any] = {
        "benchmark": "api",
        "config": config.name,
        "seeds": arguments.seeds,
        "users": len(histories),
    }
    for name in rows[0]:
        values = [row[name] for row in rows]
        document[name] = round(float(np.mean(values)), 5)
        if len(values) > 1:
            document[f"{name}_sd"] = round(float(np.std(values, ddof=1)), 5)
    print(json.dumps(document))


if __name__ == "__main__":
    main()
