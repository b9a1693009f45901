"""The ``dr`` command. Results go to stdout (with ``--json`` exactly one JSON document), everything else to stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperCommand

from pipelines.cli.answer import Answer
from pipelines.cli.commands import experiments, learn, machine, measure, releases
from pipelines.cli.commands.init import init
from pipelines.cli.commands.quarantine import quarantine
from pipelines.cli.commands.retrieve import retrieve
from pipelines.cli.console import EXIT_CODES, explain, misused, results_only, start_logging
from pipelines.cli.progress import shown_progress

LEARN, MEASURE, USE, MACHINE = "Learn", "Measure", "Use", "This machine"


class Command(TyperCommand):
    """A command that keeps stdout for its answer and turns an error into one."""

    def invoke(self, context: Any) -> Answer:
        start_logging()
        with results_only(), shown_progress():
            try:
                answer: Answer = super().invoke(context)
            except (Exception, KeyboardInterrupt) as error:
                code = explain(context.command_path, error)
                answer = Answer({"error": str(error) or type(error).__name__, "exit_code": code}, exit_code=code)
        return answer


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``dr`` and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        done = typer.main.get_command(app)(arguments, prog_name="dr", standalone_mode=False)
    except typer.TyperException as error:
        message = misused("dr", error)
        done = Answer({"error": message, "exit_code": 2}, exit_code=2)
    if not isinstance(done, Answer):  # --help and completion print by themselves
        return int(done or 0)
    if "--json" in arguments:
        print(done.as_json())
    elif done.text:
        print(done.text)
    return done.exit_code


def _add(
    group: typer.Typer, panel: str | None, work: Callable[..., Answer], *examples: str, name: str | None = None
) -> None:
    epilog = "\n".join(["Examples:", *(f"  {example}" for example in examples), "", EXIT_CODES])
    group.command(name, cls=Command, rich_help_panel=panel, epilog=epilog)(work)


app = typer.Typer(
    name="dr",
    help="Deep Retrieval: learn a structure in which items can be found, and find them by a search over it.",
    epilog=f"A command's own --help shows its options and examples, as in dr run --help.\n\n{EXIT_CODES}",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_add(
    app,
    LEARN,
    init,
    "dr init --logs ratings.csv",
    "dr init --logs ratings.csv --catalogue films.csv --out films.yaml --force",
)
_add(
    app,
    LEARN,
    learn.run,
    "dr run --config conf/demo.yaml --workdir W",
    "dr run --config conf/movielens_1m.yaml --logs ratings.parquet --workdir W --seeds 3 --set paths.paths_per_item=2",
    "dr run --config conf/demo.yaml --workdir W --from assign_1 --dry-run",
)
_add(
    app,
    LEARN,
    learn.refresh,
    "dr refresh --config conf/gowalla.yaml --workdir W --start 2010-05-02 --end 2010-05-03 --logs day.parquet",
)
_add(app, MEASURE, measure.evaluate, "dr evaluate --workdir W", "dr evaluate --workdir W --release R")
_add(app, MEASURE, measure.report, "dr report --workdir W")
_add(
    app,
    MEASURE,
    experiments.compare,
    "dr compare --config conf/demo.yaml --workdir W --methods item_cf,two_tower_hnsw",
)
_add(app, MEASURE, experiments.sweep, "dr sweep --config conf/demo.yaml --workdir W --studies nodes,alpha")
_add(
    app,
    USE,
    retrieve,
    "dr retrieve --workdir W --history 1,2,3 -k 10 --explain",
    "dr retrieve --workdir W --users users.jsonl --out items.jsonl",
)
_add(
    app,
    LEARN,
    quarantine,
    "dr quarantine --workdir W",
    "dr quarantine --workdir W --reason unparsable_time -n 20",
)
_releases = typer.Typer(help="What is live, what was, back and forth.", epilog=EXIT_CODES)
_add(_releases, None, releases.list_all, "dr releases list --workdir W", name="list")
_add(_releases, None, releases.show, "dr releases show --workdir W", "dr releases show R --workdir W")
_add(_releases, None, releases.promote, "dr releases promote R --workdir W")
_add(_releases, None, releases.rollback, "dr releases rollback --workdir W")
app.add_typer(_releases, name="releases", rich_help_panel=USE)
_add(app, MACHINE, machine.doctor, "dr doctor", "dr doctor --config conf/cluster.yaml --items 100000000")


if __name__ == "__main__":
    sys.exit(main())
