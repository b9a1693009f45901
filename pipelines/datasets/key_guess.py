"""Which columns hold users and items, proposed from names and contents together."""

from __future__ import annotations

import pandas as pd

from pipelines.datasets.column_facts import ColumnFacts
from pipelines.datasets.column_guess import Guess, is_called

USER_WORDS = (
    "user", "uid", "customer", "client", "member", "visitor", "reviewer", "viewer", "listener", "session", "account", "buyer",
    "player", "person", "profile", "subscriber", "household", "cookie", "device", "reader",
)  # fmt: skip
ITEM_WORDS = (
    "item", "iid", "product", "movie", "film", "asin", "isbn", "sku", "song", "track", "artist", "album", "video", "article",
    "book", "business", "poi", "venue", "location", "place", "game", "app", "content", "listing", "recipe", "news", "show",
    "anime", "course", "ad", "good", "stock", "title",
)  # fmt: skip
ID_WORDS = ("id", "key", "code", "asin")
WORDS = {"user": (USER_WORDS, ITEM_WORDS), "item": (ITEM_WORDS, USER_WORDS)}
"""By role: its own words, and those of the other."""
FEW_VALUES = 12
"""A column without a telling name has more distinct values if it holds ids."""


def guess_keys(guess: Guess, rows: pd.DataFrame) -> None:
    """Add the columns of users and items to a guess: by their names where the contents agree, else by contents alone."""
    missing = [role for role in WORDS if role not in guess.columns]
    for role in missing:
        _take_named(guess, role, rows)
    missing = [role for role in WORDS if role not in guess.columns]
    if not missing:
        return
    left = _unnamed(guess, rows)
    if len(missing) == 2 and len(left) >= 2:
        _take_two(guess, left)
    elif len(missing) == 1 and left:
        taken = left[0]
        guess.columns[missing[0]] = taken.name
        guess.doubt(
            f"which column is the {missing[0]}: {taken.name} is taken ({taken.distinct:,} distinct)",
            f"dataset.columns.{missing[0]}",
        )
    else:
        for role in missing:
            _doubt_missing(guess, role)


def _take_named(guess: Guess, role: str, rows: pd.DataFrame) -> None:
    """Take the column that is called like a role and can be it; one that is called an id before others."""
    own, other = WORDS[role]
    named = [facts for facts in guess.free if facts.may_be_key and is_called(facts.name, own)]
    named.sort(key=lambda facts: (is_called(facts.name, other), not is_called(facts.name, ID_WORDS), -facts.distinct))
    if not named:
        return
    taken = named[0]
    guess.columns[role] = taken.name
    others = [
        facts.name
        for facts in named[1:]
        if facts.distinct != taken.distinct and not _describes(rows, taken.name, facts.name)
    ]
    if others:
        guess.doubt(
            f"which column is the {role}: {taken.name} is taken, {', '.join(others)} could be meant too",
            f"dataset.columns.{role}",
        )


def _unnamed(guess: Guess, rows: pd.DataFrame) -> list[ColumnFacts]:
    """Return the columns without a role that can hold ids, most distinct first; none that describes another column."""
    free = [facts for facts in guess.free if facts.may_be_key and facts.distinct > FEW_VALUES]
    keys = [*free, *(facts for role in WORDS if (facts := guess.of(role)))]
    kept = [
        facts for facts in free if not any(_describes(rows, key.name, facts.name) for key in keys if key is not facts)
    ]
    return sorted(kept, key=lambda facts: -facts.distinct)


def _take_two(guess: Guess, left: list[ColumnFacts]) -> None:
    """Take one of two columns for the user: the one whose rows stand together, else the first in the file."""
    first, second = sorted(left[:2], key=lambda facts: facts.position)
    grouped = [facts for facts in (first, second) if facts.is_grouped]
    user = grouped[0] if len(grouped) == 1 else first
    why = "neither names nor contents tell"
    if len(grouped) == 1:
        why = f"rows of one value of {user.name} stand together, as a user's do"
    guess.columns |= {"user": user.name, "item": (second if user is first else first).name}
    guess.doubt(
        f"which of {first.name} ({first.distinct:,} distinct) and {second.name} ({second.distinct:,} distinct) is the user:"
        f" {user.name} is taken ({why})",
        "dataset.columns.user and dataset.columns.item",
    )


def _doubt_missing(guess: Guess, role: str) -> None:
    named = [facts for facts in guess.free if facts.why_no_key and is_called(facts.name, WORDS[role][0])]
    why = f": {named[0].name} can be none, {named[0].why_no_key}" if named else ""
    guess.doubt(f"which column is the {role}{why}", f"dataset.columns.{role}")


def _describes(rows: pd.DataFrame, key: str, name: str) -> bool:
    """Tell whether a column says something of a key: each key has one value here, and several share it."""
    pairs = rows[[key, name]].dropna().drop_duplicates()
    num_keys, num_values = pairs[key].nunique(), pairs[name].nunique()
    return num_values < num_keys and len(pairs) <= 1.02 * num_keys
