"""Who may hold a work folder: one run, whoever starts with it at the same moment."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from dr_core.errors import DeepRetrievalError, TryAgain
from pipelines.storage import lease as leases
from pipelines.storage.lease import lease
from pipelines.storage.run_record import Run
from pipelines.storage.workdir import Workdir

ROOT = Path(__file__).parents[3]


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    return Workdir(str(tmp_path))


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
    """The contents of the newest lease."""
    numbers = leases._numbers(workdir, "run")
    return dict(json.loads(workdir.read_text("runs", leases._name("run", numbers[-1]))))


def is_free(workdir: Workdir) -> bool:
    return holder(workdir)["until"] < time.time()


def take_over(workdir: Workdir, pid: int) -> None:
    """What another run does once it thinks the lease has expired."""
    held = {"host": socket.gethostname(), "pid": pid, "token": "theirs", "until": time.time() + 100}
    workdir.replace(json.dumps(held).encode(), "runs", leases._name("run", leases._numbers(workdir, "run")[-1] + 1))


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
    assert is_free(workdir)


def test_another_hosts_lease_counts_until_it_expires(workdir: Workdir) -> None:
    hold(workdir, os.getpid(), host="elsewhere", seconds=100)
    with pytest.raises(TryAgain), lease(workdir, "run"):
        pytest.fail("two hosts hold the folder")
    hold(workdir, os.getpid(), host="elsewhere", seconds=-1)
    with lease(workdir, "run"):
        assert holder(workdir)["host"] == socket.gethostname()


def test_a_lease_is_renewed_while_it_is_held(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run longer than the lease is not robbed of its folder."""
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.4)
    with lease(workdir, "run"):
        first = holder(workdir)["until"]
        time.sleep(0.9)
        assert holder(workdir)["until"] > max(first, time.time())


def test_a_lease_is_given_back_after_an_error(workdir: Workdir) -> None:
    with pytest.raises(ZeroDivisionError), lease(workdir, "run"):
        raise ZeroDivisionError
    assert is_free(workdir)
    with lease(workdir, "run"):
        assert not is_free(workdir)


def test_a_lease_that_was_taken_over_is_left_to_its_new_holder(workdir: Workdir, other_process: int) -> None:
    with lease(workdir, "run"):
        take_over(workdir, other_process)
    assert holder(workdir)["token"] == "theirs"


def test_an_unreadable_lease_says_what_to_do(workdir: Workdir) -> None:
    workdir.write_text("{", "runs", "run.lease")
    with pytest.raises(DeepRetrievalError, match=r"run\.lease is not readable; remove it"), lease(workdir, "run"):
        pytest.fail("the folder was held")


@pytest.mark.parametrize("start", ["empty", "expired", "dead"])
def test_of_two_processes_that_start_at_the_same_moment_one_holds_the_folder(workdir: Workdir, start: str) -> None:
    """Twenty rounds: the first lease of a folder, and one that both find expired or left by a process that is gone."""
    script = """
import sys, time
from pipelines.storage.lease import lease
from pipelines.storage.workdir import Workdir
from dr_core.errors import TryAgain
print("ready", flush=True)
for line in sys.stdin:
    folder, moment = line.split()
    while time.time() < float(moment): pass
    try:
        with lease(Workdir(folder), "run"):
            print("held", flush=True)
            sys.stdin.readline()
    except TryAgain:
        print("refused", flush=True)
        sys.stdin.readline()
    print("left", flush=True)
"""
    starters = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        for _ in range(2)
    ]
    try:
        assert [starter.stdout.readline() for starter in starters] == ["ready\n"] * 2
        for number in range(20):
            inner = workdir.below(str(number))
            if start != "empty":
                hold(
                    inner,
                    os.getpid() if start == "expired" else dead_process(),
                    seconds=-1 if start == "expired" else 9,
                )
            for starter in starters:
                starter.stdin.write(f"{inner.uri} {time.time() + 0.02}\n")
            assert sorted(starter.stdout.readline() for starter in starters) == ["held\n", "refused\n"], number
            assert len(leases._numbers(inner, "run")) == 1
            for starter in starters:
                starter.stdin.write("\n")
            assert [starter.stdout.readline() for starter in starters] == ["left\n"] * 2
            assert is_free(inner)
    finally:
        for starter in starters:
            starter.kill()
            starter.wait()


def dead_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_starter_that_saw_an_older_lease_does_not_hold_the_folder(workdir: Workdir) -> None:
    """It saw nothing, or a lease that had expired, then slept; meanwhile others took the folder, and gave it back."""
    for _ in range(3):
        with lease(workdir, "run"):
            pass
    newest = leases._numbers(workdir, "run")[-1]
    for number in range(newest + 1):
        assert not leases.Lease(workdir, "run", number).create()
    assert leases._numbers(workdir, "run") == [newest]
    with lease(workdir, "run"):
        assert not leases.Lease(workdir, "run", newest + 1).create()


@pytest.mark.parametrize("uri", ["memory://leases", None])
def test_threads_of_one_process_hold_the_folder_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str | None
) -> None:
    monkeypatch.setattr(leases, "SETTLE_SECONDS", 0.02)
    barrier, said = threading.Barrier(2), []

    def start(folder: str) -> None:
        workdir = Workdir(folder)
        barrier.wait()
        try:
            with lease(workdir, "run"):
                said.append("held")
                barrier.wait()
        except TryAgain:
            said.append("refused")
            barrier.wait()

    for number in range(20):
        folder = f"{uri or tmp_path}/{number}"
        threads = [threading.Thread(target=start, args=(folder,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(said[-2:]) == ["held", "refused"], number


def test_an_earlier_process_of_the_same_number_holds_nothing(workdir: Workdir) -> None:
    """The first process of a container has the same number each time."""
    hold(workdir, os.getpid())
    with lease(workdir, "run"):
        assert holder(workdir)["process"] == leases.PROCESS


def test_a_run_whose_folder_was_taken_over_stops_before_its_next_write(
    spark: SparkSession, workdir: Workdir, other_process: int
) -> None:
    roles = [spark.createDataFrame([(user, "test")], "user string, role string") for user in ("before", "after")]
    with lease(workdir, "run"):
        inner = workdir.below("seeds", "1")
        run = Run(workdir, "r", "hash")
        for place in (workdir, inner):
            place.write(roles[0], "evaluation_users")
        run.save()
        take_over(workdir, other_process)
        run.record["status"] = "done"
        for write in (
            lambda: workdir.write(roles[1], "evaluation_users"),
            lambda: workdir.append(roles[1], "evaluation_users"),
            lambda: inner.write(roles[1], "evaluation_users"),
            lambda: workdir.write_text("after", "report", "x"),
            lambda: workdir.remove("tables"),
            run.save,
        ):
            with pytest.raises(TryAgain, match="was taken over") as caught:
                write()
            assert caught.value.exit_code == 75
    for place in (workdir, inner):
        assert [row.user for row in place.read(spark, "evaluation_users").collect()] == ["before"]
    assert json.loads(workdir.read_text("runs", "r.json"))["status"] == "running"
    assert holder(workdir)["token"] == "theirs"


def test_a_run_whose_lease_was_removed_stops_too(workdir: Workdir) -> None:
    with lease(workdir, "run"):
        workdir.filesystem.rm(workdir.path("runs", "run.lease"))
        with pytest.raises(TryAgain, match="removed"):
            workdir.write_text("after", "report", "x")


def test_a_worker_writes_on_behalf_of_its_driver(workdir: Workdir, other_process: int) -> None:
    """The lease does not travel with the work folder: it cannot be pickled, and the driver commits."""
    import pickle

    with lease(workdir, "run"):
        copy = pickle.loads(pickle.dumps(workdir))
        copy.write_text("x", "part")
    assert (copy.uri, type(copy)) == (workdir.uri, Workdir)
