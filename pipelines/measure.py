"""The measurement of a run: Deep Retrieval, its controls and brute force, on the same test users.

Per-user figures of every point are kept in ``runs/<run_id>.points.npz``, so that seeds can be put together, intervals
drawn and the report made again without measuring again.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pyspark.sql import functions as F

from dr_core.arrays import IntArray
from dr_core.evaluation.evaluator import Arm, EvaluationUsers, Evaluator, Point, choose_beam, nearest
from dr_core.learning.checkpoint import load_model
from dr_core.learning.states import States
from dr_core.model.objective import DeepRetrievalModel, batch_from_arrays
from pipelines.arms import train_arms
from pipelines.em import DayOne
from pipelines.evaluation.users import load_users
from pipelines.stages.training.petastorm import read_files
from pipelines.storage.workdir import Workdir

logger = logging.getLogger(__name__)
FIXED_SIZE = ("exact_candidates", "popular_candidates", "random_candidates")


SWEEP_STAGE = "sweep_"
"""Prefix of the stages in which ``dr sweep`` measures one point of one study."""
RIVAL_STAGE = "rival_"
"""Prefix of the stages in which ``dr compare`` measures a family of rivals."""


class Measurement:
    """All points of one seed: ``curves`` by method, and the ``operating`` point of each."""

    def __init__(self, curves: dict[str, list[Point]], operating: dict[str, Point], beam: int) -> None:
        self.curves, self.operating, self.beam = curves, operating, beam

    def save(self, workdir: Workdir, run_id: str) -> None:
        """Write the points below ``runs/``."""
        arrays: dict[str, npt.NDArray[Any]] = {}
        meta: list[dict[str, Any]] = []
        for group, points in [("curve", p) for p in self.curves.values()] + [
            ("operating", list(self.operating.values()))
        ]:
            for point in points:
                number = len(meta)
                meta.append(
                    {
                        "group": group,
                        "method": point.method,
                        "beam": point.beam,
                        "multiply_adds": point.multiply_adds,
                        "microseconds": point.microseconds,
                    }
                )
                arrays[f"{number}|candidates"] = point.candidates.astype(np.float32)
                arrays[f"{number}|candidate_recall"] = point.candidate_recall.astype(np.float32)
                for (filtered, k, name), values in point.figures.items():
                    arrays[f"{number}|{int(filtered)}|{k}|{name}"] = values.astype(np.float32)
        arrays["meta"] = np.frombuffer(json.dumps({"beam": self.beam, "points": meta}).encode(), dtype=np.uint8)
        workdir.write_arrays(arrays, "runs", f"{run_id}.points.npz")

    @staticmethod
    def load(workdir: Workdir, run_id: str) -> Measurement:
        """Read what :meth:`save` wrote."""
        with workdir.filesystem.open(workdir.path("runs", f"{run_id}.points.npz"), "rb") as file:
            arrays = dict(np.load(io.BytesIO(file.read()), allow_pickle=False))
        meta = json.loads(arrays.pop("meta").tobytes().decode())
        points = [
            Point(
                entry["method"],
                entry["beam"],
                arrays[f"{number}|candidates"].astype(np.float64),
                arrays[f"{number}|candidate_recall"].astype(np.float64),
                entry["multiply_adds"],
                entry["microseconds"],
            )
            for number, entry in enumerate(meta["points"])
        ]
        for name, values in arrays.items():
            number, *key = name.split("|")
            if len(key) == 3:
                points[int(number)].figures[(bool(int(key[0])), int(key[1]), key[2])] = values.astype(np.float64)
        curves: dict[str, list[Point]] = {}
        operating: dict[str, Point] = {}
        for point, entry in zip(points, meta["points"], strict=True):
            if entry["group"] == "curve":
                curves.setdefault(point.method, []).append(point)
            else:
                operating[point.method] = point
        return Measurement(curves, operating, meta["beam"])


def rival_file(day: DayOne, family: str) -> str:
    """Return the name below ``runs/`` of what was measured of a family of rivals."""
    return f"{day.run.run_id}.rival-{family}"


def measured_families(day: DayOne) -> list[str]:
    """Return the families of rivals that were measured in a run."""
    names = [stage["name"] for stage in day.run.record["stages"]]
    return [name.removeprefix(RIVAL_STAGE) for name in names if name.startswith(RIVAL_STAGE)]


def with_rivals(day: DayOne, measurement: Measurement) -> Measurement:
    """Return a measurement together with those of the rivals."""
    curves, operating = dict(measurement.curves), dict(measurement.operating)
    for family in measured_families(day):
        rivals = Measurement.load(day.workdir, rival_file(day, family))
        curves |= rivals.curves
        operating |= rivals.operating
    return Measurement(curves, operating, measurement.beam)


def rival_lists(day: DayOne) -> dict[str, IntArray]:
    """Return the headline lists [U, k] of every rival that was measured."""
    lists: dict[str, IntArray] = {}
    for family in measured_families(day):
        name = f"{rival_file(day, family)}.lists.npz"
        with day.workdir.filesystem.open(day.workdir.path("runs", name), "rb") as file:
            lists |= {method: items.astype(np.int64) for method, items in np.load(io.BytesIO(file.read())).items()}
    return lists


def released_arm(day: DayOne) -> Arm:
    """Return Deep Retrieval as it would go live: the last model and the mapping of the active items."""
    release_id = day.release_id(day.config.em.rounds)
    model = load_model(day.workdir.filesystem, day.workdir.path("models", release_id))
    return Arm("deep_retrieval", model, day.workdir.read_array("models", release_id, "item_paths.npy"))


def inactive_items(day: DayOne) -> IntArray:
    """Return the ids of retired items, which no method may return."""
    rows = day.workdir.read(day.spark, "items").where(~F.col("active")).select("item_id").toPandas()
    return rows["item_id"].to_numpy(np.int64)


def without(mapping: IntArray, items: IntArray) -> IntArray:
    """Return a copy of a mapping in which some items stand on no path."""
    kept = mapping.copy()
    kept[items] = -1
    return kept


def measure(day: DayOne) -> dict[str, Any]:
    """Train the controls, measure everything and save it; return what the run's record keeps."""
    config = day.config
    arm = released_arm(day)
    retired = inactive_items(day)
    users = load_users(day.spark, day.workdir, "test")
    up_to = max(config.evaluation.curve_shares) * day.num_items
    evaluator = evaluator_of(day, arm.model, users, up_to, retired)
    live = Arm(arm.name, arm.model, without(arm.path_VJ, retired))
    beam = serving_beam(day, live, retired)
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
        initial = day.workdir.read_array("models", day.release_id(0), "item_paths.npy")
        for control in train_arms(config, arm.model, states, initial, day.validation, seed=day.seed):
            standing = Arm(control.name, control.model, without(control.path_VJ, retired))
            curves[control.name] = evaluator.curve(standing, up_to=up_to)
            operating[control.name] = nearest(curves[control.name], own.mean_candidates)
    measurement = Measurement(curves, operating, beam)
    measurement.save(day.workdir, day.run.run_id)
    return {"rows_in": len(users), "rows_out": sum(len(points) for points in curves.values()), "beam": beam}


def evaluator_of(
    day: DayOne, model: DeepRetrievalModel, users: EvaluationUsers, up_to: float, retired: IntArray
) -> Evaluator:
    """Build the evaluator of a run's users."""
    return Evaluator(
        model,
        users,
        ks=day.config.evaluation.k,
        max_length=day.config.samples.history_length,
        counts_V=day.counts,
        max_exact=int(up_to),
        retired=retired,
        seed=day.seed,
    )


def serving_beam(day: DayOne, arm: Arm, retired: IntArray) -> int:
    """Return B: configured, or the narrowest whose candidates reach 5 to 10 times the list (measured on validation users)."""
    evaluation = day.config.evaluation
    if evaluation.beam != "auto":
        return evaluation.beam
    wanted = evaluation.candidates_per_item * evaluation.k[0]
    users = day.validation if len(day.validation) else load_users(day.spark, day.workdir, "test")
    points = evaluator_of(day, arm.model, users, wanted, retired).curve(arm, up_to=wanted)
    return int(choose_beam(points, wanted).beam or 1)


def load_states(day: DayOne, model: DeepRetrievalModel) -> States:
    """Encode all samples with the frozen encoder."""
    files = read_files(day.workdir.filesystem, day.workdir.table(day.samples_name))
    return States.encode(model, (batch_from_arrays(columns) for columns in files))


def sweep_rows(days: list[DayOne]) -> list[dict[str, Any]]:
    """Return one row a point of the first seed: study, value, means and standard deviations over the seeds that have it."""
    points_by_seed = [
        {
            stage["name"].removeprefix(SWEEP_STAGE): stage
            for stage in day.run.record["stages"]
            if stage["name"].startswith(SWEEP_STAGE)
        }
        for day in days
    ]
    rows = []
    for name in points_by_seed[0] if points_by_seed else ():
        measured = [points[name] for points in points_by_seed if name in points]
        study, value = name.split("=", 1)
        row: dict[str, Any] = {"study": study, "value": value, "seeds": len(measured)}
        row["seconds"] = float(np.mean([stage["seconds"] for stage in measured]))
        results = [stage["result"] for stage in measured]
        for key in results[0]:
            values = [result[key] for result in results]
            if key.startswith("rows_") or any(figure is None for figure in values):
                continue
            row[key] = float(np.mean(values))
            if len(values) > 1:
                row[f"{key}_sd"] = float(np.std(values, ddof=1))
        rows.append(row)
    return rows


def by_activity(
    measurement: Measurement, users: EvaluationUsers, methods: Sequence[str], k: int, filtered: bool
) -> list[dict[str, Any]]:
    """Accuracy by the length of the user's history, in quarters of the users."""
    lengths = np.array([len(history) for history in users.histories])
    edges = np.unique(np.quantile(lengths, [0, 0.25, 0.5, 0.75, 1]).astype(int))
    rows = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        chosen = (lengths >= low) & (lengths < high if high != edges[-1] else lengths <= high)
        if not chosen.any():
            continue
        last = high - 1 if high != edges[-1] else high
        for method in methods:
            point = measurement.operating[method]
            rows.append(
                {
                    "method": method,
                    "bucket": f"{low}–{last} events",
                    "users": int(chosen.sum()),
                    **{
                        name: float(np.nanmean(point.figures[(filtered, k, name)][chosen]))
                        for name in ("precision", "recall", "overlap")
                    },
                }
            )
    return rows


def breadth(
    items_Uk: dict[str, IntArray], counts_V: npt.NDArray[np.float64], creators: Sequence[str | None]
) -> list[dict[str, Any]]:
    """How much of the catalogue each method's lists reach: items, creators, the rarer half, surprise.

    Novelty is the mean over recommended items of -log2 of their share of the training events (Vargas and Castells, RecSys
    2011), in bits; the share of an item without events is that of one event.
    """
    num_items = len(counts_V)
    rank = np.empty(num_items, np.int64)
    rank[np.lexsort((np.arange(num_items), -counts_V))] = np.arange(num_items)
    surprise_V = -np.log2(np.maximum(counts_V, 1) / max(counts_V.sum(), 1))
    named = np.array([name or "" for name in creators])
    all_creators = len(set(named.tolist()) - {""})
    rows = []
    for method, items in items_Uk.items():
        held = items[items >= 0]
        reached = np.unique(held)
        met = len(set(named[reached].tolist()) - {""})
        rows.append({
            "method": method,
            "coverage": len(reached) / num_items,
            "creators": met / all_creators if all_creators else None,
            "tail_share": float((rank[held] >= num_items // 2).mean()),
            "novelty": float(surprise_V[held].mean()),
        })  # fmt: skip
    return rows


def by_popularity(
    items_Uk: dict[str, IntArray], users: EvaluationUsers, counts_V: npt.NDArray[np.float64]
) -> list[dict[str, Any]]:
    """Who gets recommended, and found: the top 1 %, the next 9 %, the next 40 %, the rest of the items by popularity."""
    num_items = len(counts_V)
    order = np.lexsort((np.arange(num_items), -counts_V))
    place = np.empty(num_items, np.int64)
    place[order] = np.arange(num_items)
    bounds = [0, max(1, num_items // 100), max(2, num_items // 10), max(3, num_items // 2), num_items]
    names = ("top 1 %", "next 9 %", "next 40 %", "rest")
    rows = []
    for method, items in items_Uk.items():
        held = items[items >= 0]
        hits = np.zeros(len(names))
        true = np.zeros(len(names))
        for user, truth in enumerate(users.truths):
            bucket = np.searchsorted(bounds, place[truth], side="right") - 1
            np.add.at(true, bucket, 1)
            np.add.at(hits, bucket, np.isin(truth, items[user]))
        share = np.bincount(np.searchsorted(bounds, place[held], side="right") - 1, minlength=len(names)) / len(held)
        rows += [
            {
                "method": method,
                "bucket": name,
                "items": bounds[number + 1] - bounds[number],
                "share_of_recommendations": float(share[number]),
                "recall": float(hits[number] / true[number]) if true[number] else None,
            }
            for number, name in enumerate(names)
        ]
    return rows
