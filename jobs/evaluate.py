"""Measurement of the last model and mapping on the test users, with the controls that the config asks for."""

import sys

import dr_start  # noqa: F401
from pipelines.cli.job import stage_job

main = stage_job("evaluate", __doc__)

if __name__ == "__main__":
    sys.exit(main())
