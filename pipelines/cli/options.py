"""The options that several commands share, each defined once, and what is made of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dr_core.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.config.run import RunConfig
    from pipelines.stages.ingest.interval import Interval

DATA = "Data"
STAGES = "Stages"
OUTPUT = "Output"

ConfigOption = Annotated[
    str, typer.Option("--config", metavar="C", help="YAML file of the run; conf/ holds one for every world.")
]
WorkdirOption = Annotated[
    str | None, typer.Option("--workdir", metavar="W", help="Work folder, a path or URI (default: var/runs/NAME).")
]
"""Of commands with a configuration, whose name the default follows."""
FolderOption = Annotated[
    str, typer.Option("--workdir", metavar="W", help="Work folder of an earlier run, a path or URI.")
]
NeededWorkdirOption = Annotated[str, typer.Option("--workdir", metavar="W", help="Work folder, a path or URI.")]
"""Of jobs."""
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=V", help="Override one key of the configuration; may be repeated."),
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", metavar="N", help="Root of all randomness, in place of the configured one.")
]


def _run_id(text: str | None) -> str | None:
    from pipelines.storage.run_record import NAME

    if text is not None and not re.fullmatch(NAME, text):
        raise typer.BadParameter(f"{text}: letters, digits, '.', '_' and '-' are allowed, the first a letter or digit")
    return text


RunIdOption = Annotated[
    str | None,
    typer.Option(
        "--run-id",
        metavar="R",
        callback=_run_id,
        help="Name of the run's record, runs/R.json (default: follows from the other options).",
    ),
]
"""Of jobs. Those on a whole work folder keep no record without it."""
LogsOption = Annotated[
    str | None,
    typer.Option("--logs", metavar="P", help="The logs, in place of dataset.path.", rich_help_panel=DATA),
]
CatalogueOption = Annotated[
    str | None,
    typer.Option(
        "--catalogue", metavar="P", help="The catalogue, in place of dataset.catalogue.", rich_help_panel=DATA
    ),
]
START_HELP = "First moment of the interval: an ISO date or moment (UTC)."
END_HELP = "End of the interval, not part of it."
StartOption = Annotated[
    str | None, typer.Option("--start", metavar="T0", help=f"{START_HELP} Default: all events.", rich_help_panel=DATA)
]
EndOption = Annotated[str | None, typer.Option("--end", metavar="T1", help=END_HELP, rich_help_panel=DATA)]
NeededStartOption = Annotated[str, typer.Option("--start", metavar="T0", help=START_HELP, rich_help_panel=DATA)]
NeededEndOption = Annotated[str, typer.Option("--end", metavar="T1", help=END_HELP, rich_help_panel=DATA)]
SeedsOption = Annotated[
    int, typer.Option("--seeds", min=1, metavar="N", help="Repeat with N seeds; the first one's release goes live.")
]
FreshOption = Annotated[bool, typer.Option("--fresh", help="Start anew, in the place of what the work folder holds.")]
OnlyOption = Annotated[
    str | None,
    typer.Option("--only", metavar="STAGE", help="Do this stage alone, again.", rich_help_panel=STAGES),
]
ReleaseOption = Annotated[str | None, typer.Option("--release", metavar="R", help="A release other than the live one.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.", rich_help_panel=OUTPUT)]
"""Every command takes it; :func:`pipelines.cli.main.main` prints accordingly."""


def configured(config_file: str, overrides: list[str] | None, workdir: str | None) -> tuple[RunConfig, str]:
    """Return the configuration with its overrides, and the work folder to use with it.

    Raises:
        ConfigError: the file is missing, or a key or value is wrong.
    """
    from pipelines.config.load import load_config

    config = load_config(config_file, overrides)
    return config, workdir or str(Path("var") / "runs" / config.name)


def span(start: str | None, end: str | None, zone: str) -> Interval | None:
    """Return the interval from ``start`` to ``end``, moments without an offset as of ``zone``; None without both.

    Raises:
        ConfigError: only one is given, or one is no moment.
    """
    from pipelines.stages.ingest.interval import Interval

    if start is None and end is None:
        return None
    if start is None or end is None:
        raise ConfigError("--start and --end belong together")
    return Interval.parse(start, end, zone)


def words(text: str | None) -> list[str]:
    """Return the words of a list that is separated by commas."""
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def report_line(workdir: str) -> str:
    """Return where the report lies, as a line for people."""
    return f"report: {workdir.rstrip('/')}/report/index.html"
