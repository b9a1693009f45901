"""``dr doctor``: whether this machine has what a run needs."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.answer import Answer
from pipelines.cli.options import JsonOption, SetOption


def doctor(
    config: Annotated[
        str | None,
        typer.Option(
            "--config", metavar="C", help="Also say how many paths and which alpha this configuration would start from."
        ),
    ] = None,
    items: Annotated[
        int | None, typer.Option("--items", min=1, metavar="V", help="Number of items to assume with --config.")
    ] = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> Answer:
    """Check Java, Spark, Delta, packages, disk, memory and cores; say how to mend what is wrong."""
    from pipelines.cli.doctor import examine

    checks = examine(config, items, overrides)
    lines = [
        f"{'ok ' if check.ok else 'BAD'}  {check.name:13} "
        + check.found.replace("\n", "\n" + " " * 19)
        + ("" if check.ok else f"  ->  {check.mend}")
        for check in checks
    ]
    healthy = all(check.ok for check in checks)
    return Answer([vars(check) for check in checks], "\n".join(lines), 0 if healthy else 2)
