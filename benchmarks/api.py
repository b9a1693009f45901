"""The Python API beside ``dr run``: the same training users, the same users held out, the same configuration and seed.

``python -m benchmarks.api --logs LOG --workdir W --seeds 4``

Each seed draws its own held-out users. ``dr run`` goes first and is continued where it stopped; the API then learns from the
interactions that the run kept. The beam and brute force over all items are measured: what the two have in common is the
warm-up's softmax, the rest is the structure.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
from scipy.stats import t as student

from dr_core import DeepRetrieval
from dr_core.arrays import DoubleArray
from dr_core.evaluation.metrics import user_metrics
from dr_core.item_lists import ItemLists
from dr_core.learning.config import LearningConfig
from pipelines.config.load import load_config
from pipelines.config.run import RunConfig
from pipelines.evaluation.learned_run import LearnedRun
from pipelines.evaluation.measurement import Measurement
from pipelines.flows.day_one import Source, run_day_one, seed_run
from pipelines.storage.delta_reader import read_columns, read_rows
from pipelines.storage.workdir import Workdir

METRICS = ("precision", "recall", "ndcg")
METHODS = ("deep_retrieval", "brute_force")
Figures = dict[str, float]
"""Means over the test users by ``<method>_<metric>``; the history is left out of the lists."""


def figures_of_run(run: LearnedRun) -> Figures:
    """Return what a finished run measured."""
    points = Measurement.load(run.workdir, run.run.run_id).operating
    k = run.config.serving.k
    return {
        f"{method}_{metric}": float(np.nanmean(points[method].figures[(True, k, metric)]))
        for method in METHODS
        for metric in METRICS
    }


def figures_of_api(run: LearnedRun) -> Figures:
    """Fit the API on a run's training users and measure it on the run's test users."""
    config, k = run.config, run.config.serving.k
    held_out = read_rows(run.workdir.table("evaluation_histories"))
    kept_out = {row["user"] for row in read_rows(run.workdir.table("evaluation_users"))}
    columns = ["user", "item_id", "event_time", "event_order"]
    events = read_columns(run.workdir.table("interactions"), columns).to_pandas()
    events = events[~events["user"].isin(kept_out)].sort_values(["user", "event_time", "event_order"])
    sections = {name: getattr(config, name) for name in LearningConfig.model_fields}
    model = DeepRetrieval(k=k, seed=run.seed, config=LearningConfig(**sections)).fit(
        events.groupby("user")["item_id"].agg(list).tolist(),
        validation=[row["history"] + row["truth"] for row in held_out if row["role"] == "validation"],
    )
    test = [row for row in held_out if row["role"] == "test"]
    known = set(model.items)
    histories = [[item for item in row["history"] if item in known] for row in test]
    truths = ItemLists.from_rows([row["truth"] for row in test])
    figures: Figures = {}
    for method, beam in zip(METHODS, (model.beam, run.space.num_paths), strict=True):
        lists = model.recommend_all(histories, k, exclude=True, beam=beam)
        item_Uk = np.array([found.items + [-1] * (k - len(found.items)) for found in lists])
        means = user_metrics(item_Uk, truths, k).means()
        figures |= {f"{method}_{metric}": means[metric] for metric in METRICS}
    return figures


def spread(values: DoubleArray) -> dict[str, float]:
    """Return the mean over seeds, their standard deviation, and the t interval (95 %) of the mean."""
    mean, sd, count = float(values.mean()), float(values.std(ddof=1)), len(values)
    reach = float(student.ppf(0.975, count - 1)) * sd / count**0.5
    return {name: round(figure, 4) for name, figure in
            (("mean", mean), ("sd", sd), ("low", mean - reach), ("high", mean + reach))}  # fmt: skip


def compare(config: RunConfig, logs: str, workdir: str, num_seeds: int) -> dict[str, Any]:
    """Run both on every seed; return each figure of both, and of API - run, seed by seed."""
    run_day_one(config, workdir, logs=logs, num_seeds=num_seeds)
    runs = [seed_run(None, config, Workdir(workdir), Source(logs), number) for number in range(num_seeds)]
    rows = [(figures_of_api(run), figures_of_run(run)) for run in runs]
    document: dict[str, Any] = {"benchmark": "api", "config": config.name, "seeds": num_seeds}
    for name in rows[0][0]:
        api, run = (np.array([row[side][name] for row in rows]) for side in (0, 1))
        document[name] = {"api": spread(api), "run": spread(run), "difference": spread(api - run)}
    return document


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", required=True)
    parser.add_argument("--config", default="benchmarks/api.yaml")
    parser.add_argument("--workdir", default="var/benchmarks/api")
    parser.add_argument("--seeds", type=int, default=4)
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error("--seeds: an interval over seeds needs two or more")
    config = load_config(arguments.config)
    print(json.dumps(compare(config, arguments.logs, arguments.workdir, arguments.seeds)))


if __name__ == "__main__":
    main()
