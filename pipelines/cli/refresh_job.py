"""The options and the work of ``jobs/refresh.py``."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.job import Figures, refusals_recorded
from pipelines.cli.options import (
    CatalogueOption,
    ConfigOption,
    LogsOption,
    NeededEndOption,
    NeededStartOption,
    NeededWorkdirOption,
    RunIdOption,
    SetOption,
    configured,
)
from pipelines.flows import plan

ALL = "all"
StageOption = Annotated[
    str,
    typer.Option(
        "--stage", metavar="STAGE", help=f"{', '.join(stage.name for stage in plan.refresh())}, or {ALL} (default)."
    ),
]


def refresh(
    context: typer.Context,
    config: ConfigOption,
    workdir: NeededWorkdirOption,
    start: NeededStartOption,
    end: NeededEndOption,
    stage: StageOption = ALL,
    run_id: RunIdOption = None,
    logs: LogsOption = None,
    catalogue: CatalogueOption = None,
    overrides: SetOption = None,
) -> Figures:
    """Do one stage of a refresh, or all that are not done."""
    from pipelines.flows.refresh import refresh_identity, run_refresh
    from pipelines.stages.ingest.interval import Interval

    line: Figures = context.obj
    line |= {"run_id": run_id, "stage": stage}
    with refusals_recorded("refresh", workdir, run_id):
        chosen, folder = configured(config, overrides, workdir)
        interval = Interval.parse(start, end, chosen.dataset.time_zone)
    line["run_id"] = run_id or refresh_identity(chosen, logs, interval)
    only = None if stage == ALL else stage
    done = run_refresh(chosen, folder, interval, logs=logs, catalogue=catalogue, only=only, run_id=run_id)
    return {
        key: done[key] for key in ("run_id", "release_id", "parent_release", "status", "items_moved", "items_placed")
    }
