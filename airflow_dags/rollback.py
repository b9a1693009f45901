"""Back to another release, in one commit; nothing is built again. Triggered by hand.

``release`` empty: the live release's parent. A try that is repeated goes back only once.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param
from deep_retrieval.settings import LIVE_RELEASE, LONG_AGO, RUN_NAME, task_defaults
from deep_retrieval.spark_job import SparkJob

with DAG(
    "deep_retrieval_rollback",
    description="Make another release live",
    doc_md=__doc__,
    schedule=None,
    start_date=LONG_AGO,
    catchup=False,
    max_active_runs=1,
    default_args=task_defaults(),
    params={"release": Param("", type="string", description="The release to make live; empty: the live one's parent")},
    tags=["deep_retrieval"],
):
    SparkJob(
        task_id="rollback",
        job="releases",
        arguments=("{{ 'promote' if params.release else 'rollback' }}", "--release={{ params.release }}"),
        run_id=f"rollback-{RUN_NAME}",
        outlets=[LIVE_RELEASE],
    )
