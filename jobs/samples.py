"""Training samples: interactions of training users to (x_i, y_i, w_i); then K, the items' counts and the validation batch."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jobs._common import Step, run_job


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return run_job(
        "samples", __doc__, lambda day, arguments: [Step("samples", day.samples), Step("choose", day.choose)], argv
    )


if __name__ == "__main__":
    sys.exit(main())
