"""Removal of one user's rows from interactions, histories, roles, samples, quarantine and recommendations.

Sums over many users (scores, N_v) and models forget with the next full run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from jobs._folder import folder_parser, run_folder_job


def build_parser() -> argparse.ArgumentParser:
    """Return the job's parser."""
    parser = folder_parser("delete_user", __doc__)
    parser.add_argument("--user", required=True, metavar="U", help="the user, as in the logs")
    parser.add_argument("--vacuum-now", action="store_true", help="remove the files that held the rows, at once")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job and return its exit code."""
    arguments = build_parser().parse_args(argv)

    def work(spark: Any, workdir: Any, run: Any) -> dict[str, Any]:
        from pipelines.flows.delete_user import delete_user

        return {"removed": delete_user(spark, workdir, arguments.user, vacuum_now=arguments.vacuum_now)}

    return run_folder_job("delete_user", arguments, work)


if __name__ == "__main__":
    sys.exit(main())
