"""What Airflow tells the DAGs (docs/operations.md lists every key).

While a DAG file is parsed: the section ``[deep_retrieval]`` of airflow.cfg, which needs no database.
When a task runs: the Airflow Variable ``deep_retrieval``, a JSON object with ``config``, ``workdir`` and more.
"""

from __future__ import annotations

import logging
import pkgutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import Asset, Context, conf

SECTION = "deep_retrieval"
VARIABLE = f"var.json.{SECTION}"
CHECKOUT = str(Path(__file__).resolve().parents[2])

HOME = f"{{{{ {VARIABLE}.get('home', '{CHECKOUT}') }}}}"
ENVIRONMENT = f"{{{{ {VARIABLE}.get('environment', {VARIABLE}.get('home', '{CHECKOUT}') ~ '/.venv') }}}}"
SPARK_PROPERTIES = (
    f"{{{{ {VARIABLE}.get('spark_properties', {VARIABLE}.get('home', '{CHECKOUT}') ~ '/conf/spark/local.conf') }}}}"
)
CONFIG = f"{{{{ {VARIABLE}.config }}}}"
WORKDIR = f"{{{{ {VARIABLE}.workdir }}}}"
FIRST_LOGS = f"{{{{ {VARIABLE}.get('first_logs', '') }}}}"
FIRST_CATALOGUE = f"{{{{ {VARIABLE}.get('first_catalogue', '') }}}}"
LOGS_OF_INTERVAL = f"{{{{ data_interval_start.strftime({VARIABLE}.get('logs', '')) }}}}"
CATALOGUE_OF_INTERVAL = f"{{{{ data_interval_start.strftime({VARIABLE}.get('catalogue', '')) }}}}"
INTERVAL_NAME = "{{ data_interval_start.strftime('%Y%m%dT%H%M') }}-{{ data_interval_end.strftime('%Y%m%dT%H%M') }}"
RUN_NAME = "{{ dag_run.run_after.strftime('%Y%m%dT%H%M%S%f') }}"
"""Tells one run of a DAG from another; unlike the logical date every run has it."""

LIVE_RELEASE = Asset("deep_retrieval_release")
"""Marked whenever another release goes live: ``schedule=[Asset("deep_retrieval_release")]`` starts what uses it."""

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
logger = logging.getLogger(__name__)


def option(name: str, fallback: str) -> str:
    """Return a key of ``[deep_retrieval]``."""
    return str(conf.get(SECTION, name, fallback=fallback))


def start_date() -> datetime | None:
    """Return the end of day one, the first moment that is refreshed; until it is set nothing is scheduled."""
    text = option("start_date", "")
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def task_defaults() -> dict[str, Any]:
    """Return what every task is given unless it says otherwise."""
    return {
        "owner": "deep_retrieval",
        "pool": option("pool", "default_pool"),
        "retries": int(option("retries", "4")),
        "retry_delay": timedelta(minutes=float(option("retry_minutes", "5"))),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(hours=1),
        "execution_timeout": timedelta(hours=float(option("timeout_hours", "6"))),
        "on_failure_callback": report_failure,
    }


def report_failure(context: Context) -> None:
    """Log one line about a task that will not be tried again, and call ``[deep_retrieval] on_failure``, if it is set.

    ``on_failure`` names a function of the context, as ``package.module:function``.
    """
    task = context["ti"]
    logger.error("%s.%s of %s failed: %s", task.dag_id, task.task_id, task.run_id, context.get("exception"))
    if name := option("on_failure", ""):
        pkgutil.resolve_name(name)(context)
