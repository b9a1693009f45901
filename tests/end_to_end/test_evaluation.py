"""Measurement of a finished run where something fails, or is no longer there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from dr_core.errors import InputError
from pipelines.evaluation.controls import Controls
from pipelines.evaluation.learned_run import LearnedRun
from pipelines.evaluation.measurement import Measurement
from pipelines.experiments.compare import compare_runs
from pipelines.experiments.sweep import sweep_runs
from pipelines.flows.day_one import Source, run_day_one, seed_run
from pipelines.report.build import build_report
from pipelines.storage.workdir import Workdir
from tests.end_to_end.world import FIRST, TinyWorld, tiny_config

TRAINED = {"random_paths", "embedding_paths", "deep_retrieval_j1", "deep_retrieval_random_start"}


@pytest.fixture
def workdir(tiny_world: TinyWorld, tmp_path: Path) -> Path:
    """A copy of the work folder after day one."""
    return Path(shutil.copytree(tiny_world.workdir, tmp_path / "W"))


def learned(spark: SparkSession, world: TinyWorld, workdir: Path) -> LearnedRun:
    source = Source(world.logs["first"], None, FIRST)
    return seed_run(spark, tiny_config(), Workdir(str(workdir)), source, 0)


def test_a_control_that_fails_loses_nothing(
    spark: SparkSession, tiny_world: TinyWorld, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Controls) -> Any:
        raise MemoryError("the control is too large")

    monkeypatch.setattr(Controls, "embedding_paths", fail)
    summary = run_day_one(tiny_config(), str(workdir), logs=tiny_world.logs["first"], interval=FIRST, only="evaluate")
    (evaluated,) = (stage["result"] for stage in summary["stages"] if stage["name"] == "evaluate")
    assert evaluated["controls_failed"] == {"embedding_paths": "MemoryError: the control is too large"}
    assert evaluated["controls_left_out"] is None
    run = learned(spark, tiny_world, workdir)
    assert set(Measurement.load(run.workdir, run.run.run_id).operating) >= TRAINED - {"embedding_paths"}
    report = build_report([run])
    assert {row["method"] for row in report["results"]} & TRAINED == TRAINED - {"embedding_paths"}
    notes = json.loads((workdir / "report" / "report_data.json").read_text())["notes"]
    assert "Embedding paths failed and is left out: MemoryError: the control is too large" in notes


def test_deep_retrieval_is_saved_before_any_control_is_trained(
    spark: SparkSession, tiny_world: TinyWorld, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = learned(spark, tiny_world, workdir)
    points = workdir / "runs" / f"{run.run.run_id}.points.npz"
    before = Measurement.load(run.workdir, run.run.run_id)
    points.unlink()

    def interrupt(_: Controls) -> Any:
        assert points.exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(Controls, "random_paths", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_day_one(tiny_config(), str(workdir), logs=tiny_world.logs["first"], interval=FIRST, only="evaluate")
    after = Measurement.load(run.workdir, run.run.run_id)
    assert set(after.operating) == set(before.operating) - TRAINED
    key = (True, 5, "precision")
    assert after.operating["deep_retrieval"].figures[key].tolist() == (
        before.operating["deep_retrieval"].figures[key].tolist()
    )


def test_without_the_initial_mapping_a_run_is_measured_without_controls_and_experiments_say_what_is_missing(
    spark: SparkSession, tiny_world: TinyWorld, workdir: Path
) -> None:
    run = learned(spark, tiny_world, workdir)
    for t in (0, 1):
        shutil.rmtree(workdir / "models" / run.version_id(t))
    stages = [dict(stage) for stage in run.run.record["stages"]]
    with pytest.raises(InputError, match=rf"no longer holds the initial mapping {run.version_id(0)}.*--fresh"):
        sweep_runs([run], ["nodes", "coherence"])
    done = run_day_one(tiny_config(), str(workdir), logs=tiny_world.logs["first"], interval=FIRST, only="evaluate")
    (evaluated,) = (stage["result"] for stage in done["stages"] if stage["name"] == "evaluate")
    assert f"the initial mapping {run.version_id(0)} is gone" in evaluated["controls_left_out"]
    run = learned(spark, tiny_world, workdir)
    report = build_report([run])
    assert {row["method"] for row in report["results"]}.isdisjoint(TRAINED)
    sizes = json.loads((workdir / "report" / "report_data.json").read_text())["path_sizes"]
    assert [entry["label"] for entry in sizes] == ["after M-step 2"]

    shutil.rmtree(workdir / "models" / run.last_id)
    run = learned(spark, tiny_world, workdir)
    with pytest.raises(InputError, match=rf"no longer holds the model {run.last_id}, the mapping {run.last_id}"):
        compare_runs([run], ["ease"])
    assert [stage["name"] for stage in run.run.record["stages"]] == [stage["name"] for stage in stages]


def test_a_comparison_on_fewer_seeds_keeps_the_others_in_the_report(
    spark: SparkSession, tiny_world: TinyWorld, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.experiments.baselines.TRIALS", 1)
    run = learned(spark, tiny_world, workdir)
    compare_runs([run], ["ease"])
    other = learned(spark, tiny_world, Path(shutil.copytree(tiny_world.workdir, workdir / "seeds" / "1")))
    report = build_report([run, other])
    assert report["seeds"] == 2
    (ease,) = (row for row in report["results"] if row["method"] == "ease" and row["k"] == 5 and row["filtered"])
    assert ease["sd"] is None
    notes = json.loads((workdir / "report" / "report_data.json").read_text())["notes"]
    assert "EASE: measured on 1 of 2 seeds" in notes
