"""Logs (and catalogue) to interactions, items, user histories, quarantine and the held-out users.

With --start and --end only the events of that interval, else the whole log.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jobs._common import Step, run_job


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return run_job("preprocess", __doc__, lambda day, arguments: [Step("preprocess", day.preprocess)], argv)


if __name__ == "__main__":
    sys.exit(main())
