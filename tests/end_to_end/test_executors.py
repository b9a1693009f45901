"""The same loop where a cluster would run it: executors of their own that die, and a work folder that is not local."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pyspark
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ALONE = (
    "em.rounds=1",
    "evaluation.controls=false",
    "evaluation.random_start_rounds=0",
    "evaluation.other_paths_per_item=[]",
)
ON_EXECUTORS = ("spark.master=local-cluster[2,1,1024]", "training.local_processes=false")
SHUFFLED_IN_TWO = {"PYSPARK_SUBMIT_ARGS": "--conf spark.sql.shuffle.partitions=2 pyspark-shell"}
VIEWFS_MOUNT = "spark.hadoop.fs.viewfs.mounttable.default.link./w"
# Release ids follow the configuration, which names the master: they are left out.
TABLES = ("items", "interactions", "item_paths", "path_scores", "item_stats", "path_items", "recommendations")


def start(workdir: str, *overrides: str, **environment: str) -> subprocess.Popen[str]:
    """Start the tiny world's day one in its own process."""
    variables = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "SPARK_HOME": pyspark.__path__[0],
                              "PYSPARK_PYTHON": sys.executable} | environment  # fmt: skip
    command = [sys.executable, str(HERE / "run_tiny.py"), workdir, *ALONE, *overrides]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables, cwd=ROOT)


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a run; return its log."""
    _, log = process.communicate(timeout=500)
    assert process.returncode == 0, log[-5000:]
    return log


@pytest.fixture(scope="module")
def local(run_attached, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder of ``local[2]``."""
    workdir = tmp_path_factory.mktemp("local")
    code, log = run_attached("run_tiny.py", str(workdir), *ALONE)
    assert code == 0, log[-5000:]
    return workdir


def stages_done(workdir: Path) -> list[str]:
    """Return the names of the stages that the run's record holds."""
    for record in (workdir / "runs").glob("*.json"):
        return [stage["name"] for stage in json.loads(record.read_text())["stages"]]
    return []


def executors(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the executor JVMs below a run."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if "CoarseGrainedExecutorBackend" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def test_executors_killed_in_scores_assign_and_index_change_nothing(contents, local: Path, tmp_path: Path) -> None:
    """Training is a barrier stage on the executors; one of them is killed a moment after each of three stages began."""
    process = start(str(tmp_path), *ON_EXECUTORS, **SHUFFLED_IN_TWO)
    killed = []
    for before in ("e_step_1", "scores_1", "e_step_final"):
        while before not in stages_done(tmp_path):
            assert process.poll() is None, finish(process)
            time.sleep(0.05)
        time.sleep(0.7)
        victims = executors(process)
        if victims:
            os.kill(victims[0].pid, signal.SIGKILL)
            killed.append(before)
    finish(process)
    assert killed == ["e_step_1", "scores_1", "e_step_final"]
    for table in TABLES:
        pd.testing.assert_frame_equal(contents(tmp_path, table, "release_id"), contents(local, table, "release_id"))


def test_a_work_folder_that_is_not_local(contents, local: Path, tmp_path: Path) -> None:
    """Hadoop's viewfs for Spark, an fsspec file system of the same name for everything else."""
    finish(
        start(
            "viewfs:///w/W",
            PYSPARK_SUBMIT_ARGS=f"--conf {VIEWFS_MOUNT}={tmp_path.as_uri()} pyspark-shell",
            PYTHONPATH=f"{ROOT}:{HERE / 'viewfs'}",
            VIEWFS_TARGET=str(tmp_path),
        )
    )
    for table in TABLES:
        pd.testing.assert_frame_equal(
            contents(tmp_path / "W", table, "release_id"), contents(local, table, "release_id")
        )
    assert (tmp_path / "W" / "report" / "index.html").exists()
