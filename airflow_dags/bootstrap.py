"""Day one: from logs to a live release and a report, one spark-submit job a stage. Triggered by hand, once.

``start`` and ``end`` bound the events that are ingested; the daily refresh then begins at ``end``. On a work folder that
has a live release the result is a candidate beside it.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param, chain
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
    f"--set=em.rounds={ROUNDS}",
)
JOBS = (
    ("preprocess", None), ("samples", None), ("train_model", "warm_up"), ("initialize_paths", None), ("mix_targets", None),
    *((job, str(t)) for t in range(1, ROUNDS + 1) for job in ("train_model", "accumulate_scores", "assign_paths")),
    ("train_model", "final"), ("build_index", None), ("evaluate", None), ("publish", None), ("retrieve_batch", None),
    ("report", None),
)  # fmt: skip

with DAG(
    "deep_retrieval_bootstrap",
    description="Day one: from logs to a live release",
    doc_md=__doc__,
    schedule=None,
    start_date=LONG_AGO,
    catchup=False,
    max_active_runs=1,
    default_args=task_defaults()
    | {"execution_timeout": timedelta(hours=float(option("training_timeout_hours", "12")))},
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
        )
        for job, number in JOBS
    }
    chain(*tasks.values())
    tasks["publish"] >> mark_live(RUN_ID)
