"""Each day after day one: ingest the interval, learn what the live release has not learned, judge it, publish it.

One spark-submit job a stage. A day may fail, be run again or be filled in later: the next one learns what is missing, and
the live release stays until a better one is published. A refusal is never retried; docs/operations.md says what to do.
"""

from __future__ import annotations

from airflow.sdk import DAG, CronDataIntervalTimetable, chain
from deep_retrieval.plan import refresh_stages, timeout_of
from deep_retrieval.settings import (
    CATALOGUE_OF_INTERVAL,
    CONFIG,
    INTERVAL_NAME,
    LOGS_OF_INTERVAL,
    option,
    start_date,
    task_defaults,
)
from deep_retrieval.spark_job import SparkJob
from deep_retrieval.verdicts import mark_live

START_DATE = start_date()
RUN_ID = f"daily-{INTERVAL_NAME}"
ARGUMENTS = (
    f"--config={CONFIG}",
    "--start={{ data_interval_start.isoformat() }}",
    "--end={{ data_interval_end.isoformat() }}",
    f"--logs={LOGS_OF_INTERVAL}",
    f"--catalogue={CATALOGUE_OF_INTERVAL}",
)

with DAG(
    "deep_retrieval_daily_refresh",
    description="Yesterday's log to a judged and published release",
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable(option("schedule", "0 0 * * *"), timezone="UTC") if START_DATE else None,
    start_date=START_DATE,
    catchup=START_DATE is not None,
    max_active_runs=1,
    default_args=task_defaults(),
    tags=["deep_retrieval"],
):
    tasks = {
        stage: SparkJob(
            task_id=stage,
            job="refresh",
            arguments=(*ARGUMENTS, f"--stage={stage}"),
            run_id=RUN_ID,
            execution_timeout=timeout_of(stage),
        )
        for stage in refresh_stages()
    }
    chain(*tasks.values())
    tasks["publish"] >> mark_live(RUN_ID)
