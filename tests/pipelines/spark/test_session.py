"""Sessions that start at the same time, where one fetches the Delta JARs; and sessions that are interrupted."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from dr_core.errors import TryAgain, typed
from pipelines.spark import session
from pipelines.spark.session import shuffle_partitions

INTERRUPTED = """
import sys
from pipelines.cli.console import explain
from pipelines.spark.session import spark_session
try:
    with spark_session("interrupted", master="local[1]") as spark:
        print("started", file=sys.stderr, flush=True)
        spark.range(1 << 40).selectExpr("sum(hash(id))").collect()
except (Exception, KeyboardInterrupt) as error:
    sys.exit(explain("dr run", error))
"""


@pytest.fixture
def lock_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(session.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path


@pytest.mark.system
def test_ctrl_c_in_a_spark_job_is_one_line_and_leaves_nothing_running() -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert program.stderr is not None
    while "started" not in (line := program.stderr.readline()):
        assert line, "the program ended before its job"
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(2)
    os.killpg(program.pid, signal.SIGINT)
    said = program.communicate(timeout=60)[1]
    assert said == "dr run: interrupted; the same command goes on where it stopped\n"
    assert program.returncode == TryAgain.exit_code
    with pytest.raises(ProcessLookupError):
        for _ in range(60):
            os.killpg(program.pid, 0)
            time.sleep(1)


def test_what_a_library_makes_of_an_interrupt_is_an_interrupt() -> None:
    """numba's dispatcher: SystemError, "returned a result with an exception set", from the interrupt."""
    interrupt = KeyboardInterrupt()
    error = SystemError("returned a result with an exception set")
    error.__cause__ = interrupt
    outer = RuntimeError("while cleaning up")
    outer.__context__ = error
    assert typed(outer) is interrupt
    assert typed(error) is interrupt
    assert typed(unrelated := ValueError("other")) is unrelated


def started_beside(seconds: float) -> bool:
    """Return whether a second start gets on within some time while the first one is under way."""
    entered = threading.Event()

    def start() -> None:
        with session.delta_fetched_once():
            entered.set()

    with session.delta_fetched_once():
        second = threading.Thread(target=start)
        second.start()
        beside = entered.wait(seconds)
    second.join(60)
    assert entered.is_set(), "the second start goes on once the first one is done"
    return beside


def test_the_jars_are_sought_in_the_home_that_the_jvm_knows(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where ``HOME`` names another folder than the system's list of users, a JVM goes by the list."""
    jvm = spark._jvm
    assert jvm is not None
    monkeypatch.setenv("HOME", str(tmp_path))
    jars = session.delta_jars()
    assert jars
    assert all(jar.is_relative_to(jvm.System.getProperty("user.home")) for jar in jars)


def test_on_a_new_machine_the_second_start_waits(lock_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "delta_jars", list)
    assert not started_beside(0.5)


def test_with_the_jars_in_the_cache_nobody_waits(lock_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "delta_jars", lambda: [lock_folder / "delta.jar"])
    assert started_beside(60)


def test_a_start_that_finds_half_a_cache_waits_for_who_fills_it(
    lock_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first JAR lies there before the last: from then on others see it, and still have to wait."""
    answers = iter([[], [lock_folder / "delta.jar"]])
    monkeypatch.setattr(session, "delta_jars", lambda: next(answers))
    assert not started_beside(0.5)


def test_a_shuffle_has_a_partition_a_core_and_four_at_least() -> None:
    cores = len(os.sched_getaffinity(0))
    expected = {"local": 4, "local[2]": 4, "local[16]": 16, "local[64, 3]": 64, "local[*]": max(4, cores)}
    assert {master: shuffle_partitions(master) for master in expected} == expected
