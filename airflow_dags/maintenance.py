"""Housekeeping: releases beyond retention are deleted, then their files; and the removal of one user's rows.

Neither runs between two stages of a refresh or a bootstrap: it waits until none is active.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, CronDataIntervalTimetable, Param, task
from deep_retrieval.settings import CONFIG, LONG_AGO, RUN_NAME, option, task_defaults
from deep_retrieval.spark_job import SparkJob

WRITERS = ("deep_retrieval_bootstrap", "deep_retrieval_daily_refresh")


@task.sensor(mode="reschedule", poke_interval=60, timeout=timedelta(hours=24).total_seconds())
def wait_for_writers(ti: Any = None) -> bool:
    """Wait until no run that writes a release is active."""
    return all(ti.get_dr_count(dag_id=name, states=["running"]) == 0 for name in WRITERS)


with DAG(
    "deep_retrieval_maintenance",
    description="Retention of releases, and VACUUM",
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable(option("maintenance_schedule", "0 12 * * 0"), timezone="UTC"),
    start_date=LONG_AGO,
    catchup=False,
    max_active_runs=1,
    default_args=task_defaults(),
    params={
        "vacuum_hours": Param(168, type="number", minimum=0, description="Remove files deleted longer ago (hours)")
    },
    tags=["deep_retrieval"],
):
    wait_for_writers() >> SparkJob(
        task_id="maintain",
        job="maintenance",
        arguments=(f"--config={CONFIG}", "--vacuum-hours={{ params.vacuum_hours }}"),
        run_id=f"maintenance-{RUN_NAME}",
    )

with DAG(
    "deep_retrieval_delete_user",
    description="Removal of one user's rows",
    doc_md=__doc__,
    schedule=None,
    start_date=LONG_AGO,
    catchup=False,
    max_active_runs=1,
    default_args=task_defaults(),
    params={
        "user": Param("", type="string", minLength=1, description="The user, as in the logs"),
        "vacuum_now": Param(False, type="boolean", description="Remove the files too, at once"),
    },
    tags=["deep_retrieval"],
):
    wait_for_writers() >> SparkJob(
        task_id="delete_user",
        job="delete_user",
        arguments=("--user={{ params.user }}", "{{ '--vacuum-now' if params.vacuum_now else '' }}"),
        run_id=f"delete-user-{RUN_NAME}",
    )
