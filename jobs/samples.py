"""Training samples: interactions of training users to (x_i, y_i, w_i); then the items' counts and the validation batch."""

import sys

import dr_start  # noqa: F401
from pipelines.cli.job import stage_job

main = stage_job("samples", __doc__)

if __name__ == "__main__":
    sys.exit(main())
