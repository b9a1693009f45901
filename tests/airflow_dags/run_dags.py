"""Runs DAGs with ``dag.test()``, one after the other: ``run_dags.py OUT '[[dag, moment, conf], …]'``.

``moment`` is when the run is due: the end of its data interval. Writes the state and the tries of every task, how often
the Asset was marked, and the failures that ``[deep_retrieval] on_failure`` was told. Runs in Airflow's environment.
"""

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow.models.asset import AssetEvent
from airflow.utils.session import create_session
from airflow_bag import load
from sqlalchemy import select

FAILURES = Path(sys.argv[1]).with_suffix(".failures")


def note_failure(context: Any) -> None:
    """What ``on_failure`` names: keep one line of every failure."""
    with FAILURES.open("a") as file:
        file.write(json.dumps([context["ti"].dag_id, context["ti"].task_id, str(context["exception"])]) + "\n")


def asset_events() -> list[dict[str, Any]]:
    with create_session() as session:
        return list(session.scalars(select(AssetEvent.extra).order_by(AssetEvent.id)))


def run(dag: Any, moment: str, conf: dict[str, Any]) -> dict[str, Any]:
    FAILURES.unlink(missing_ok=True)
    before = len(asset_events())
    ended = dag.test(logical_date=datetime.fromisoformat(moment), run_conf=conf)
    failures = FAILURES.read_text().splitlines() if FAILURES.exists() else []
    return {
        "dag": dag.dag_id,
        "state": ended.state,
        "tasks": {task.task_id: [task.state, task.try_number] for task in ended.get_task_instances()},
        "marked": asset_events()[before:],
        "failures": [json.loads(line) for line in failures],
    }


if __name__ == "__main__":
    bag = load()
    runs = [run(bag.dags[name], moment, conf) for name, moment, conf in json.loads(sys.argv[2])]
    Path(sys.argv[1]).write_text(json.dumps(runs))
