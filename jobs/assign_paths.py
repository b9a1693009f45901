"""M-step of one round: penalised coordinate descent over the items' paths."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jobs._common import Step, run_job


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return run_job(
        "assign_paths",
        __doc__,
        lambda day, at: [Step(f"assign_{at.round}", lambda: day.assign(at.round))],
        argv,
        rounds=(),
    )


if __name__ == "__main__":
    sys.exit(main())
