"""Mixed targets: the samples again, with targets drawn from the warmed-up softmax beside the true ones."""

import sys

import dr_start  # noqa: F401
from pipelines.cli.job import stage_job

main = stage_job("mix_targets", __doc__)

if __name__ == "__main__":
    sys.exit(main())
