"""The report of a run: ``report/summary.json``, ``report/report_data.json`` and ``report/index.html``.

First everything is gathered from the runs, then it is drawn: the page can be drawn again without Spark and models.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pipelines.evaluation.learned_run import LearnedRun
from pipelines.evaluation.recorded import full_measurement
from pipelines.report.gather import report_data, summarize
from pipelines.report.render import render_report
from pipelines.report.summary import read_summary, write_summary
from pipelines.storage.json_text import to_json
from pipelines.storage.workdir import Workdir

REPORT = ("report",)
"""Where day one's report is, below the work folder."""


def build_report(runs: Sequence[LearnedRun], *, folder: Sequence[str] = REPORT) -> dict[str, Any]:
    """Put the seeds together, with what was measured beside them, write the report and return ``summary.json``.

    Args:
        runs: one a seed, each measured; the first is the released one.
        folder: where to, below the work folder.
    """
    seeds = [full_measurement(run) for run in runs]
    first = runs[0]
    write_report(first.workdir, summarize(first, seeds), report_data(runs, seeds), folder=folder)
    return dict(json.loads(first.workdir.read_text(*folder, "summary.json")))


def write_report(
    workdir: Workdir, summary: dict[str, Any], data: dict[str, Any], *, folder: Sequence[str] = REPORT
) -> None:
    """Write the three files; ``summary.json`` last, since it says that the report is whole."""
    workdir.write_text(to_json(data), *folder, "report_data.json")
    workdir.write_text(render_report(summary, data), *folder, "index.html")
    workdir.write_text(write_summary(summary), *folder, "summary.json")


def redraw(workdir: Workdir, *, folder: tuple[str, ...] = ("report",)) -> None:
    """Draw ``index.html`` of a report again from what the run left."""
    summary = read_summary(workdir.read_text(*folder, "summary.json"))
    data = json.loads(workdir.read_text(*folder, "report_data.json"))
    workdir.write_text(render_report(summary, data), *folder, "index.html")
