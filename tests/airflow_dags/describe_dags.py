"""Writes what the DAGs are: ``describe_dags.py OUT``. Runs in Airflow's environment."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pendulum
from airflow.serialization.encoders import coerce_to_core_timetable
from airflow.timetables.base import TimeRestriction
from airflow_bag import load


def describe(dag: Any) -> dict[str, Any]:
    return {
        "schedule": type(dag.timetable).__name__,
        "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs,
        "params": dag.params.dump(),
        "intervals": intervals(dag),
        "tasks": {
            task.task_id: {
                "kind": type(task).__name__,
                "after": sorted(task.upstream_task_ids),
                "retries": task.retries,
                "timeout": task.execution_timeout and task.execution_timeout.total_seconds(),
                "callbacks": len(task.on_failure_callback),
                "outlets": [asset.name for asset in task.outlets],
                "pool": task.pool,
            }
            for task in dag.tasks
        },
    }


def intervals(dag: Any) -> list[list[str]]:
    """Return the first three data intervals that are scheduled, long after the DAG's start."""
    earliest = dag.start_date and pendulum.instance(dag.start_date)
    restriction = TimeRestriction(earliest=earliest, latest=None, catchup=dag.catchup)
    timetable, last, found = coerce_to_core_timetable(dag.timetable), None, []
    for _ in range(3):
        info = timetable.next_dagrun_info(last_automated_data_interval=last, restriction=restriction)
        if info is None:
            break
        last = info.data_interval
        found.append([last.start.isoformat(), last.end.isoformat()])
    return found


if __name__ == "__main__":
    started = time.monotonic()
    bag = load()
    seconds = time.monotonic() - started
    document = {
        "import_errors": bag.import_errors,
        "seconds": seconds,
        "dags": {name: describe(dag) for name, dag in bag.dags.items()},
    }
    Path(sys.argv[1]).write_text(json.dumps(document))
