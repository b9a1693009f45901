"""Every job in order under the real spark-submit, and what a job does when something is wrong."""

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from pipelines.cli.main import main as dr
from pipelines.flows import plan
from pipelines.flows.stage_job import JOBS
from pipelines.storage.workdir import Workdir

Submit = Callable[..., tuple[int, str]]
JOBS_FOLDER = Path(importlib.import_module("jobs").__file__ or "").parent
COMMON_OPTIONS = {
    "-h", "--help", "--config", "--workdir", "--logs", "--catalogue", "--set", "--seed", "--start", "--end", "--run-id", "--rounds",
}  # fmt: skip

ONE_AFTER_THE_OTHER = """\
import json, runpy, sys

for command in json.loads(sys.argv[1]):
    sys.argv = command
    try:
        runpy.run_path(command[0], run_name="__main__")
    except SystemExit as ended:
        if ended.code:
            raise
"""


def call(job: str, *arguments: str) -> int:
    """Run a job's main in this process."""
    return int(importlib.import_module(f"jobs.{job}").main([*arguments]))


def record_of(workdir: str | Path) -> dict[str, Any]:
    """Return the only run record of a work folder."""
    (file,) = Path(workdir, "runs").glob("*.json")
    return dict(json.loads(file.read_text()))


def complaint(error_output: str, job: str) -> str:
    """Return the one line in which a job says what is wrong; no traceback is beside it."""
    assert "Traceback" not in error_output
    (line,) = [line for line in error_output.splitlines() if line.startswith(f"{job}: ")]
    return line


@pytest.fixture(scope="module")
def submitted(
    submit: Submit, config: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, Any]]]:
    """A folder, and the JSON lines of all jobs of a run in ``w``, then of the first ones of a run of two ranks in ``two``.

    They are run as programs, one after the other, each with its own Spark session, by one spark-submit: a JVM takes longer
    to warm up than these jobs take.
    """
    folder = tmp_path_factory.mktemp("submitted")
    commands = list(dict.fromkeys(plan.command(stage) for stage in plan.day_one(1)))
    places = [["--workdir", str(folder / "w"), "--rounds", "1"]] * len(commands)
    commands += commands[: commands.index("train_model --round warm_up") + 1]
    places += [["--workdir", str(folder / "two"), "--set", "training.num_processes=2"]] * 3
    calls = [
        [str(JOBS_FOLDER / f"{job}.py"), "--config", config, *place, *more]
        for (job, *more), place in zip((command.split(" ") for command in commands), places, strict=True)
    ]
    program = folder / "one_after_the_other.py"
    program.write_text(ONE_AFTER_THE_OTHER)
    code, output = submit(str(program), json.dumps(calls))
    assert code == 0
    return folder, [json.loads(line) for line in output.splitlines() if line.startswith('{"job"')]


@pytest.fixture(scope="module")
def chain(submitted: tuple[Path, list[dict[str, Any]]]) -> tuple[str, list[dict[str, Any]]]:
    """The work folder after all jobs of a run, and the JSON line of each."""
    folder, lines = submitted
    return str(folder / "w"), lines[:-3]


def test_two_ranks_train_under_spark_submit_as_well(submitted: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, lines = submitted
    assert [(line["stage"], line["exit_code"]) for line in lines[-3:]] == [
        ("preprocess", 0),
        ("samples", 0),
        ("warm_up", 0),
    ]
    record = record_of(folder / "two")
    assert record["config"]["training"]["num_processes"] == 2
    assert (folder / "two" / "models" / f"{record['run_id']}-warm" / "model.safetensors").exists()


def test_the_jobs_in_order_lead_from_logs_to_a_live_release_and_a_report(
    chain: tuple[str, list[dict[str, Any]]], spark: SparkSession
) -> None:
    workdir, lines = chain
    order = [stage.name for stage in plan.day_one(1)]
    firsts = {plan.command(stage): stage.name for stage in reversed(plan.day_one(1))}
    assert [line["stage"] for line in lines] == [name for name in order if name in firsts.values()]
    assert {line["job"] for line in lines} == set(JOBS)
    assert len({line["run_id"] for line in lines}) == 1
    assert all(line["exit_code"] == 0 and line["seconds"] > 0 for line in lines)
    assert all(line["rows_in"] > 0 and line["rows_out"] > 0 for line in lines)
    assert lines[0]["rows_in"] == lines[0]["kept"] + lines[0]["quarantined"] + lines[0]["filtered"]
    record = record_of(workdir)
    assert (record["status"], record["exit_code"], record["message"]) == ("done", 0, "")
    assert [stage["name"] for stage in record["stages"]] == [name for name in order if name != "report"]
    assert {verdict["exit_code"] for verdict in record["jobs"].values()} == {0}
    assert {"train_model_warm_up", "train_model_1", "train_model_final", "report"} <= set(record["jobs"])
    published = next(line for line in lines if line["job"] == "publish")
    (release,) = Workdir(workdir).read(spark, "releases").collect()
    assert (release.status, release.release_id) == ("live", published["release_id"])
    summary = json.loads(Path(workdir, "report", "summary.json").read_text())
    assert summary["run_id"] == record["run_id"]
    assert Path(lines[-1]["report"]).exists()


def test_a_job_run_again_changes_no_table_and_replaces_its_record(
    chain: tuple[str, list[dict[str, Any]]], config: str, spark: SparkSession
) -> None:
    workdir, _ = chain

    def tables() -> list[list[Any]]:
        names = ("path_scores", "item_stats")
        return [sorted(Workdir(workdir).read(spark, name).collect()) for name in names]

    before, record = tables(), record_of(workdir)
    assert call("accumulate_scores", "--config", config, "--workdir", workdir, "--round", "1") == 0
    again = record_of(workdir)
    assert tables() == before
    assert [stage["name"] for stage in again["stages"]] == [stage["name"] for stage in record["stages"]]
    assert again["status"] == "done"
    number = next(number for number, stage in enumerate(again["stages"]) if stage["name"] == "scores_1")
    assert again["stages"][number]["seconds"] != record["stages"][number]["seconds"]
    assert again["stages"][number]["result"] == record["stages"][number]["result"]


def test_dr_run_takes_a_run_of_jobs_for_its_own(
    chain: tuple[str, list[dict[str, Any]]], config: str, spark: SparkSession, capfd: pytest.CaptureFixture[str]
) -> None:
    workdir, lines = chain
    assert dr(["run", "--config", config, "--workdir", workdir, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["run_id"] == lines[0]["run_id"]


@pytest.mark.parametrize("job", JOBS)
def test_every_job_explains_its_options(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(job, "--help") == 0
    text = capsys.readouterr().out
    has_rounds = job in ("train_model", "accumulate_scores", "assign_paths")
    shown = set(re.findall(r"(?:│ [* ]  | )(--?[a-z-]+) ", text.split("Options", 2)[-1]))
    assert shown == COMMON_OPTIONS | ({"--round"} if has_rounds else set())
    assert "Exit codes: 0 done" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "paths.layers=3"], ["paths.layers", "unknown key", "num_layers"]),
        (["--set", "paths.num_layers=1"], ["paths.num_layers=1", "greater than or equal to 2"]),
        (["--config", "missing.yaml"], ["missing.yaml does not exist"]),
        (["--run-id", "a/b"], ["'--run-id': a/b"]),
        (["--no-such-option"], ["--no-such-option", "see preprocess --help"]),
        (["--start", "2024-01-01"], ["--start and --end belong together"]),
    ],
)
def test_wrong_arguments_end_with_2_and_one_line(
    arguments: list[str], words: list[str], config: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("preprocess", "--config", config, "--workdir", str(tmp_path), *arguments) == 2
    said = capfd.readouterr()
    line = json.loads(said.out)
    assert (line["job"], line["exit_code"], line["run_id"]) == ("preprocess", 2, None)
    assert line["seconds"] >= 0
    for word in words:
        assert word in complaint(said.err, "preprocess")
    assert not Path(tmp_path, "runs").exists()


def test_a_round_beyond_the_last_and_a_stage_out_of_turn_are_refused(
    config: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--config", config, "--workdir", str(tmp_path), "--run-id", "r", "--round"]
    assert call("assign_paths", *arguments, "2") == 2
    assert complaint(capfd.readouterr().err, "assign_paths") == "assign_paths: --round 2: allowed are 1"
    assert record_of(tmp_path)["jobs"]["assign_paths_2"]["exit_code"] == 2
    assert call("train_model", *arguments, "final") == 2
    assert "run the job preprocess first" in complaint(capfd.readouterr().err, "train_model")
    record = record_of(tmp_path)
    assert (record["status"], record["exit_code"]) == ("failed", 2)
    assert call("train_model", *arguments, "final", "--seed", "5") == 2


def test_a_caller_who_planned_other_rounds_is_refused_by_the_first_job(
    config: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--config", config, "--workdir", str(tmp_path), "--run-id", "r", "--rounds", "2"]
    assert call("preprocess", *arguments) == 2
    said = capfd.readouterr()
    line = complaint(said.err, "preprocess")
    assert "--rounds 2: the caller has planned 2 EM rounds, the configuration has em.rounds=1" in line
    assert (json.loads(said.out)["stage"], json.loads(said.out)["exit_code"]) == ("preprocess", 2)
    assert record_of(tmp_path)["jobs"]["preprocess"]["exit_code"] == 2
    assert not Path(tmp_path, "tables").exists()


@pytest.mark.parametrize(
    ("job", "key", "arguments"),
    [
        ("preprocess", "preprocess", []),
        ("preprocess", "preprocess", ["--start", "yesterday", "--end", "2024-01-02"]),
        ("train_model", "train_model_final", ["--round", "final"]),
        ("refresh", "refresh", ["--start", "2024-01-02", "--end", "2024-01-03"]),
    ],
)
def test_a_wrong_configuration_of_a_named_run_stands_in_its_record(
    job: str, key: str, arguments: list[str], config: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = [] if "yesterday" in arguments else ["--set", "paths.layers=3"]
    assert call(job, "--config", config, "--workdir", str(tmp_path), "--run-id", "r", *wrong, *arguments) == 2
    record = record_of(tmp_path)
    assert (record["status"], record["exit_code"], record["jobs"][key]["exit_code"]) == ("failed", 2, 2)
    assert ("paths.layers" if wrong else "yesterday") in record["message"]
    assert json.loads(capfd.readouterr().out)["run_id"] == "r"


def test_a_log_that_is_not_there_is_named(
    config: str, tmp_path: Path, spark: SparkSession, capfd: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "nowhere.parquet")
    assert call("preprocess", "--config", config, "--workdir", str(tmp_path / "w"), "--logs", missing) == 2
    assert missing in complaint(capfd.readouterr().err, "preprocess")
    record = record_of(tmp_path / "w")
    assert record["exit_code"] == record["jobs"]["preprocess"]["exit_code"] == 2
    assert missing in record["message"]


def test_a_column_that_is_not_there_is_named_with_those_that_are(
    config: str, tmp_path: Path, spark: SparkSession, capfd: pytest.CaptureFixture[str]
) -> None:
    logs = str(tmp_path / "logs.parquet")
    pq.write_table(pa.table({"who": ["a"], "what": ["b"], "when": [1]}), logs)
    arguments = [
        "--config",
        config,
        "--workdir",
        str(tmp_path / "w"),
        "--logs",
        logs,
        "--set",
        "dataset.format=parquet",
    ]
    assert call("preprocess", *arguments, "--set", "dataset.columns={user: who, item: item, time: when}") == 2
    line = complaint(capfd.readouterr().err, "preprocess")
    assert "no column 'item' (dataset.columns.item)" in line
    assert all(column in line for column in ("who", "what", "when"))


def test_a_gate_that_refuses_ends_with_3_and_stands_in_the_record(
    config: str, tmp_path: Path, spark: SparkSession, capfd: pytest.CaptureFixture[str]
) -> None:
    logs = str(tmp_path / "logs.parquet")
    pq.write_table(pa.table({"user": ["a", None, None], "item": ["b", "c", "d"], "time": [1, 2, 3]}), logs)
    arguments = [
        "--config",
        config,
        "--workdir",
        str(tmp_path / "w"),
        "--logs",
        logs,
        "--set",
        "dataset.format=parquet",
    ]
    assert call("preprocess", *arguments, "--set", "dataset.columns={time: time}") == 3
    assert json.loads(capfd.readouterr().out)["exit_code"] == 3
    record = record_of(tmp_path / "w")
    assert (record["status"], record["exit_code"]) == ("refused", 3)
    assert record["stages"] == []


def test_a_folder_in_use_asks_to_try_again_and_keeps_its_users_record(
    config: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lease = {"host": os.uname().nodename, "pid": os.getppid(), "token": "other", "until": 4e9}
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "run.lease").write_text(json.dumps(lease))
    assert call("preprocess", "--config", config, "--workdir", str(tmp_path)) == 75
    assert "in use by process" in complaint(capfd.readouterr().err, "preprocess")
    assert [file.name for file in (tmp_path / "runs").iterdir()] == ["run.lease"]


def test_without_java_a_job_says_so(config: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("JAVA_HOME", "PATH")}
    ended = subprocess.run(
        [sys.executable, "-m", "jobs.preprocess", "--config", config, "--workdir", str(tmp_path)],
        capture_output=True, text=True, env=environment | {"PATH": ""}, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert complaint(ended.stderr, "preprocess").startswith("preprocess: Java was not found: install")
    assert json.loads(ended.stdout)["exit_code"] == 2


def test_an_interval_keeps_its_own_events(
    config: str, tmp_path: Path, spark: SparkSession, capfd: pytest.CaptureFixture[str]
) -> None:
    interval = ["--start", "2024-01-02", "--end", "2024-01-03T12:00:00"]
    assert call("preprocess", "--config", config, "--workdir", str(tmp_path), *interval) == 0
    line = json.loads(capfd.readouterr().out)
    assert 0 < line["kept"] < line["rows_in"]
    assert line["interval_start"].startswith("2024-01-02")
    days = Workdir(str(tmp_path)).read(spark, "interactions").select("event_date").distinct().collect()
    assert {row.event_date.day for row in days} == {2, 3}
