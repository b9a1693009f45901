"""``dr init``: a configuration for a log that nobody has described yet."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from dr_core.errors import ConfigError
from pipelines.cli.answer import Answer
from pipelines.cli.options import JsonOption


def init(
    logs: Annotated[str, typer.Option("--logs", metavar="P", help="The log: a file, a folder, or a pattern with *.")],
    catalogue: Annotated[
        str | None, typer.Option("--catalogue", metavar="Q", help="The catalogue, if there is one.")
    ] = None,
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="The YAML file to write.")] = "my.yaml",
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    as_json: JsonOption = False,
) -> Answer:
    """Look at a log, write a configuration for it with comments, and say what could not be told."""
    file = Path(out)
    if file.exists() and not force:
        raise ConfigError(f"{file} is there already: name another file with --out, or write over it with --force")
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise ConfigError(f"--out {file}: name a file in a folder that is there")

    from pipelines.cli.commented_yaml import line_of, render
    from pipelines.cli.proposal import propose
    from pipelines.config.load import validate_config

    proposal = propose(logs, catalogue, _world_name(file.stem))
    facts = proposal.facts
    rows = f"{facts['rows']:,} rows" + ("" if facts["all_rows"] else ", the first ones")
    command = f"dr run --config {out} --logs {logs}" + (f" --catalogue {catalogue}" if catalogue else "")
    heading = [
        f"Proposed by `dr init` after a look at {rows} of {logs}.",
        f"Look through it, then: {command}",
        "K, D and all that is not here has a default that follows from the log's size: conf/template.yaml has the keys.",
    ]
    text, places = render(proposal, heading)
    validate_config(proposal.tree, out)
    file.write_text(text)
    unsure = [
        {"what": doubt.sentence, "setting": doubt.setting, "line": line_of(doubt.setting, places)}
        for doubt in proposal.unsure
    ]
    for doubt in unsure:
        place = f"{out}:{doubt['line']}, " if doubt["line"] else ""
        print(f"could not tell {doubt['what']}; {place}{doubt['setting']}", file=sys.stderr)
    said = [
        f"{out} is written: {facts['format']}, {rows},"
        f" {facts.get('users', 0):,} users, {facts.get('items', 0):,} items",
        *(["look at what could not be told, then:"] if unsure else ["next:"]),
        f"  {command}",
    ]
    return Answer({"config": out, "facts": facts, "proposal": proposal.tree, "unsure": unsure}, "\n".join(said))


def _world_name(stem: str) -> str:
    return re.sub(r"[^\w.-]", "_", stem, flags=re.ASCII).lstrip("._-") or "my"
