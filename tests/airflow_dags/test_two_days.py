"""Two days and a rollback of the tiny world, executed by a real Airflow; its jobs run on this test run's JVM."""

import json
import shutil
from collections.abc import Callable, Iterator
from multiprocessing.connection import Client, Listener
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from pipelines.flows import plan
from pipelines.storage.releases import learned_intervals, list_releases
from pipelines.storage.workdir import Workdir
from tests.airflow_dags.conftest import put_program
from tests.end_to_end.world import CONFIG, FIRST, TinyWorld, day

InAirflow = Callable[..., Any]
RunAttached = Callable[..., tuple[int, str]]
STAGES = [stage.name for stage in plan.refresh()]
DAYS = ("daily-20240110T0000-20240111T0000", "daily-20240111T0000-20240112T0000")


@pytest.fixture
def environment(run_attached: RunAttached, tmp_path: Path) -> Iterator[Path]:
    """An environment whose spark-submit has this process run its programs, one after the other."""
    program = put_program("attached_submit.py", tmp_path / "environment")
    with Listener(family="AF_UNIX") as listener:
        program.with_name("address").write_text(str(listener.address))

        def serve() -> None:
            while True:
                with listener.accept() as call:
                    words = call.recv()
                    if not words:
                        return
                    call.send(run_attached(Path(words[0]), *words[1:]))

        server = Thread(target=serve, daemon=True)
        server.start()
        yield program.parents[1]
        with Client(listener.address) as last:
            last.send([])
        server.join()


def test_two_days_and_a_rollback(
    in_airflow: InAirflow, environment: Path, tiny_world: TinyWorld, tmp_path: Path
) -> None:
    workdir = shutil.copytree(tiny_world.workdir, tmp_path / "W")
    refresh = "deep_retrieval_daily_refresh"
    runs = [
        [refresh, day(9).end.isoformat(), {}],
        [refresh, day(10).end.isoformat(), {}],
        ["deep_retrieval_rollback", day(10).end.isoformat(), {}],
    ]
    settings = {
        "config": CONFIG,
        "workdir": str(workdir),
        "logs": str(Path(tiny_world.logs[9]).parents[1] / "%Y-%m-%d" / "logs.parquet"),
        "environment": str(environment),
    }
    done = in_airflow(
        "run_dags.py", json.dumps(runs), settings=settings, connection={"host": "local[1]"}, options={"retries": "0"}
    )

    for run in done[:2]:
        assert run["state"] == "success"
        assert run["tasks"] == {stage: ["success", 1] for stage in (*STAGES, "mark_live")}
    assert done[2]["state"] == "success"
    assert [run["marked"] for run in done] == [*([{"run_id": name}] for name in DAYS), [{}]]
    for name in DAYS:
        record = json.loads((workdir / "runs" / f"{name}.json").read_text())
        assert (record["status"], record["exit_code"]) == ("done", 0)
        assert [stage["name"] for stage in record["stages"]] == STAGES
    rows = sorted(list_releases(Workdir(str(workdir))), key=lambda row: row.created_at)
    assert [row.status for row in rows] == ["retired", "live", "retired"], "the second day was rolled back to the first"
    assert [row.release_id for row in rows] == [tiny_world.release_id, *(f"{name}-1" for name in DAYS)]
    assert rows[1].parent_release == rows[0].release_id
    assert rows[2].parent_release == rows[1].release_id
    assert learned_intervals(rows, rows[2]) == {FIRST.label, day(9).label, day(10).label}
