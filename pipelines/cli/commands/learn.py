"""``dr run`` and ``dr refresh``: from logs to a release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from pipelines.cli.answer import Answer
from pipelines.cli.options import (
    STAGES,
    CatalogueOption,
    ConfigOption,
    EndOption,
    FreshOption,
    JsonOption,
    LogsOption,
    NeededEndOption,
    NeededStartOption,
    OnlyOption,
    SeedsOption,
    SetOption,
    StartOption,
    WorkdirOption,
    configured,
    report_line,
    span,
)


def run(
    config: ConfigOption,
    workdir: WorkdirOption = None,
    logs: LogsOption = None,
    catalogue: CatalogueOption = None,
    overrides: SetOption = None,
    start: StartOption = None,
    end: EndOption = None,
    seeds: SeedsOption = 1,
    fresh: FreshOption = False,
    from_stage: Annotated[
        str | None,
        typer.Option("--from", metavar="STAGE", help="Do this stage and all later ones again.", rich_help_panel=STAGES),
    ] = None,
    only: OnlyOption = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Do nothing; show what would become of each stage.", rich_help_panel=STAGES),
    ] = False,
    as_json: JsonOption = False,
) -> Answer:
    """Day one: learn everything, from logs to a live release and a report."""
    from pipelines.flows.day_one import run_day_one
    from pipelines.report.console import trim_console_table

    chosen, folder = configured(config, overrides, workdir)
    summary = run_day_one(
        chosen,
        folder,
        logs=logs,
        catalogue=catalogue,
        num_seeds=seeds,
        fresh=fresh,
        interval=span(start, end, chosen.dataset.time_zone),
        from_stage=from_stage,
        only=only,
        dry_run=dry_run,
    )
    if dry_run:
        return Answer(summary, "\n".join(preview_lines(summary)))
    if only not in (None, "report"):
        return Answer(summary, f"{only} of run {summary['run_id']} is done")
    return Answer(summary, f"\n{trim_console_table(summary)}\n\n{report_line(folder)}")


def preview_lines(preview: Mapping[str, Any]) -> list[str]:
    """Return what a dry run says: how far the run has come, what of its log has changed, and its stages as a table."""
    head = [preview["state"]]
    if preview["refusal"]:
        head = [f"would be refused: {preview['refusal']}"]
    elif preview["change"]:
        head.append(f"{preview['change']}: the run begins anew")
    return [*head, *plan_lines(preview["stages"])]


def plan_lines(stages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what a dry run says of each stage, as lines of a table.

    Args:
        stages: each with ``name``, ``action`` (run or skip), ``reason`` and ``job``.
    """
    return [f"{stage['action']:5} {stage['name']:15} {stage['reason']:21} job {stage['job']}" for stage in stages]


def refresh(
    config: ConfigOption,
    start: NeededStartOption,
    end: NeededEndOption,
    workdir: WorkdirOption = None,
    logs: LogsOption = None,
    catalogue: CatalogueOption = None,
    overrides: SetOption = None,
    only: OnlyOption = None,
    as_json: JsonOption = False,
) -> Answer:
    """Each day after: ingest [T0, T1), learn what is new, judge it, publish it."""
    from pipelines.flows.refresh import run_refresh
    from pipelines.stages.ingest.interval import Interval

    chosen, folder = configured(config, overrides, workdir)
    interval = Interval.parse(start, end, chosen.dataset.time_zone)
    done = run_refresh(chosen, folder, interval, logs=logs, catalogue=catalogue, only=only)
    if only is not None:
        return Answer(done, f"{only} of run {done['run_id']} is done")
    lines = [
        f"{done['release_id']} is {done['status']} (parent {done['parent_release']})",
        f"{done['data']['kept']} events kept, {done['items_moved']} items moved, {done['items_placed']} placed",
        *(f"{gate['gate']:18} {gate['text']}" for gate in done["gates"] or []),
        f"trends: {folder.rstrip('/')}/report/releases.html",
    ]
    return Answer(done, "\n".join(lines))
