"""The record of a run."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from dr_core.errors import GateRefused, InputError, TryAgain
from pipelines.storage.faults import VARIABLE
from pipelines.storage.run_record import RECORD_VERSION, Run, run_records
from pipelines.storage.workdir import Workdir

ROOT = Path(__file__).parents[3]


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    return Workdir(str(tmp_path))


class Counting:
    """A stage that says how often it ran."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> dict[str, Any]:
        self.times += 1
        return {"rows_in": 7, "rows_out": 5, "times": self.times, "pair": (1, 2)}


def test_a_finished_stage_is_not_repeated(workdir: Workdir) -> None:
    work = Counting()
    first = Run(workdir, "r", "hash").stage("learn", work)
    again = Run(workdir, "r", "hash").stage("learn", work)
    assert work.times == 1
    assert first == again == {"rows_in": 7, "rows_out": 5, "times": 1, "pair": [1, 2]}
    assert Run(workdir, "other", "hash").stage("learn", work)["times"] == 2


def test_stages_are_recorded_in_order_with_their_rows(workdir: Workdir) -> None:
    run = Run(workdir, "r", "hash")
    for name in ("b", "a", "c"):
        run.stage(name, Counting())
    stages = Run(workdir, "r", "hash").stages()
    assert [stage["name"] for stage in stages] == ["b", "a", "c"]
    assert all((stage["rows_in"], stage["rows_out"]) == (7, 5) and stage["seconds"] >= 0 for stage in stages)


def test_a_stage_that_fails_is_not_recorded(workdir: Workdir) -> None:
    run, work = Run(workdir, "r", "hash"), Counting()
    run.stage("first", work)
    with pytest.raises(ZeroDivisionError):
        run.stage("second", lambda: {"rows_in": 1 // 0})
    again = Run(workdir, "r", "hash")
    assert [stage["name"] for stage in again.stages()] == ["first"]
    assert not again.finished
    assert again.stage("second", work)["times"] == 2


def test_a_stage_has_one_thread_whatever_came_before(workdir: Workdir) -> None:
    run, threads = Run(workdir, "r", "hash"), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert run.stage("learn", lambda: {"threads": torch.get_num_threads()}) == {"threads": 1}
        with pytest.raises(ZeroDivisionError):
            run.stage("fail", lambda: {"x": 1 // 0})
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_a_stage_done_again_keeps_its_place(workdir: Workdir) -> None:
    run, work = Run(workdir, "r", "hash"), Counting()
    for name in ("a", "b", "c"):
        run.stage(name, work)
    with pytest.raises(ZeroDivisionError):
        run.stage("b", lambda: {"x": 1 // 0}, redo=True)
    assert [stage["name"] for stage in Run(workdir, "r", "hash").stages()] == ["a", "c"]
    run = Run(workdir, "s", "hash")
    for name in ("a", "b", "c"):
        run.stage(name, work)
    assert run.stage("b", work, redo=True)["times"] == 7
    assert [stage["name"] for stage in Run(workdir, "s", "hash").stages()] == ["a", "b", "c"]


def test_the_verdict_is_written_for_machines(workdir: Workdir) -> None:
    run = Run(workdir, "r", "hash")
    run.finish("refused", 3, "too many bad rows")
    record = json.loads(workdir.read_text("runs", "r.json"))
    assert (record["status"], record["exit_code"], record["message"]) == ("refused", 3, "too many bad rows")
    assert not Run(workdir, "r", "hash").finished
    run.finish("done", 0)
    assert Run(workdir, "r", "hash").finished


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (GateRefused("no"), "refused", 3),
        (TryAgain("later"), "failed", 75),
        (ValueError("bug"), "failed", 1),
        (KeyboardInterrupt(), "failed", 75),
    ],
)
def test_a_jobs_error_is_its_verdict(workdir: Workdir, error: BaseException, status: str, code: int) -> None:
    with pytest.raises(type(error)), Run(workdir, "r", "hash").job("learn"):
        assert json.loads(workdir.read_text("runs", "r.json"))["exit_code"] is None
        raise error
    record = json.loads(workdir.read_text("runs", "r.json"))
    for verdict in (record, record["jobs"]["learn"]):
        assert (verdict["status"], verdict["exit_code"]) == (status, code)


@pytest.mark.parametrize(("point", "times"), [("learn:before", 1), ("learn:after", 2)])
def test_a_killed_stage_counts_as_not_done(tmp_path: Path, point: str, times: int) -> None:
    """Killed after the work but before the record: it runs again, which every stage must bear."""
    script = f"""
from pipelines.storage.faults import VARIABLE
from pipelines.storage.run_record import RECORD_VERSION, Run, run_records
from pipelines.storage.workdir import Workdir
def work():
    with open({str(tmp_path / "log")!r}, "a") as file:
        file.write("x")
    return {{}}
run = Run(Workdir({str(tmp_path)!r}), "r", "hash")
run.stage("prepare", lambda: {{}})
run.stage("learn", work)
"""
    codes = [
        subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, env=os.environ | {VARIABLE: crash}, check=False
        ).returncode
        for crash in (point, "")
    ]
    assert codes == [-signal.SIGKILL, 0]
    assert (tmp_path / "log").read_text() == "x" * times
    assert [stage["name"] for stage in Run(Workdir(str(tmp_path)), "r", "hash").stages()] == ["prepare", "learn"]


def test_a_record_without_a_version_is_read_and_written_as_one_of_this_release(workdir: Workdir) -> None:
    old = {"run_id": "r", "config_hash": "h", "status": "done", "exit_code": 0, "message": "", "stages": []}
    workdir.write_text(json.dumps(old), "runs", "r.json")
    run = Run.load(workdir, "r")
    assert (run.record["version"], run.finished) == (1, True)
    run.save()
    written = json.loads(workdir.read_text("runs", "r.json"))
    assert datetime.now(UTC) - datetime.fromisoformat(written.pop("saved_at")) < timedelta(minutes=1)
    assert written == old | {"version": RECORD_VERSION}
    assert [record["run_id"] for record in run_records(workdir)] == ["r"]


@pytest.mark.parametrize(
    "read", [lambda workdir: Run(workdir, "r", "h"), lambda workdir: Run.load(workdir, "r"), run_records]
)
def test_a_record_of_a_newer_release_is_refused_in_one_line(
    workdir: Workdir, read: Callable[[Workdir], object]
) -> None:
    """Whatever else it holds: its layout is not known here."""
    workdir.write_text(json.dumps({"version": RECORD_VERSION + 1, "what": "ever"}), "runs", "r.json")
    with pytest.raises(InputError, match=r"r\.json was written by a newer release of this project") as caught:
        read(workdir)
    assert "\n" not in str(caught.value)


def test_only_a_run_with_a_record_is_loaded(workdir: Workdir) -> None:
    with pytest.raises(InputError, match=r"r\.json is missing"):
        Run.load(workdir, "r")
    Run(workdir, "r", "hash").save()
    assert Run.load(workdir, "r").record["config_hash"] == "hash"
    assert Run.load(workdir, "r").record["version"] == RECORD_VERSION
