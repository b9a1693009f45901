"""Scores s[v, c] and weights N_v of one round, under the model trained on the mapping before it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jobs._common import Step, run_job


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return run_job(
        "accumulate_scores",
        __doc__,
        lambda day, at: [Step(f"scores_{at.round}", lambda: day.scores(at.round))],
        argv,
        rounds=(),
    )


if __name__ == "__main__":
    sys.exit(main())
