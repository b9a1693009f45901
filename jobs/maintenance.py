"""Housekeeping: releases beyond refresh.keep_releases lose their tables' rows and their models, then VACUUM."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jobs._folder import folder_parser, run_folder_job

if TYPE_CHECKING:
    from pipelines.config.run import RunConfig


def build_parser() -> argparse.ArgumentParser:
    """Return the job's parser."""
    parser = folder_parser("maintenance", __doc__)
    parser.add_argument("--config", required=True, metavar="C", help="YAML file of the run")
    parser.add_argument(
        "--vacuum-hours", type=float, default=168.0, metavar="H", help="remove files deleted longer ago (default: 168)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job and return its exit code."""
    arguments = build_parser().parse_args(argv)

    def configure() -> RunConfig:
        from pipelines.config.load import load_config

        return load_config(arguments.config, [])

    def work(spark: Any, workdir: Any, run: Any) -> dict[str, Any]:
        from pipelines.flows.retention import maintain

        return maintain(spark, workdir, configure(), vacuum_hours=arguments.vacuum_hours)

    return run_folder_job("maintenance", arguments, work, configure)


if __name__ == "__main__":
    sys.exit(main())
