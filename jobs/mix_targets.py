"""Mixed targets: the samples again, with targets drawn from the warmed-up softmax beside the true ones."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jobs._common import Step, run_job


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return run_job("mix_targets", __doc__, lambda day, arguments: [Step("targets", day.targets)], argv)


if __name__ == "__main__":
    sys.exit(main())
