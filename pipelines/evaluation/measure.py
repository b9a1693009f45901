"""The measurement of a run: Deep Retrieval, its controls and brute force, on the same test users.

Per-user figures of every point are kept in ``runs/<run_id>.points.npz``, so that seeds can be put together, intervals
drawn and the report made again without measuring again.
"""

from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np
from pyspark.sql import functions as F

from dr_core.arrays import IntArray
from dr_core.evaluation.evaluator import Arm, EvaluationUsers, Evaluator, choose_beam, nearest
from dr_core.learning.checkpoint import load_model
from dr_core.learning.states import States
from dr_core.model.objective import DeepRetrievalModel, batch_from_arrays
from pipelines.evaluation.controls import train_arms
from pipelines.evaluation.learned_run import LearnedRun
from pipelines.evaluation.measurement import Measurement
from pipelines.evaluation.users import load_users
from pipelines.stages.training.petastorm import read_files

logger = logging.getLogger(__name__)
FIXED_SIZE = ("exact_candidates", "popular_candidates", "random_candidates")


def released_arm(day: LearnedRun) -> Arm:
    """Return Deep Retrieval as it would go live: the last model and the mapping of the active items."""
    model = load_model(day.workdir.filesystem, day.workdir.path("models", day.last_id))
    return Arm("deep_retrieval", model, day.workdir.read_array("models", day.last_id, "item_paths.npy"))


def inactive_items(day: LearnedRun) -> IntArray:
    """Return the ids of retired items, which no method may return."""
    rows = day.workdir.read(day.spark, "items").where(~F.col("active")).select("item_id").toPandas()
    return rows["item_id"].to_numpy(np.int64)


def without(mapping: IntArray, items: IntArray) -> IntArray:
    """Return a copy of a mapping in which some items stand on no path."""
    kept = mapping.copy()
    kept[items] = -1
    return kept


def measure(day: LearnedRun) -> dict[str, Any]:
    """Train the controls, measure everything and save it; return what the run's record keeps."""
    config = day.config
    arm = released_arm(day)
    retired = inactive_items(day)
    users = load_users(day.spark, day.workdir, "test")
    up_to = max(config.evaluation.curve_shares) * day.num_items
    evaluator = evaluator_of(day, arm.model, users, up_to, retired)
    live = Arm(arm.name, arm.model, without(arm.path_VJ, retired))
    beam = int(json.loads(day.workdir.read_text("models", day.last_id, "serving.json"))["beam"])
    curves = {arm.name: evaluator.curve(live, up_to=up_to, including=beam), "brute_force": [evaluator.brute_force]}
    own = next(point for point in curves[arm.name] if point.beam == beam)
    operating = {
        "deep_retrieval": own,
        "deep_retrieval_paths_only": evaluator.measure_beam(
            live, beam, method="deep_retrieval_paths_only", reranked=False
        ),
        "brute_force": evaluator.brute_force,
        "popularity": evaluator.popularity(),
    }
    sizes = [round(share * day.num_items) for share in config.evaluation.curve_shares]
    for name in FIXED_SIZE:
        curves[name] = evaluator.fixed_size(name, sizes)
        operating[name] = evaluator.fixed_size(name, [round(own.mean_candidates)])[0]
    if config.evaluation.controls:
        states = load_states(day, arm.model)
        initial = day.workdir.read_array("models", day.version_id(0), "item_paths.npy")
        for control in train_arms(config, arm.model, states, initial, day.validation, seed=day.seed):
            standing = Arm(control.name, control.model, without(control.path_VJ, retired))
            curves[control.name] = evaluator.curve(standing, up_to=up_to)
            operating[control.name] = nearest(curves[control.name], own.mean_candidates)
    measurement = Measurement(curves, operating, beam)
    measurement.save(day.workdir, day.run.run_id)
    return {"rows_in": len(users), "rows_out": sum(len(points) for points in curves.values()), "beam": beam}


def evaluator_of(
    day: LearnedRun, model: DeepRetrievalModel, users: EvaluationUsers, up_to: float, retired: IntArray
) -> Evaluator:
    """Build the evaluator of a run's users."""
    return Evaluator(
        model,
        users,
        ks=day.config.list_lengths,
        max_length=day.config.history_length,
        counts_V=day.counts,
        max_exact=int(up_to),
        retired=retired,
        seed=day.seed,
    )


def serving_beam(day: LearnedRun) -> int:
    """Return B: as configured, or the narrowest whose candidates are as many as are wanted for the validation users."""
    serving = day.config.serving
    if serving.beam != "auto":
        return serving.beam
    wanted = serving.wanted_candidates
    arm, retired = released_arm(day), inactive_items(day)
    live = Arm(arm.name, arm.model, without(arm.path_VJ, retired))
    users = day.validation if len(day.validation) else load_users(day.spark, day.workdir, "test")
    points = evaluator_of(day, arm.model, users, wanted, retired).curve(live, up_to=wanted)
    return int(choose_beam(points, wanted).beam or 1)


def load_states(day: LearnedRun, model: DeepRetrievalModel) -> States:
    """Encode all samples with the frozen encoder."""
    files = read_files(day.workdir.filesystem, day.workdir.table(day.samples_name))
    return States.encode(model, (batch_from_arrays(columns) for columns in files))
