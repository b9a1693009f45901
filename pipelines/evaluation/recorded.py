"""What ``dr compare`` and ``dr sweep`` have left beside a run: stages in its record, files below ``runs/``."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from dr_core.arrays import IntArray
from pipelines.evaluation.learned_run import LearnedRun
from pipelines.evaluation.measurement import Measurement

BASELINE_STAGE = "baseline_"
"""Prefix of the stages in which ``dr compare`` measures a family of methods."""
SWEEP_STAGE = "sweep_"
"""Prefix of the stages in which ``dr sweep`` measures one point of one study."""


def baseline_file(run: LearnedRun, family: str) -> str:
    """Return the name below ``runs/`` of what was measured of a family."""
    return f"{run.run.run_id}.baseline-{family}"


def measured_families(run: LearnedRun) -> list[str]:
    """Return the families that were measured beside a run."""
    names = [stage["name"] for stage in run.run.record["stages"]]
    return [name.removeprefix(BASELINE_STAGE) for name in names if name.startswith(BASELINE_STAGE)]


def baseline_fits(run: LearnedRun) -> list[dict[str, Any]]:
    """Return what fitting each method took: settings tried and chosen, seconds, megabytes."""
    return [fit for family in measured_families(run) for fit in run.result(BASELINE_STAGE + family)["fits"]]


def full_measurement(run: LearnedRun) -> Measurement:
    """Return the run's own measurement together with those of the families measured beside it."""
    own = Measurement.load(run.workdir, run.run.run_id)
    curves, operating = dict(own.curves), dict(own.operating)
    for family in measured_families(run):
        measured = Measurement.load(run.workdir, baseline_file(run, family))
        curves |= measured.curves
        operating |= measured.operating
    return Measurement(curves, operating, own.width)


def baseline_lists(run: LearnedRun) -> dict[str, IntArray]:
    """Return the headline lists, int64 [U, k], of every method that was measured beside a run."""
    lists: dict[str, IntArray] = {}
    for family in measured_families(run):
        name = f"{baseline_file(run, family)}.lists.npz"
        with run.workdir.filesystem.open(run.workdir.path("runs", name), "rb") as file:
            lists |= {method: items.astype(np.int64) for method, items in np.load(io.BytesIO(file.read())).items()}
    return lists


def sweep_rows(runs: Sequence[LearnedRun]) -> list[dict[str, Any]]:
    """Return one row a point that any seed has: study, value, seeds, means and standard deviations over these seeds.

    A figure that some of the seeds lack is left out of the row.
    """
    points: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        for stage in run.run.record["stages"]:
            if stage["name"].startswith(SWEEP_STAGE):
                points.setdefault(stage["name"].removeprefix(SWEEP_STAGE), []).append(stage)
    rows = []
    for name, stages in points.items():
        study, value = name.split("=", 1)
        row: dict[str, Any] = {"study": study, "value": value, "seeds": len(stages)}
        row["seconds"] = float(np.mean([stage["seconds"] for stage in stages]))
        results = [stage["result"] for stage in stages]
        for key in results[0]:
            values = [result.get(key) for result in results]
            if key.startswith("rows_") or any(figure is None or not np.isfinite(figure) for figure in values):
                continue
            row[key] = float(np.mean(values))
            if len(values) > 1:
                row[f"{key}_sd"] = float(np.std(values, ddof=1))
        rows.append(row)
    return rows
