"""What the DAGs are, what they call, and what they do when a job fails: in a real Airflow, with a stand-in for spark-submit."""

import ast
import importlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.flows import plan
from pipelines.flows.stage_job import job_key
from pipelines.stages.ingest.interval import Interval
from tests.airflow_dags.conftest import put_program

HERE = Path(__file__).parent
DAGS = HERE.parents[1] / "airflow_dags"
REFUSED = {"status": "refused", "exit_code": 3, "message": "recall fell by 0.2"}
RUNNING = {"status": "running", "exit_code": None, "message": ""}
STAGES = [stage.name for stage in plan.refresh()]
WRONG = {"status": "failed", "exit_code": 2, "message": "paths.layers: unknown key"}
InAirflow = Callable[..., Any]


@dataclass
class Ran:
    """What a run of a DAG did, and the calls of spark-submit that it made."""

    state: str
    tasks: dict[str, list[Any]]
    marked: list[dict[str, Any]]
    failures: list[list[str]]
    calls: list[dict[str, Any]]

    def parsed(self) -> list[tuple[str, SimpleNamespace]]:
        """Return job and arguments of every call, as the job's own command reads them."""
        return [parse(Path(call["script"]).stem, call["arguments"]) for call in self.calls]


def parse(job: str, arguments: list[str]) -> tuple[str, SimpleNamespace]:
    return job, SimpleNamespace(**importlib.import_module(f"jobs.{job}").main.parse(arguments, {}).params)


@pytest.fixture(scope="module")
def described(in_airflow: InAirflow) -> dict[str, Any]:
    found = in_airflow("describe_dags.py", options={"rounds": "3", "pool": "one_at_a_time"})
    print(f"all DAGs parsed in {found['seconds']:.2f} s")
    return dict(found)


@pytest.fixture(scope="module")
def runs(in_airflow: InAirflow, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """One run of each kind, by what is special about it."""
    folder = tmp_path_factory.mktemp("stand_in")
    bin_folder = put_program("spark_submit.py", folder / "environment").parent
    day = "daily-202401{0}T0000-202401{1}T0000".format
    plan = {
        f"{day(11, 12)} publish": [[3, REFUSED]],
        f"{day(12, 13)} samples": [[75, None], [75, None]],
        f"{day(13, 14)} gates": [[1, REFUSED]],
        f"{day(14, 15)} scores": [[137, RUNNING], [1, WRONG]],
        f"{day(15, 16)} assign": [[1, {"status": "failed", "exit_code": 1, "message": "a bug"}]] * 2,
        f"{day(16, 17)} ingest": [[2, None]],
    }
    (bin_folder / "plan.json").write_text(json.dumps(plan))
    refresh, end = "deep_retrieval_daily_refresh", "T00:00:00+00:00"
    wanted: dict[str, tuple[str, str, dict[str, Any]]] = {
        "bootstrap": ("deep_retrieval_bootstrap", f"2024-01-10{end}", {"start": "2024-01-01", "end": "2024-01-10"}),
        "good": (refresh, f"2024-01-11{end}", {}),
        "refused": (refresh, f"2024-01-12{end}", {}),
        "in use": (refresh, f"2024-01-13{end}", {}),
        "refused in cluster mode": (refresh, f"2024-01-14{end}", {}),
        "killed, then wrong": (refresh, f"2024-01-15{end}", {}),
        "a bug": (refresh, f"2024-01-16{end}", {}),
        "wrong before it began": (refresh, f"2024-01-17{end}", {}),
        "maintenance": ("deep_retrieval_maintenance", f"2024-01-14{end}", {"vacuum_hours": 24}),
        "delete": ("deep_retrieval_delete_user", f"2024-01-15{end}", {"user": "-a b=", "vacuum_now": True}),
        "rollback": ("deep_retrieval_rollback", f"2024-01-15{end}", {}),
        "promote": ("deep_retrieval_rollback", f"2024-01-16{end}", {"release": "r-1"}),
    }
    settings = {
        "config": "/etc/dr/world.yaml",
        "workdir": str(folder / "W"),
        "logs": "/logs/%Y/%m-%d.parquet",
        "first_logs": "/logs/first",
        "environment": str(folder / "environment"),
    }
    shutil.rmtree(folder / "W", ignore_errors=True)
    found = in_airflow(
        "run_dags.py",
        json.dumps(list(wanted.values())),
        settings=settings,
        connection={"host": "local[1]"},
        options={"on_failure": "run_dags:note_failure", "retries": "1", "rounds": "3"},
    )
    calls = [json.loads(line) for line in (bin_folder / "calls.jsonl").read_text().splitlines()]
    parts = [list(part) for _, part in groupby(calls, key=lambda call: call["arguments"][1])]  # --run-id
    return {
        name: Ran(run["state"], run["tasks"], run["marked"], run["failures"], part)
        for name, run, part in zip(wanted, found, parts, strict=True)
    }


def test_all_dags_import_without_error(described: dict[str, Any]) -> None:
    assert described["import_errors"] == {}
    kinds = ("bootstrap", "daily_refresh", "delete_user", "maintenance", "rollback")
    assert sorted(described["dags"]) == [f"deep_retrieval_{kind}" for kind in kinds]


def test_the_dags_import_airflow_and_the_standard_library_only() -> None:
    allowed = {"airflow", "deep_retrieval", *sys.stdlib_module_names}
    for file in DAGS.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names} <= allowed, file


def test_the_daily_refresh_is_one_chain_of_the_jobs_stages(described: dict[str, Any]) -> None:
    tasks = described["dags"]["deep_retrieval_daily_refresh"]["tasks"]
    assert {name: task["after"] for name, task in tasks.items()} == {
        STAGES[0]: [],
        **{later: [earlier] for earlier, later in zip(STAGES, STAGES[1:], strict=False)},
        "mark_live": ["publish"],
    }
    assert {name for name, task in tasks.items() if task["outlets"]} == {"mark_live"}


def test_the_bootstrap_is_one_chain_of_the_jobs_of_day_one(described: dict[str, Any]) -> None:
    tasks = described["dags"]["deep_retrieval_bootstrap"]["tasks"]
    jobs = dict.fromkeys(job_key(stage.job, stage.round) for stage in plan.day_one(3))
    assert [name for name in tasks if name != "mark_live"] == list(jobs)
    assert [task["after"] for name, task in tasks.items() if name != "mark_live"] == [[], *([job] for job in jobs)][:-1]


def test_every_day_is_scheduled_once_and_one_after_the_other(described: dict[str, Any]) -> None:
    dag = described["dags"]["deep_retrieval_daily_refresh"]
    assert (dag["schedule"], dag["catchup"], dag["max_active_runs"]) == ("CronDataIntervalTimetable", True, 1)
    days = [f"2024-01-{day}T00:00:00+00:00" for day in (10, 11, 12, 13)]
    assert dag["intervals"] == [list(pair) for pair in zip(days, days[1:], strict=False)]


def test_without_a_start_date_nothing_is_scheduled(in_airflow: InAirflow) -> None:
    dags = in_airflow("describe_dags.py", options={"start_date": ""})["dags"]
    assert dags["deep_retrieval_daily_refresh"]["intervals"] == []


def test_every_task_has_retries_a_timeout_a_callback_and_the_pool(described: dict[str, Any]) -> None:
    for dag in described["dags"].values():
        for task in dag["tasks"].values():
            assert task["retries"] >= 1
            assert task["timeout"] > 0
            assert task["callbacks"] == 1
            assert task["pool"] == "one_at_a_time"
        assert dag["max_active_runs"] == 1


def test_the_arguments_of_a_day_are_what_the_job_reads(runs: dict[str, Ran]) -> None:
    ran = runs["good"]
    assert ran.state == "success"
    parsed = ran.parsed()
    assert [(job, given.stage) for job, given in parsed] == [("refresh", stage) for stage in STAGES]
    for _, given in parsed:
        assert Interval.parse(given.start, given.end).label == "2024-01-10T00:00:00Z/2024-01-11T00:00:00Z"
        assert (given.config, given.logs) == ("/etc/dr/world.yaml", "/logs/2024/01-10.parquet")
        assert (given.run_id, given.catalogue) == ("daily-20240110T0000-20240111T0000", None)
    for call in ran.calls:
        assert Path(call["script"]).exists()
        options = dict(zip(call["spark"], call["spark"][1:], strict=False))
        assert options["--master"] == "local[1]"
        assert Path(options["--properties-file"]).name == "local.conf"


def test_the_arguments_of_day_one_are_what_the_jobs_read(runs: dict[str, Ran]) -> None:
    parsed = runs["bootstrap"].parsed()
    called = [f"{job} --round {given.number}" if hasattr(given, "number") else job for job, given in parsed]
    assert called == list(dict.fromkeys(plan.command(stage) for stage in plan.day_one(3)))
    assert {(given.start, given.end, given.logs) for _, given in parsed} == {
        ("2024-01-01", "2024-01-10", "/logs/first")
    }
    assert {(given.rounds, given.overrides) for _, given in parsed} == {(3, ())}
    assert len({given.run_id for _, given in parsed}) == 1


def test_the_arguments_of_the_other_jobs_are_what_they_read(runs: dict[str, Ran]) -> None:
    ((job, given),) = runs["maintenance"].parsed()
    assert (job, given.vacuum_hours) == ("maintenance", 24.0)
    ((job, given),) = runs["delete"].parsed()
    assert (job, given.user, given.vacuum_now) == ("delete_user", "-a b=", True)
    ((job, given),) = runs["rollback"].parsed()
    assert (job, given.action, given.release) == ("releases", "rollback", None)
    ((job, given),) = runs["promote"].parsed()
    assert (job, given.action, given.release) == ("releases", "promote", "r-1")


@pytest.mark.parametrize("name", ["bootstrap", "good", "rollback", "promote"])
def test_a_release_that_goes_live_marks_the_asset(runs: dict[str, Ran], name: str) -> None:
    assert runs[name].state == "success"
    assert len(runs[name].marked) == 1
    assert runs[name].failures == []


@pytest.mark.parametrize(("name", "task"), [("refused", "publish"), ("refused in cluster mode", "gates")])
def test_a_refusal_is_never_retried_and_marks_nothing(runs: dict[str, Ran], name: str, task: str) -> None:
    ran = runs[name]
    assert (ran.state, ran.marked) == ("failed", [])
    assert ran.tasks[task] == ["failed", 1]
    assert ran.tasks["retrieve"][0] == "upstream_failed"
    ((dag, failed, text),) = ran.failures
    assert (dag, failed) == ("deep_retrieval_daily_refresh", task)
    assert text == "exit code 3, refused by a gate: recall fell by 0.2"


def test_a_folder_in_use_is_tried_again_until_the_retries_are_spent(runs: dict[str, Ran]) -> None:
    ran = runs["in use"]
    assert ran.tasks["samples"] == ["failed", 2]
    ((_, _, text),) = ran.failures
    assert text.startswith("exit code 75, the folder is in use")


def test_a_killed_job_is_tried_again_and_a_wrong_configuration_is_not(runs: dict[str, Ran]) -> None:
    ran = runs["killed, then wrong"]
    assert ran.tasks["scores"] == ["failed", 2]
    assert ran.failures[0][2] == "exit code 2, bad configuration or arguments: paths.layers: unknown key"
    ran = runs["wrong before it began"]
    assert ran.tasks["ingest"] == ["failed", 1]


def test_a_bug_is_tried_again(runs: dict[str, Ran]) -> None:
    ran = runs["a bug"]
    assert ran.tasks["assign"] == ["failed", 2]
    assert ran.failures[0][2] == "exit code 1, a bug: a bug"


def test_a_day_after_a_failed_one_runs(runs: dict[str, Ran]) -> None:
    assert runs["in use"].tasks["ingest"] == ["success", 1]
