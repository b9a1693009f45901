"""Release of the last model, mapping and index, in one commit; live, or a candidate beside a live one."""

import sys

import dr_start  # noqa: F401
from pipelines.cli.job import stage_job

main = stage_job("publish", __doc__)

if __name__ == "__main__":
    sys.exit(main())
