"""``dr retrieve``: what a release answers."""

from __future__ import annotations

from typing import Annotated

import typer

from dr_core.errors import ConfigError
from pipelines.cli.answer import Answer
from pipelines.cli.options import FolderOption, JsonOption, ReleaseOption, words

WHOSE = "Whose items"
WHICH = "Which items"


def retrieve(
    workdir: FolderOption,
    history: Annotated[
        str | None,
        typer.Option(
            "--history",
            metavar="KEYS",
            help="Item keys as in the logs, oldest first, separated by commas.",
            rich_help_panel=WHOSE,
        ),
    ] = None,
    users: Annotated[
        str | None,
        typer.Option(
            "--users",
            metavar="FILE",
            help="JSON lines, each with a 'user' and a 'history' (list of item keys).",
            rich_help_panel=WHOSE,
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="FILE", help="Where --users writes its JSON lines.", rich_help_panel=WHOSE),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, metavar="K", help="Items to return.", rich_help_panel=WHICH)] = 10,
    beam: Annotated[
        int | None,
        typer.Option(
            "--beam", min=1, metavar="B", help="Paths to visit (default: the release's).", rich_help_panel=WHICH
        ),
    ] = None,
    keep_history: Annotated[
        bool, typer.Option("--keep-history", help="Items of the history may be returned.", rich_help_panel=WHICH)
    ] = False,
    block: Annotated[
        str,
        typer.Option(
            "--block", metavar="KEYS", help="Item keys never to return, separated by commas.", rich_help_panel=WHICH
        ),
    ] = "",
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the paths visited and what lies on them; with --history.")
    ] = False,
    release: ReleaseOption = None,
    as_json: JsonOption = False,
) -> Answer:
    """Items for one history, or for many users."""
    if (history is None) == (users is None):
        raise ConfigError("name whose items are wanted: either --history KEYS or --users FILE")
    if users is None and out is not None:
        raise ConfigError("--out is where --users writes its answers; those of --history go to stdout")
    if users is not None and out is None:
        raise ConfigError("--users needs --out FILE for its answers")
    if users is not None and explain:
        raise ConfigError("--explain shows the paths of one history: use it with --history")

    from pipelines.serving.service import retrieve_history, retrieve_users

    blocked = words(block)
    if users is not None and out is not None:
        count = retrieve_users(
            workdir, users, out, k=k, beam=beam, release_id=release, keep_history=keep_history, blocked=blocked
        )
        return Answer({"users": count, "out": out}, f"{count} users written to {out}")
    found = retrieve_history(
        workdir,
        words(history),
        k=k,
        beam=beam,
        release_id=release,
        keep_history=keep_history,
        blocked=blocked,
        explain=explain,
    )
    return Answer(found.document, found.text)
