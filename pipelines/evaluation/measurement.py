"""What was measured of a run, as it is kept below ``runs/``: every point's figures a user."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import numpy.typing as npt

from dr_core.arrays import IntArray
from dr_core.evaluation.evaluator import Point
from pipelines.evaluation.learned_run import LearnedRun
from pipelines.storage.workdir import Workdir

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


def rival_file(day: LearnedRun, family: str) -> str:
    """Return the name below ``runs/`` of what was measured of a family of rivals."""
    return f"{day.run.run_id}.rival-{family}"


def measured_families(day: LearnedRun) -> list[str]:
    """Return the families of rivals that were measured in a run."""
    names = [stage["name"] for stage in day.run.record["stages"]]
    return [name.removeprefix(RIVAL_STAGE) for name in names if name.startswith(RIVAL_STAGE)]


def with_rivals(day: LearnedRun, measurement: Measurement) -> Measurement:
    """Return a measurement together with those of the rivals."""
    curves, operating = dict(measurement.curves), dict(measurement.operating)
    for family in measured_families(day):
        rivals = Measurement.load(day.workdir, rival_file(day, family))
        curves |= rivals.curves
        operating |= rivals.operating
    return Measurement(curves, operating, measurement.beam)


def rival_lists(day: LearnedRun) -> dict[str, IntArray]:
    """Return the headline lists [U, k] of every rival that was measured."""
    lists: dict[str, IntArray] = {}
    for family in measured_families(day):
        name = f"{rival_file(day, family)}.lists.npz"
        with day.workdir.filesystem.open(day.workdir.path("runs", name), "rb") as file:
            lists |= {method: items.astype(np.int64) for method, items in np.load(io.BytesIO(file.read())).items()}
    return lists


def sweep_rows(days: list[LearnedRun]) -> list[dict[str, Any]]:
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
