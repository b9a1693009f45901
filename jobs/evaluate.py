"""Measurement of the last model and mapping on the test users, with the controls that the config asks for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jobs._common import Step, run_job

if TYPE_CHECKING:
    from pipelines.flows.steps import DayOne


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return run_job("evaluate", __doc__, lambda day, arguments: [Step("evaluate", lambda: measured(day))], argv)


def measured(day: DayOne) -> dict[str, Any]:
    """Measure and keep the points below ``runs/``."""
    from pipelines.evaluation.measure import measure

    return measure(day)


if __name__ == "__main__":
    sys.exit(main())
