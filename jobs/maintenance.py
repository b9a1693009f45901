"""Housekeeping: releases beyond refresh.keep_releases lose their tables' rows and their models, then VACUUM."""

import sys

import dr_start  # noqa: F401
from pipelines.cli.folder_job import maintenance
from pipelines.cli.job import Job

main = Job("maintenance", maintenance, __doc__)

if __name__ == "__main__":
    sys.exit(main())
