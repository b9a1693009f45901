"""The jobs on a whole work folder: releases, maintenance and the deletion of a user."""

import importlib
import json
import shutil
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from pipelines.stages.ingest.preprocess import SETTLED
from pipelines.storage.publish import publish
from pipelines.storage.releases import live_release
from pipelines.storage.workdir import Workdir
from tests.made_up_release import RELEASE as MADE_UP

FIRST = MADE_UP


@pytest.fixture(scope="module")
def original(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with three releases, one the parent of the next."""
    folder = tmp_path_factory.mktemp("three") / "W"
    workdir, parent = Workdir(str(folder)), None
    for number, name in enumerate(("a-1", "b-1", "c-1")):
        created = FIRST.created_at + timedelta(days=number)
        publish(spark, workdir, replace(FIRST, release_id=name, parent_release=parent, created_at=created))
        (folder / "models" / name).mkdir(parents=True)
        parent = name
    return folder


@pytest.fixture
def three(original: Path, tmp_path: Path) -> Workdir:
    """A copy of the folder with three releases."""
    return Workdir(str(shutil.copytree(original, tmp_path / "W")))


def call(capfd: pytest.CaptureFixture[str], job: str, workdir: Workdir, *arguments: str) -> dict[str, Any]:
    """Run a job's main in this process and return its JSON line, whose exit code is that of the job."""
    code = importlib.import_module(f"jobs.{job}").main(["--workdir", workdir.uri, *arguments])
    line = json.loads(capfd.readouterr().out)
    assert line["exit_code"] == code
    return dict(line)


def verdict(workdir: Workdir, run_id: str) -> tuple[str, int, str]:
    record = json.loads(workdir.read_text("runs", f"{run_id}.json"))
    return record["status"], record["exit_code"], record["message"]


def test_a_rollback_that_is_run_again_goes_back_once(
    three: Workdir, spark: SparkSession, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert call(capfd, "releases", three, "rollback", "--run-id", "back")["release_id"] == "b-1"
    live = live_release(three)
    assert live is not None
    assert live.release_id == "b-1"
    assert verdict(three, "back") == ("done", 0, "")
    assert call(capfd, "releases", three, "promote", "--release", "c-1")["release_id"] == "c-1"


def test_a_release_that_is_not_there_leaves_its_verdict(three: Workdir, capfd: pytest.CaptureFixture[str]) -> None:
    line = call(capfd, "releases", three, "promote", "--release", "z", "--run-id", "r")
    assert line["exit_code"] == 2
    status, code, message = verdict(three, "r")
    assert (status, code) == ("failed", 2)
    assert "release z is not here" in message
    assert call(capfd, "releases", three, "promote")["exit_code"] == 2


def test_maintenance_keeps_the_live_release_its_parent_and_as_many_as_configured(
    three: Workdir, spark: SparkSession, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    publish(spark, three, replace(FIRST, release_id="d-1", parent_release="c-1", created_at=datetime(2024, 1, 5)))
    config = tmp_path / "world.yaml"
    config.write_text("name: w\ndataset: {format: synthetic}\nrefresh: {keep_releases: 1}\n")
    arguments = ["--config", str(config), "--vacuum-hours", "0", "--run-id", "m"]
    line = call(capfd, "maintenance", three, *arguments)
    assert (line["kept"], line["deleted"], line["models_removed"]) == (["b-1", "c-1", "d-1"], ["a-1"], ["a-1"])
    assert verdict(three, "m") == ("done", 0, "")


def test_deleting_a_user_says_how_many_rows_went(
    three: Workdir, spark: SparkSession, capfd: pytest.CaptureFixture[str]
) -> None:
    three.append(spark.createDataFrame([("u", "test"), ("v", "test")], "user string, role string"), "evaluation_users")
    three.write_text("rows of a killed ingest", *SETTLED, "part-0.parquet")
    line = call(capfd, "delete_user", three, "--user", "u", "--run-id", "d")
    assert not three.exists(*SETTLED)
    assert line["removed"]["evaluation_users"] == 1
    assert [row.user for row in three.read(spark, "evaluation_users").collect()] == ["v"]
    assert verdict(three, "d") == ("done", 0, "")
