"""Inverted index of the last mapping, after the health gate."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jobs._common import Step, run_job


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return run_job("build_index", __doc__, lambda day, arguments: [Step("index", day.index)], argv)


if __name__ == "__main__":
    sys.exit(main())
