"""M-step of one round: penalised coordinate descent over the items' paths."""

import sys

import dr_start  # noqa: F401
from pipelines.cli.job import stage_job

main = stage_job("assign_paths", __doc__)

if __name__ == "__main__":
    sys.exit(main())
