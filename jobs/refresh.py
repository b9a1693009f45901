"""One stage of a daily refresh, or with ``--stage all`` the whole of it.

Run one after the other with the same --start and --end, the stages ingest, samples, e_step, targets, scores, assign,
e_step_final, index, gates, publish and retrieve do what ``dr refresh`` does; a stage that is done is not done again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from jobs._common import EPILOG
from jobs._folder import run_name
from pipelines.cli.console import explain, results_only, start_logging

STAGES = (
    "ingest", "samples", "e_step", "targets", "scores", "assign", "e_step_final", "index", "gates", "publish", "retrieve",
)  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    """Return the job's parser."""
    parser = argparse.ArgumentParser(prog="refresh", description=__doc__, epilog=EPILOG)
    parser.add_argument("--config", required=True, metavar="C", help="YAML file of the run")
    parser.add_argument("--workdir", required=True, metavar="W", help="work folder with a live release, a path or URI")
    parser.add_argument("--start", required=True, metavar="T0", help="first moment of the interval (ISO, UTC)")
    parser.add_argument("--end", required=True, metavar="T1", help="its end, not part of it")
    parser.add_argument("--stage", choices=(*STAGES, "all"), default="all", help="what to do (default: all)")
    parser.add_argument("--run-id", type=run_name, metavar="R", help="name of the run (default: follows from the rest)")
    parser.add_argument("--logs", metavar="P", help="the logs, in place of dataset.path")
    parser.add_argument("--catalogue", metavar="P", help="the catalogue, in place of dataset.catalogue")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=V", help="override one configuration key")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job and return its exit code."""
    arguments = build_parser().parse_args(argv)
    start_logging()
    line: dict[str, Any] = {"job": "refresh", "run_id": None, "stage": arguments.stage, "exit_code": 0}
    started = time.monotonic()
    with results_only():
        try:
            _do(arguments, line)
        except (Exception, KeyboardInterrupt) as error:
            line["exit_code"] = explain("refresh", error)
            line["message"] = str(error) or type(error).__name__
    line["seconds"] = round(time.monotonic() - started, 3)
    print(json.dumps(line), flush=True)
    return int(line["exit_code"])


def _do(arguments: argparse.Namespace, line: dict[str, Any]) -> None:
    from pipelines.config.load import load_config
    from pipelines.flows.refresh import refresh_identity, run_refresh
    from pipelines.stages.ingest.interval import Interval

    config = load_config(arguments.config, arguments.set)
    interval = Interval.parse(arguments.start, arguments.end)
    run_id = line["run_id"] = arguments.run_id or refresh_identity(config, arguments.logs, interval)
    only = None if arguments.stage == "all" else arguments.stage
    done = run_refresh(
        config,
        arguments.workdir,
        interval,
        logs=arguments.logs,
        catalogue=arguments.catalogue,
        only=only,
        run_id=run_id,
    )
    line |= {key: done[key] for key in ("release_id", "parent_release", "status", "items_moved", "items_placed")}


if __name__ == "__main__":
    sys.exit(main())
