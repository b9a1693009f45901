"""What a work folder knows of its users, read without a JVM."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dr_core.errors import InputError
from pipelines.serving.given_keys import spellings
from pipelines.storage.delta_reader import read_columns, read_rows
from pipelines.storage.files import Files


@dataclass(frozen=True)
class KnownUser:
    """A user of the log."""

    name: str
    """As the tables have it."""
    history: list[int]
    """Ids of the last items, oldest first."""
    seen: list[int]
    """Distinct ids of the items with a kept event."""
    seen_keys: list[str]
    """Distinct keys of the items in rows that were not kept."""


def read_known_users(folder: Files, users: Sequence[str]) -> list[KnownUser]:
    """Return what the tables hold of some users, in their order.

    Raises:
        InputError: a user has no kept event, or a table is missing or cannot be read.
    """
    asked = sorted({name for user in users for name in spellings(user)})
    where = f'WHERE "user" IN ({", ".join(map(_quoted, asked))})'
    histories = read_columns(folder.path("tables", "user_histories"), ['"user"', "item_ids"], where).to_pylist()
    kept = read_columns(folder.path("tables", "interactions"), ['"user"', "item_id"], where).to_pylist()
    others = read_rows(folder.path("tables", "seen_items"), where)
    history_of = {row["user"]: row["item_ids"] for row in histories}
    found = []
    for user in users:
        name = next((name for name in spellings(user) if name in history_of), None)
        if name is None:
            is_seen = {row["user"] for row in others} & set(spellings(user))
            why = "none of that user's rows in the log was kept" if is_seen else "the log has no row of that user"
            raise InputError(f"user {user!r} has no history in {folder.uri}: {why}; --history takes item keys instead")
        seen = sorted({row["item_id"] for row in kept if row["user"] == name})
        seen_keys = sorted({row["item_key"] for row in others if row["user"] == name})
        found.append(KnownUser(name, history_of[name], seen, seen_keys))
    return found


def read_item_keys(folder: Files, item_ids: Iterable[int]) -> dict[int, str]:
    """Return the keys of some items, by id."""
    wanted = ", ".join(map(str, sorted(set(item_ids))))
    rows = read_columns(folder.path("tables", "items"), ["item_id", "item_key"], f"WHERE item_id IN ({wanted})")
    return {row["item_id"]: row["item_key"] for row in rows.to_pylist()}


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
