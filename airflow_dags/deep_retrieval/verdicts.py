"""The record of a run, ``runs/<run_id>.json`` in the work folder, as the jobs leave it."""

from __future__ import annotations

import json
import logging
from typing import Any

from airflow.sdk import ObjectStoragePath, task
from airflow.sdk.exceptions import AirflowSkipException

from deep_retrieval.settings import LIVE_RELEASE, WORKDIR, option

logger = logging.getLogger(__name__)


def read_record(workdir: str, run_id: str) -> dict[str, Any] | None:
    """Return a run's record, or None where there is none or it cannot be read."""
    folder = workdir.rstrip("/").replace("s3a://", "s3://", 1)
    file = ObjectStoragePath(f"{folder}/runs/{run_id}.json", conn_id=option("storage_connection", "") or None)
    try:
        return dict(json.loads(file.read_text())) if file.exists() else None
    except Exception as error:
        logger.warning("%s cannot be read: %s", file, error)
        return None


def mark_live(run_id: str) -> Any:
    """Return a task that marks the Asset if the release of a run went live, and is skipped if it did not."""

    @task(task_id="mark_live", outlets=[LIVE_RELEASE])
    def mark(workdir: str, name: str, outlet_events: Any = None) -> None:
        record = read_record(workdir, name) or {"stages": []}
        published = next((stage["result"] for stage in record["stages"] if stage["name"] == "publish"), {})
        if published.get("status") != "live":
            raise AirflowSkipException(f"the release of {name} is {published.get('status')}")
        outlet_events[LIVE_RELEASE].extra = {"run_id": name}

    return mark(WORKDIR, run_id)
