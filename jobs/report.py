"""Report: report/index.html and report/summary.json from what the jobs before left. Ends the run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jobs._common import Step, run_job

if TYPE_CHECKING:
    from pipelines.flows.steps import DayOne


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return run_job("report", __doc__, lambda day, arguments: [Step("report", lambda: drawn(day))], argv)


def drawn(day: DayOne) -> dict[str, Any]:
    """Write the report; the run counts as one of a single seed."""
    from pipelines.flows.day_one import finish_report

    summary = finish_report([day])
    day.run.record["seeds"] = 1
    results = len(summary["results"])
    return {"rows_in": results, "rows_out": results, "report": day.workdir.path("report", "index.html")}


if __name__ == "__main__":
    sys.exit(main())
