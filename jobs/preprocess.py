"""Logs (and catalogue) to interactions, items, user histories, quarantine and the held-out users.

With --start and --end only the events of that interval, else the whole log.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from jobs._common import Step, run_job

if TYPE_CHECKING:
    from pipelines.em import DayOne


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return run_job(
        "preprocess",
        __doc__,
        lambda day, arguments: [Step("preprocess", lambda: ingest(day, arguments))],
        argv,
    )


def ingest(day: DayOne, arguments: argparse.Namespace) -> dict[str, Any]:
    """Ingest the interval asked for, or everything; rows of a longer log that lie after the interval are left out."""
    if arguments.start is None:
        return day.preprocess()
    from pipelines.stages.preprocess import Interval, preprocess

    summary = preprocess(
        day.spark,
        day.workdir,
        day.config.dataset,
        day.config.preprocess,
        day.config.split,
        run_id=day.run.run_id,
        interval=Interval.parse(arguments.start, arguments.end),
        logs=day.logs,
        catalogue=day.catalogue,
        seed=day.seed,
        latest_time=datetime.now(UTC),
    )
    return {**summary.as_dict(), "rows_out": summary.kept}


if __name__ == "__main__":
    sys.exit(main())
