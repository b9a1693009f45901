"""Back and forth between releases: rollback to the live release's parent, or promote a release.

With --run-id the release chosen is noted first: a job that is run again ends with the same one, and goes back only once.
"""

import sys

import dr_start  # noqa: F401
from pipelines.cli.folder_job import releases
from pipelines.cli.job import Job

main = Job("releases", releases, __doc__)

if __name__ == "__main__":
    sys.exit(main())
