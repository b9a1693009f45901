"""``dr evaluate`` and ``dr report``: a release's figures once more."""

from __future__ import annotations

from pipelines.cli.answer import Answer
from pipelines.cli.options import FolderOption, JsonOption, ReleaseOption


def evaluate(workdir: FolderOption, release: ReleaseOption = None, as_json: JsonOption = False) -> Answer:
    """Measure a release again on its test users."""
    from pipelines.flows.evaluate_release import evaluate_release
    from pipelines.report.console import trim_console_table

    summary = evaluate_release(workdir, release)
    return Answer(summary, trim_console_table(summary))


def report(workdir: FolderOption, as_json: JsonOption = False) -> Answer:
    """Draw report/index.html again."""
    from pipelines.report.build import redraw
    from pipelines.storage.workdir import Workdir

    folder = Workdir(workdir)
    redraw(folder)
    page = folder.path("report", "index.html")
    return Answer({"report": page}, page)
