"""Release of the last model, mapping and index, in one commit; live, or a candidate beside a live one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jobs._common import Step, run_job

if TYPE_CHECKING:
    from pipelines.flows.steps import DayOne


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return run_job("publish", __doc__, lambda day, arguments: [Step("publish", lambda: published(day))], argv)


def published(day: DayOne) -> dict[str, Any]:
    """Write the row of ``releases``."""
    from pipelines.flows.day_one import publish_release

    return publish_release(day) | {"release_id": day.release_id(day.config.em.rounds)}


if __name__ == "__main__":
    sys.exit(main())
