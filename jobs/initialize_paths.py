"""Where the structure starts: pi_0, from the warmed-up softmax's item vectors or at random."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jobs._common import Step, run_job


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return run_job("initialize_paths", __doc__, lambda day, arguments: [Step("initialize", day.initialize)], argv)


if __name__ == "__main__":
    sys.exit(main())
