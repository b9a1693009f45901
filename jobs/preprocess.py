"""Logs (and catalogue) to interactions, items, user histories, quarantine and the held-out users.

With --start and --end only the events of that interval, else the whole log.
"""

import sys

import dr_start  # noqa: F401
from pipelines.cli.job import stage_job

main = stage_job("preprocess", __doc__)

if __name__ == "__main__":
    sys.exit(main())
