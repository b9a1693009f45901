"""Removal of one user's rows from interactions, seen items, histories, roles, samples, quarantine and
recommendations.

Sums over many users (scores, N_v) and models forget with the next full run.
"""

import sys

import dr_start  # noqa: F401
from pipelines.cli.folder_job import delete_user
from pipelines.cli.job import Job

main = Job("delete_user", delete_user, __doc__)

if __name__ == "__main__":
    sys.exit(main())
