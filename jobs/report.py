"""Report: report/index.html and report/summary.json from what the jobs before left. Ends the run."""

import sys

import dr_start  # noqa: F401
from pipelines.cli.job import stage_job

main = stage_job("report", __doc__)

if __name__ == "__main__":
    sys.exit(main())
