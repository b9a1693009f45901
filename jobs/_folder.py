"""What the jobs on a whole work folder share: the verdict in its record, one JSON line on stdout, the exit code."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from jobs._common import EPILOG
from pipelines.cli.console import explain, results_only, start_logging

if TYPE_CHECKING:
    from pipelines.config.run import RunConfig
    from pipelines.storage.run_record import Run
    from pipelines.storage.workdir import Workdir

Work = Callable[[Any, "Workdir", "Run | None"], dict[str, Any]]


def folder_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the arguments that all these jobs have."""
    parser = argparse.ArgumentParser(
        prog=name, description=description, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True, metavar="W", help="work folder, a path or URI")
    parser.add_argument("--run-id", type=run_name, metavar="R", help="keep the verdict in runs/R.json")
    return parser


def run_name(text: str) -> str:
    """Return a run id that is fit to be the name of a file; for ``type=`` of an argument."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text):
        raise argparse.ArgumentTypeError(f"{text}: letters, digits, '.', '_' and '-' are allowed")
    return text


def run_folder_job(
    name: str, arguments: argparse.Namespace, work: Work, configure: Callable[[], RunConfig] | None = None
) -> int:
    """Do a job's work in a Spark session, print the JSON line and return the exit code.

    Args:
        name: of the job, as in ``jobs/<name>.py``.
        arguments: with ``workdir`` and ``run_id``.
        work: given the session, the work folder and the record (None without ``--run-id``), returns the line's figures.
        configure: loads the configuration whose Spark settings the session takes.
    """
    start_logging()
    line: dict[str, Any] = {"job": name, "run_id": arguments.run_id, "exit_code": 0}
    started = time.monotonic()
    with results_only():
        try:
            line |= _do(name, arguments, work, configure)
        except (Exception, KeyboardInterrupt) as error:
            line["exit_code"] = explain(name, error)
            line["message"] = str(error) or type(error).__name__
    line["seconds"] = round(time.monotonic() - started, 3)
    print(json.dumps(line, ensure_ascii=False), flush=True)
    return int(line["exit_code"])


def _do(
    name: str, arguments: argparse.Namespace, work: Work, configure: Callable[[], RunConfig] | None
) -> dict[str, Any]:
    from pipelines.spark.session import spark_session
    from pipelines.storage.run_record import Run
    from pipelines.storage.workdir import Workdir

    workdir = Workdir(arguments.workdir)
    run = None
    if arguments.run_id is not None:
        workdir.filesystem.makedirs(workdir.path("runs"), exist_ok=True)
        run = Run(workdir, arguments.run_id, "")
    with nullcontext() if run is None else run.job(name, is_last=True):
        settings = {}
        if configure is not None:
            config = configure()
            settings = {"master": config.spark.master, "conf": config.spark.conf}
        with spark_session(f"{name} {workdir.uri}", **settings) as spark:
            return work(spark, workdir, run)
