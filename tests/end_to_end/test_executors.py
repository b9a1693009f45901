"""The same loop where a cluster would run it: executors of their own that die, and a work folder that is not local."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
import pyspark

from tests.end_to_end.world import FIRST, SCRIPT, TinyWorld

Contents = Callable[..., pd.DataFrame]
ROOT = Path(__file__).parents[2]
ON_EXECUTORS = (
    "spark.master=local-cluster[2,1,1024]",
    "training.local_processes=false",
    "evaluation.controls=false",
)
VIEWFS_MOUNT = "spark.hadoop.fs.viewfs.mounttable.default.link./w"
# Release ids follow the configuration, which says where the ranks run: they are left out.
TABLES = ("items", "interactions", "item_paths", "path_scores", "item_stats", "path_items", "recommendations")


def start(folder: Path, log: str) -> subprocess.Popen[str]:
    """Start the tiny world's day one in its own process, on executors, in a work folder that only viewfs knows.

    Hadoop's viewfs is Spark's file system then, an fsspec one of the same name everything else's.
    """
    variables = os.environ | {
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'end_to_end' / 'viewfs'}",
        "OMP_NUM_THREADS": "1",
        "SPARK_HOME": pyspark.__path__[0],
        "PYSPARK_PYTHON": sys.executable,
        "VIEWFS_TARGET": str(folder),
        "PYSPARK_SUBMIT_ARGS": f"--conf {VIEWFS_MOUNT}={folder.as_uri()} --conf spark.sql.shuffle.partitions=2 pyspark-shell",
    }
    moments = (FIRST.start.isoformat(), FIRST.end.isoformat())
    command = [sys.executable, str(SCRIPT), "viewfs:///w/W", log, *moments, "first", *ON_EXECUTORS]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables, cwd=ROOT)


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a run; return its log."""
    _, log = process.communicate(timeout=500)
    assert process.returncode == 0, log[-5000:]
    return log


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


def test_executors_that_die_and_a_folder_that_is_not_local_change_nothing(
    contents: Contents, tiny_world: TinyWorld, tmp_path: Path
) -> None:
    """Training is a barrier stage on the executors; one of them is killed a moment after each of three stages began."""
    process = start(tmp_path, tiny_world.logs["first"])
    killed = []
    for before in ("e_step_1", "scores_1", "e_step_final"):
        while before not in stages_done(tmp_path / "W"):
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
        pd.testing.assert_frame_equal(
            contents(tmp_path / "W", table, "release_id"), contents(tiny_world.workdir, table, "release_id")
        )
    assert (tmp_path / "W" / "report" / "index.html").exists()
