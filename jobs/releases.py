"""Back and forth between releases: rollback to the live release's parent, or promote a release.

With --run-id the release chosen is noted first: a job that is run again ends with the same one, and goes back only once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from dr_core.errors import ConfigError
from jobs._folder import folder_parser, run_folder_job


def build_parser() -> argparse.ArgumentParser:
    """Return the job's parser."""
    parser = folder_parser("releases", __doc__)
    parser.add_argument("action", choices=("promote", "rollback"), help="what to do")
    parser.add_argument("--release", metavar="R", help="the release to promote")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job and return its exit code."""
    arguments = build_parser().parse_args(argv)

    def work(spark: Any, workdir: Any, run: Any) -> dict[str, Any]:
        from pipelines.storage.publish import promote, rollback
        from pipelines.storage.releases import find_release

        if (arguments.action == "promote") != (arguments.release is not None):
            raise ConfigError("promote needs --release, rollback goes to the live release's parent and takes none")
        chosen = arguments.release or (run and run.record.get("chosen")) or None
        if chosen is None:
            chosen = find_release(workdir, None).parent_release
        if run is not None:
            run.record["chosen"] = chosen
            run.save()
        live = rollback(spark, workdir) if chosen is None else promote(spark, workdir, chosen)
        return {"release_id": live.release_id, "status": live.status}

    return run_folder_job("releases", arguments, work)


if __name__ == "__main__":
    sys.exit(main())
