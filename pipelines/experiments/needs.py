"""Checks that stand before a comparison or a sweep: is everything there that it will read?"""

from __future__ import annotations

from collections.abc import Sequence

from dr_core.errors import InputError
from dr_core.learning.checkpoint import read_manifest
from pipelines.evaluation.learned_run import LearnedRun

TABLES = ("items", "interactions", "evaluation_histories")


def require_for_comparison(runs: Sequence[LearnedRun]) -> None:
    """Refuse to begin where a run lacks what every method needs.

    Raises:
        InputError: names all that is missing, and what to do.
    """
    _refuse([problem for run in runs for problem in _missing(run)], runs)


def require_for_sweep(runs: Sequence[LearnedRun], *, samples: bool, initial_mapping: bool) -> None:
    """Refuse to begin where a run lacks what a sweep's studies need.

    Args:
        samples: whether a study learns from the samples.
        initial_mapping: whether a study reads pi_0.

    Raises:
        InputError: names all that is missing, and what to do.
    """
    problems = []
    for run in runs:
        problems += _missing(run)
        for name in dict.fromkeys(("samples", run.samples_name)) if samples else ():
            if not run.workdir.exists("tables", name):
                problems.append(f"the table {name}")
        if initial_mapping and not run.has_mapping(0):
            problems.append(f"the initial mapping {run.version_id(0)}, which maintenance removes")
    _refuse(problems, runs)


def _missing(run: LearnedRun) -> list[str]:
    """Return what a run lacks of its last model and mapping, its measurement and the tables."""
    problems = []
    if read_manifest(run.workdir.filesystem, run.workdir.path("models", run.last_id)) is None:
        problems.append(f"the model {run.last_id}")
    if not run.has_mapping(run.last_version):
        problems.append(f"the mapping {run.last_id}")
    if not run.workdir.exists("runs", f"{run.run.run_id}.points.npz"):
        problems.append(f"the measurement runs/{run.run.run_id}.points.npz")
    return problems + [f"the table {name}" for name in TABLES if not run.workdir.has_table(run.spark, name)]


def _refuse(problems: Sequence[str], runs: Sequence[LearnedRun]) -> None:
    if problems:
        raise InputError(
            f"{runs[0].workdir.uri} no longer holds {', '.join(dict.fromkeys(problems))}: run day one into another"
            " --workdir, or anew here with --fresh"
        )
