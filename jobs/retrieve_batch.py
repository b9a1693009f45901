"""Recommendations: the released retriever's top items for every user's kept history."""

import sys

import dr_start  # noqa: F401
from pipelines.cli.job import stage_job

main = stage_job("retrieve_batch", __doc__)

if __name__ == "__main__":
    sys.exit(main())
