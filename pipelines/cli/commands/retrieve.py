"""``dr retrieve``: what a release answers."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from dr_core.errors import ConfigError
from pipelines.cli.answer import Answer
from pipelines.cli.key_lists import FORMS, keys_of
from pipelines.cli.options import FolderOption, JsonOption, ReleaseOption

logger = logging.getLogger(__name__)
WHOSE = "Whose items"
WHICH = "Which items"


def retrieve(
    workdir: FolderOption,
    history: Annotated[
        list[str] | None,
        typer.Option(
            "--history",
            metavar="KEYS",
            help=f"Item keys as in the logs, oldest first. {FORMS}",
            rich_help_panel=WHOSE,
        ),
    ] = None,
    user: Annotated[
        list[str] | None,
        typer.Option(
            "--user",
            metavar="U",
            help="A user as in the logs, with the history that the work folder holds.",
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
            "--beam",
            min=1,
            metavar="B",
            help="Paths to visit (default: the release's price, or beam).",
            rich_help_panel=WHICH,
        ),
    ] = None,
    keep_history: Annotated[
        bool | None,
        typer.Option(
            "--keep-history/--filter-history",
            help="Whether items that the user has seen may be returned (default: as the release was configured).",
            rich_help_panel=WHICH,
        ),
    ] = None,
    block: Annotated[
        list[str] | None,
        typer.Option("--block", metavar="KEYS", help=f"Item keys never to return. {FORMS}", rich_help_panel=WHICH),
    ] = None,
    ignore_unknown_blocked: Annotated[
        bool,
        typer.Option(
            "--ignore-unknown-blocked",
            help="Go on when --block names keys that the release does not know.",
            rich_help_panel=WHICH,
        ),
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the paths visited and what lies on them; not with --users.")
    ] = False,
    release: ReleaseOption = None,
    as_json: JsonOption = False,
) -> Answer:
    """Items for one history, for a user of the log, or for many histories."""
    if sum(given is not None for given in (history or None, user or None, users)) != 1:
        raise ConfigError("name whose items are wanted: either --history KEYS or --user U or --users FILE")
    if users is None and out is not None:
        raise ConfigError("--out is where --users writes its answers; those of one user go to stdout")
    if users is not None and out is None:
        raise ConfigError("--users needs --out FILE for its answers")
    if users is not None and explain:
        raise ConfigError("--explain shows the paths of one history: use it with --history or --user")
    if user and (len(user) > 1 or not user[0].strip()):
        raise ConfigError("--user names one user; many are answered by the table recommendations, or from --users FILE")
    keys = keys_of("--history", history)
    if history and not keys:
        raise ConfigError("--history names no item: give item keys as in the logs")

    from pipelines.serving.request import Request

    blocked = keys_of("--block", block)
    request = Request(workdir, release, k, beam, keep_history, blocked, ignore_unknown_blocked)
    if users is not None and out is not None:
        totals = request.for_file(users, out)
        return Answer({**totals, "out": out}, f"{totals['users']} users written to {out}")
    found = request.for_user(user[0], explain=explain) if user else request.for_history(keys, explain=explain)
    if as_json and "note" in found.document:
        logger.warning(found.document["note"])
    return Answer(found.document, found.text)
