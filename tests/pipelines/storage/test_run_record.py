"""The record of a run, and who may hold a work folder."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dr_core.errors import DeepRetrievalError, GateRefused, TryAgain
from pipelines.storage import run_record as runs
from pipelines.storage.faults import VARIABLE
from pipelines.storage.lease import lease
from pipelines.storage.run_record import Run
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
from pipelines.storage.run_record import Run
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


@pytest.fixture
def other_process() -> Iterator[int]:
    """The pid of a live process that is not this one."""
    process = subprocess.Popen(["sleep", "60"])
    yield process.pid
    process.kill()
    process.wait()


def hold(workdir: Workdir, pid: int, *, host: str | None = None, seconds: float = 100.0) -> None:
    held = {"host": host or socket.gethostname(), "pid": pid, "token": "theirs", "until": time.time() + seconds}
    workdir.write_text(json.dumps(held), "runs", "run.lease")


def holder(workdir: Workdir) -> dict[str, Any]:
    return dict(json.loads(workdir.read_text("runs", "run.lease")))


def test_a_folder_held_by_a_live_process_is_refused_with_try_again(workdir: Workdir, other_process: int) -> None:
    hold(workdir, other_process)
    with pytest.raises(TryAgain, match=str(other_process)) as caught, lease(workdir, "run"):
        pytest.fail("two runs hold the folder")
    assert caught.value.exit_code == 75
    assert holder(workdir)["token"] == "theirs", "the refused run touched the other one's lease"


def test_a_lease_of_another_kind_of_run_is_no_obstacle(workdir: Workdir, other_process: int) -> None:
    hold(workdir, other_process)
    with lease(workdir, "report"):
        assert workdir.exists("runs", "report.lease")


def test_a_lease_whose_process_is_gone_is_taken_over(workdir: Workdir) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    hold(workdir, process.pid)
    with lease(workdir, "run"):
        assert holder(workdir)["pid"] == os.getpid()
    assert not workdir.exists("runs", "run.lease")


def test_another_hosts_lease_counts_until_it_expires(workdir: Workdir) -> None:
    hold(workdir, os.getpid(), host="elsewhere", seconds=100)
    with pytest.raises(TryAgain), lease(workdir, "run"):
        pytest.fail("two hosts hold the folder")
    hold(workdir, os.getpid(), host="elsewhere", seconds=-1)
    with lease(workdir, "run"):
        assert holder(workdir)["host"] == socket.gethostname()


def test_a_lease_is_renewed_while_it_is_held(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run longer than the lease is not robbed of its folder."""
    monkeypatch.setattr(runs, "LEASE_SECONDS", 0.4)
    with lease(workdir, "run"):
        first = holder(workdir)["until"]
        time.sleep(0.9)
        assert holder(workdir)["until"] > max(first, time.time())


def test_a_lease_is_given_back_after_an_error(workdir: Workdir) -> None:
    with pytest.raises(ZeroDivisionError), lease(workdir, "run"):
        raise ZeroDivisionError
    assert not workdir.exists("runs", "run.lease")


def test_a_lease_that_was_taken_over_is_left_to_its_new_holder(workdir: Workdir, other_process: int) -> None:
    with lease(workdir, "run"):
        hold(workdir, other_process)
    assert holder(workdir)["token"] == "theirs"


def test_an_unreadable_lease_says_what_to_do(workdir: Workdir) -> None:
    workdir.write_text("{", "runs", "run.lease")
    with pytest.raises(DeepRetrievalError, match=r"run\.lease is not readable; remove it"), lease(workdir, "run"):
        pytest.fail("the folder was held")
