"""A work folder that holds a finished run, asked again: what is done anew, and what is never lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from delta.tables import DeltaTable
from pyspark.sql import SparkSession

from dr_core.errors import InputError
from pipelines.flows.day_one import run_day_one
from pipelines.flows.evaluate_release import evaluate_release
from pipelines.report.console import trim_console_table
from pipelines.storage.releases import live_release
from pipelines.storage.workdir import Workdir
from tests.end_to_end.world import FIRST, TinyWorld, tiny_config

Contents = Callable[..., pd.DataFrame]
LEARNED = ("item_paths", "path_scores", "item_stats", "path_items")


@pytest.fixture
def workdir(tiny_world: TinyWorld, tmp_path: Path) -> Path:
    """A copy of the work folder after day one."""
    return Path(shutil.copytree(tiny_world.workdir, tmp_path / "W"))


def again(workdir: Path, log: str, *overrides: str, **options: Any) -> dict[str, Any]:
    return run_day_one(tiny_config(*overrides), str(workdir), logs=log, interval=FIRST, **options)


def seconds(workdir: Path) -> dict[str, float]:
    """Return what each recorded stage took: another figure where it was done again."""
    (file,) = (workdir / "runs").glob("*.json")
    return {stage["name"]: stage["seconds"] for stage in json.loads(file.read_text())["stages"]}


def test_another_measurement_or_service_trains_nothing(
    spark: SparkSession, contents: Contents, tiny_world: TinyWorld, workdir: Path
) -> None:
    before = seconds(workdir)
    measured = again(workdir, tiny_world.logs["first"], "evaluation.k=[3]", "evaluation.controls=false")
    assert {name for name, taken in seconds(workdir).items() if taken != before[name]} == {"evaluate"}
    assert {row["k"] for row in measured["results"]} == {5, 3}
    assert {row["method"] for row in measured["results"]}.isdisjoint({"random_paths", "embedding_paths"})

    before = seconds(workdir)
    served = again(workdir, tiny_world.logs["first"], "serving.k=4", "serving.beam=8", "evaluation.controls=false")
    redone = {name for name, taken in seconds(workdir).items() if taken != before[name]}
    assert redone == {"serving", "publish", "retrieve", "evaluate"}
    assert served["structure"]["beam"] == 8
    assert served["release_id"] == measured["release_id"] == tiny_world.release_id
    for table in LEARNED:
        pd.testing.assert_frame_equal(contents(workdir, table), contents(tiny_world.workdir, table))
    assert contents(workdir, "recommendations").groupby("user")["rank"].max().max() == 3
    live = live_release(Workdir(str(workdir)))
    assert live is not None
    assert live.release_id == tiny_world.release_id


def test_a_dry_run_says_what_would_be_done_and_does_nothing(tiny_world: TinyWorld, workdir: Path) -> None:
    files = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}
    log = tiny_world.logs["first"]

    def actions(*overrides: str, **options: Any) -> dict[str, str]:
        found = again(workdir, log, *overrides, dry_run=True, **options)
        return {stage["name"]: stage["action"] for stage in found["stages"]}

    def run(*overrides: str, **options: Any) -> set[str]:
        return {name for name, action in actions(*overrides, **options).items() if action == "run"}

    assert run() == {"report"}
    assert run("serving.beam=2") == {"serving", "publish", "retrieve", "evaluate", "report"}
    assert run(from_stage="index") == {"index", "serving", "publish", "retrieve", "evaluate", "report"}
    assert run(only="scores_2") == {"scores_2"}
    assert run("em.final_epochs=2") == set(actions()), "another configuration is another run"
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()} == files


def test_one_stage_or_all_from_one_on_are_done_again(
    spark: SparkSession, contents: Contents, tiny_world: TinyWorld, workdir: Path
) -> None:
    log, before = tiny_world.logs["first"], seconds(workdir)
    assert again(workdir, log, only="index")["status"] == "done", "a finished run stays finished"
    assert {name for name, taken in seconds(workdir).items() if taken != before[name]} == {"index"}
    before = seconds(workdir)
    again(workdir, log, "evaluation.controls=false", from_stage="assign_2", num_seeds=1)
    redone = {name for name, taken in seconds(workdir).items() if taken != before[name]}
    assert redone == {"assign_2", "e_step_final", "index", "serving", "publish", "retrieve", "evaluate"}
    for table in LEARNED:
        pd.testing.assert_frame_equal(contents(workdir, table), contents(tiny_world.workdir, table))


def files_of(workdir: Path) -> set[Path]:
    """Return all files but those of the lease, which every holder numbers anew."""
    return {path for path in workdir.rglob("*") if path.is_file() and path.suffix != ".lease"}


@pytest.mark.parametrize("log", ["missing", "without columns", "empty"])
def test_a_fresh_start_from_a_log_that_cannot_be_read_deletes_nothing(
    spark: SparkSession, tiny_world: TinyWorld, workdir: Path, tmp_path: Path, log: str
) -> None:
    file = tmp_path / "log.parquet"
    if log == "without columns":
        pd.DataFrame({"who": ["a"], "what": ["b"]}).to_parquet(file)
    if log == "empty":
        pd.read_parquet(tiny_world.logs["first"]).head(0).to_parquet(file)
    before, files = live_release(Workdir(str(workdir))), files_of(workdir)
    with pytest.raises(InputError, match=str(file)):
        again(workdir, str(file), fresh=True)
    assert files_of(workdir) == files
    assert live_release(Workdir(str(workdir))) == before


def test_a_fresh_start_keeps_the_live_folder_until_it_is_finished(
    spark: SparkSession, tiny_world: TinyWorld, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ("em.rounds=1", "evaluation.controls=false")

    def fail(*_: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(__import__("pipelines.flows.steps", fromlist=["DAY_ONE"]).DAY_ONE, "warm_up", fail)
        with pytest.raises(KeyboardInterrupt):
            again(workdir, tiny_world.logs["first"], *overrides, fresh=True)
    kept = live_release(Workdir(str(workdir / "previous")))
    assert kept is not None
    assert kept.release_id == tiny_world.release_id
    done = again(workdir, tiny_world.logs["first"], *overrides)
    live = live_release(Workdir(str(workdir)))
    assert live is not None
    assert live.release_id == done["release_id"] != tiny_world.release_id
    assert not (workdir / "previous").exists()


def test_a_release_of_several_seeds_is_measured_again_with_all_of_them(
    spark: SparkSession, tiny_world: TinyWorld, workdir: Path
) -> None:
    overrides = ("evaluation.controls=false",)
    two = again(workdir, tiny_world.logs["first"], *overrides, num_seeds=2)
    measured = evaluate_release(str(workdir), None)
    assert measured["seeds"] == two["seeds"] == 2

    def accuracy(summary: dict[str, Any]) -> list[Any]:
        return [(row["method"], row["k"], row["filtered"], row["precision"], row["sd"]) for row in summary["results"]]

    assert accuracy(measured) == accuracy(two)
    assert json.loads((workdir / "report" / "summary.json").read_text())["seeds"] == 2


def test_a_world_without_held_out_users_is_served_without_figures(
    spark: SparkSession, tiny_world: TinyWorld, workdir: Path
) -> None:
    """The width is chosen by kept histories then, and the report has no results."""
    for table in ("evaluation_users", "evaluation_histories"):
        DeltaTable.forPath(spark, str(workdir / "tables" / table)).delete()
    done = again(workdir, tiny_world.logs["first"], from_stage="serving")
    assert (done["results"], done["curves"], done["differences"]) == ([], [], [])
    assert done["structure"]["price"] < 0 < done["structure"]["most"]
    assert done["release_id"] == tiny_world.release_id
    assert "Deep Retrieval" in (workdir / "report" / "index.html").read_text()
    assert trim_console_table(done).startswith("health")
