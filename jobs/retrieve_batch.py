"""Recommendations: the released retriever's top items for every user's kept history."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jobs._common import Step, run_job

if TYPE_CHECKING:
    from pipelines.flows.steps import DayOne


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return run_job("retrieve_batch", __doc__, lambda day, arguments: [Step("retrieve", lambda: recommended(day))], argv)


def recommended(day: DayOne) -> dict[str, Any]:
    """Write the release's rows of ``recommendations``."""
    from pipelines.flows.day_one import recommend

    return recommend(day)


if __name__ == "__main__":
    sys.exit(main())
