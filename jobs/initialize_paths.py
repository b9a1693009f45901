"""How many paths there are, and where they start: pi_0, from the warmed-up softmax or at random."""

import sys

import dr_start  # noqa: F401
from pipelines.cli.job import stage_job

main = stage_job("initialize_paths", __doc__)

if __name__ == "__main__":
    sys.exit(main())
