"""What all jobs share: options, one JSON line, the last on stdout, and the exit code.

Under spark-submit, Spark joins a program's stderr to its stdout: read the last line.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from dr_core.errors import ConfigError
from pipelines.cli.console import EXIT_CODES, explain, misused, results_only, start_logging
from pipelines.cli.options import (
    CatalogueOption,
    ConfigOption,
    EndOption,
    LogsOption,
    NeededWorkdirOption,
    RunIdOption,
    SeedOption,
    SetOption,
    StartOption,
    configured,
    span,
)
from pipelines.flows import plan
from pipelines.storage.json_text import to_json

Figures = dict[str, Any]
RoundsOption = Annotated[
    int | None,
    typer.Option("--rounds", metavar="N", help="EM rounds the caller has planned for; refused when em.rounds differs."),
]
RoundOption = Annotated[
    str, typer.Option("--round", metavar="t", help="EM round, 1 … em.rounds; of train_model also warm_up or final.")
]


class Job:
    """A program ``jobs/<name>.py``.

    Args:
        name: of the job.
        work: does it. Its parameters are the job's options, after the command's context; ``context.obj`` is the JSON line
            as far as it is known when the work fails, and what the work returns is added to it.
        description: for ``--help``.
    """

    def __init__(self, name: str, work: Callable[..., Figures], description: str | None) -> None:
        app = typer.Typer(
            add_completion=False,
            pretty_exceptions_enable=False,
            context_settings={"help_option_names": ["-h", "--help"]},
        )
        app.command(name, help=description, epilog=EXIT_CODES)(work)
        self.name, self.command = name, typer.main.get_command(app)

    def parse(self, argv: Sequence[str], line: Figures) -> Any:
        """Read the arguments and return the command's context, whose ``params`` they are.

        Raises:
            typer.TyperException: they are wrong.
            typer.Exit: ``--help`` was among them.
        """
        return self.command.make_context(self.name, list(argv), obj=line)

    def __call__(self, argv: Sequence[str] | None = None) -> int:
        """Do the job, print the JSON line and return the exit code.

        Args:
            argv: the arguments; None for the process' own.
        """
        started = time.monotonic()
        line: Figures = {"job": self.name, "run_id": None, "stage": None, "exit_code": 0}
        start_logging()
        try:
            context = self.parse(sys.argv[1:] if argv is None else argv, line)
        except typer.Exit as ended:
            return int(ended.exit_code)
        except typer.TyperException as error:
            line |= {"exit_code": ConfigError.exit_code, "error": misused(self.name, error)}
        else:
            with results_only():
                try:
                    line |= self.command.invoke(context)
                except (Exception, KeyboardInterrupt) as error:
                    line["exit_code"] = explain(self.name, error)
                    line["error"] = str(error) or type(error).__name__
        line["seconds"] = round(time.monotonic() - started, 3)
        print(to_json(line), flush=True)
        return int(line["exit_code"])


def stage_job(name: str, description: str | None) -> Job:
    """Return the job that does one stage of day one, or the stages that belong together.

    Args:
        name: as in ``pipelines.flows.plan``.
        description: for ``--help``.
    """

    def work(
        context: typer.Context,
        config: ConfigOption,
        workdir: NeededWorkdirOption,
        number: RoundOption,
        logs: LogsOption = None,
        catalogue: CatalogueOption = None,
        overrides: SetOption = None,
        seed: SeedOption = None,
        start: StartOption = None,
        end: EndOption = None,
        run_id: RunIdOption = None,
        rounds: RoundsOption = None,
    ) -> Figures:
        from pipelines.flows.day_one import Source, run_identity
        from pipelines.flows.stage_job import job_key, run_job

        line: Figures = context.obj
        line["run_id"] = run_id
        with refusals_recorded(job_key(name, number), workdir, run_id):
            seeds = [] if seed is None else [f"seed={seed}"]
            chosen, folder = configured(config, [*(overrides or []), *seeds], workdir)
            source = Source(logs, catalogue, span(start, end, chosen.dataset.time_zone))
        line["run_id"] = run_id = run_id or run_identity(chosen, source, chosen.seed)
        own = (stage for stage in plan.day_one(chosen.em.rounds) if stage.job == name)
        line["stage"] = next((stage.name for stage in own if number in (None, str(stage.round))), None)
        line |= {"rows_in": None, "rows_out": None}
        found = run_job(name, chosen, folder, source, number=number, run_id=run_id, rounds=rounds)
        return {key: value for key, value in found.items() if isinstance(value, str | int | float | None)}

    job = Job(name, work, description)
    if all(stage.round is None for stage in plan.day_one(1) if stage.job == name):
        job.command.params = [option for option in job.command.params if option.name != "number"]
    return job


@contextmanager
def refusals_recorded(key: str, workdir: str, run_id: str | None) -> Iterator[None]:
    """Leave a wrong configuration as a job's verdict in its record, for whoever cannot read the exit code.

    Args:
        key: of the verdict.
        workdir, run_id: of the record; without an id there is none.
    """
    try:
        yield
    except ConfigError as error:
        if run_id is not None:
            from pipelines.flows.stage_job import record_refusal

            record_refusal(key, workdir, run_id, error)
        raise
