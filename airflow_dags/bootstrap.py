"""Day one: from logs to a live release and a report, one spark-submit job a stage. Triggered by hand, once.

``start`` and ``end`` bound the events that are ingested; the daily refresh then begins at ``end``. On a work folder that
has a live release the result is a candidate beside it. ``[deep_retrieval] rounds`` must be the configuration's ``em.rounds``:
it makes the tasks, and the first job refuses another number.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param, chain
from deep_retrieval.plan import day_one_jobs, timeout_of
from deep_retrieval.settings import CONFIG, FIRST_CATALOGUE, FIRST_LOGS, LONG_AGO, RUN_NAME, option, task_defaults
from deep_retrieval.spark_job import SparkJob
from deep_retrieval.verdicts import mark_live

ROUNDS = int(option("rounds", "2"))
RUN_ID = f"bootstrap-{RUN_NAME}"
ARGUMENTS = (
    f"--config={CONFIG}",
    f"--logs={FIRST_LOGS}",
    f"--catalogue={FIRST_CATALOGUE}",
    "--start={{ params.start }}",
    "--end={{ params.end }}",
    f"--rounds={ROUNDS}",
)
with DAG(
    "deep_retrieval_bootstrap",
    description="Day one: from logs to a live release",
    doc_md=__doc__,
    schedule=None,
    start_date=LONG_AGO,
    catchup=False,
    max_active_runs=1,
    default_args=task_defaults(),
    params={
        "start": Param(
            "", type="string", description="Ingest events from this ISO date or moment on (UTC); empty: all"
        ),
        "end": Param("", type="string", description="… and before this one"),
    },
    tags=["deep_retrieval"],
):
    tasks = {
        f"{job}_{number}" if number else job: SparkJob(
            task_id=f"{job}_{number}" if number else job,
            job=job,
            arguments=(*ARGUMENTS, *([f"--round={number}"] if number else [])),
            run_id=RUN_ID,
            execution_timeout=timeout_of(job),
        )
        for job, number in day_one_jobs(ROUNDS)
    }
    chain(*tasks.values())
    tasks["publish"] >> mark_live(RUN_ID)
