"""Inverted index of the last mapping, after the health gate; then what the model is served with."""

import sys

import dr_start  # noqa: F401
from pipelines.cli.job import stage_job

main = stage_job("build_index", __doc__)

if __name__ == "__main__":
    sys.exit(main())
