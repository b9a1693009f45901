"""What was measured of a run, as it is kept below ``runs/``: every point's figures a user."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import numpy.typing as npt

from dr_core.evaluation.evaluator import Point
from dr_core.retrieval.router import Width, as_settings, width_of
from pipelines.storage.json_text import to_json
from pipelines.storage.workdir import Workdir


class Measurement:
    """All points of one seed: ``curves`` by method, the ``operating`` point of each, and the width that is served."""

    def __init__(self, curves: dict[str, list[Point]], operating: dict[str, Point], width: Width) -> None:
        self.curves, self.operating, self.width = curves, operating, width

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
                        "width": None if point.width is None else as_settings(point.width),
                        "wanted": point.wanted,
                        "multiply_adds": point.multiply_adds,
                        "microseconds": point.microseconds,
                    }
                )
                arrays[f"{number}|candidates"] = point.candidates.astype(np.float32)
                arrays[f"{number}|candidate_recall"] = point.candidate_recall.astype(np.float32)
                for (filtered, k, name), values in point.figures.items():
                    arrays[f"{number}|{int(filtered)}|{k}|{name}"] = values.astype(np.float32)
        arrays["meta"] = np.frombuffer(to_json({**as_settings(self.width), "points": meta}).encode(), dtype=np.uint8)
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
                width=width_of(entry["width"]) if entry.get("width") else None,
                wanted=entry.get("wanted"),
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
        return Measurement(curves, operating, width_of(meta))
