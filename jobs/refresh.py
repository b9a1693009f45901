"""One stage of a daily refresh, or with ``--stage all`` the whole of it.

Run one after the other with the same --start and --end, the stages ingest, samples, e_step, targets, scores, assign,
e_step_final, index, gates, publish and retrieve do what ``dr refresh`` does; a stage that is done is not done again.
"""

import sys

import dr_start  # noqa: F401
from pipelines.cli.job import Job
from pipelines.cli.refresh_job import refresh

main = Job("refresh", refresh, __doc__)

if __name__ == "__main__":
    sys.exit(main())
