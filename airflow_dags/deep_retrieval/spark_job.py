"""A job under spark-submit whose verdict, not only its exit code, says whether to try again."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from deep_retrieval.settings import ENVIRONMENT, HOME, SPARK_PROPERTIES, WORKDIR, option
from deep_retrieval.verdicts import read_record

MEANING = {1: "a bug", 2: "bad configuration or arguments", 3: "refused by a gate", 75: "the folder is in use"}
FINAL = (2, 3)
"""Exit codes that another try would only repeat."""


class SparkJob(SparkSubmitOperator):
    """Runs ``jobs/<job>.py`` and fails without a retry when it was refused or wrongly configured.

    After a failure the verdict is read from the run's record, because cluster mode loses exit codes; if this try left no
    verdict there (it was killed, or the folder was in use), the exit code of spark-submit counts.

    Args:
        job: name of a file in ``jobs/``.
        arguments: of the job, templated; those that are empty, or of the form ``--name=`` with nothing after it, are left out.
        run_id: names the record; the same for all tasks of a run.
    """

    template_fields: Sequence[str] = (*SparkSubmitOperator.template_fields, "run_id", "workdir", "environment")

    def __init__(self, *, job: str, arguments: Sequence[str], run_id: str, **options: Any) -> None:
        super().__init__(
            application=f"{HOME}/jobs/{job}.py",
            application_args=[f"--workdir={WORKDIR}", f"--run-id={run_id}", *arguments],
            name=f"deep_retrieval.{job}",
            conn_id=option("connection", "deep_retrieval_spark"),
            properties_file=SPARK_PROPERTIES,
            durable=False,
            **options,
        )
        self.run_id = run_id
        self.workdir = WORKDIR
        self.environment = ENVIRONMENT

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:
        """Render, and leave out the arguments that turned out empty."""
        super().render_template_fields(context, jinja_env)
        given = self.application_args or []
        self.application_args = [text for text in given if not re.fullmatch(r"(--[a-z-]+=)?", text)]

    def execute(self, context: Context) -> None:
        """Submit the job and judge its failure.

        Raises:
            AirflowFailException: another try would only repeat the failure.
            AirflowException: it is worth another try.
        """
        before = read_record(self.workdir, self.run_id)
        try:
            with found_first(f"{self.environment}/bin"):
                super().execute(context)
        except (AirflowException, RuntimeError) as error:
            code, message = self._verdict(before, error)
            text = f"exit code {code}, {MEANING.get(code, 'killed or lost')}: {message}"
            raise (AirflowFailException if code in FINAL else AirflowException)(text) from error

    def _verdict(self, before: dict[str, Any] | None, error: Exception) -> tuple[int | None, str]:
        record = read_record(self.workdir, self.run_id)
        if record is not None and record != before and record["exit_code"] is not None:
            return record["exit_code"], record["message"]
        found = re.search(r"Error code is: (-?\d+)", str(error))
        return int(found[1]) if found else None, f"see the log above; no verdict in runs/{self.run_id}.json"


@contextmanager
def found_first(folder: str) -> Iterator[None]:
    """Put a folder first on PATH: Airflow's own environment has no spark-submit, the project's has."""
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{folder}{os.pathsep}{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before
