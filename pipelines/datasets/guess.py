"""Which column of a log holds what, proposed from names and contents together.

A name alone decides nothing: a column is taken for what it is called only if its values can be that. What cannot be told is
said, with the setting that a person has to look at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd

from pipelines.datasets.column_facts import ColumnFacts
from pipelines.datasets.sample import Sample

USER_WORDS = (
    "user", "uid", "customer", "client", "member", "visitor", "reviewer", "viewer", "listener", "session", "account", "buyer",
    "player", "person", "profile", "subscriber", "household", "cookie", "device", "reader", "author",
)  # fmt: skip
ITEM_WORDS = (
    "item", "iid", "product", "movie", "film", "asin", "isbn", "sku", "song", "track", "artist", "album", "video", "article",
    "book", "business", "poi", "venue", "location", "place", "game", "app", "content", "listing", "recipe", "news", "show",
    "anime", "course", "ad", "good", "stock", "title",
)  # fmt: skip
RATING_WORDS = ("rating", "rate", "stars", "star", "score", "overall", "grade")
FLAG_WORDS = (
    "label",
    "click",
    "clicked",
    "like",
    "liked",
    "purchased",
    "bought",
    "target",
    "positive",
    "converted",
    "watched",
    "follow",
    "known",
)
COUNT_WORDS = (
    "plays", "play", "count", "listens", "listen", "weight", "duration", "watch", "seconds", "hours", "quantity", "qty", "views", "freq",
)  # fmt: skip
TIME_WORDS = ("time", "timestamp", "ts", "date", "datetime", "day", "at", "created")
ORDER_WORDS = ("order", "position", "rank", "seq", "sequence", "index", "step", "idx")
EVENT_WORDS = ("event", "behavior", "behaviour", "action", "type", "activity", "kind")


class Unsure(NamedTuple):
    """What could not be told: a sentence, and the setting that says it."""

    sentence: str
    setting: str


@dataclass
class Guess:
    """A proposal for :class:`pipelines.datasets.rawframe.LogColumns` and what goes with it.

    Attributes:
        columns: name of the column by role: user, item, time, order, rating, label, weight.
        facts: of all columns, by name.
        time_unit: of the time; ``timestamp`` for ISO text and columns that hold moments.
        time_format: pattern of times that are neither a number since 1970 nor ISO text.
        unsure: what a person should look at.
    """

    facts: dict[str, ColumnFacts]
    columns: dict[str, str] = field(default_factory=dict)
    time_unit: str | None = None
    time_format: str | None = None
    unsure: list[Unsure] = field(default_factory=list)

    def of(self, role: str) -> ColumnFacts | None:
        """Return the facts of the column that has a role."""
        name = self.columns.get(role)
        return None if name is None else self.facts[name]

    @property
    def free(self) -> list[ColumnFacts]:
        """The columns that have no role."""
        return [facts for facts in self.facts.values() if facts.name not in self.columns.values()]


def guess_columns(sample: Sample, known: dict[str, str] | None = None) -> Guess:
    """Propose what the columns of a sample hold.

    Args:
        sample: of the log.
        known: columns by role that need no guess.
    """
    guess = Guess(
        {
            str(name): ColumnFacts.of(sample.rows[name], position, sample.types.get(str(name)))
            for position, name in enumerate(sample.rows.columns)
        }
    )
    if known:
        guess.columns |= {role: name for role, name in known.items() if name in guess.facts}
    _guess_time(guess)
    _guess_keys(guess, sample.rows)
    _guess_measures(guess)
    _guess_order(guess)
    return guess


def is_called(name: str, words: tuple[str, ...]) -> bool:
    """Tell whether one of the words that a column's name consists of is among some words."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    lowered = [part.lower() for part in parts]
    return any(part in words or part.removesuffix("id") in words or part.removesuffix("s") in words for part in lowered)


def _guess_time(guess: Guess) -> None:
    moments = [facts for facts in guess.facts.values() if facts.moment is not None]
    if "time" in guess.columns:
        moments = [facts for facts in moments if facts.name == guess.columns["time"]]
    keys = (*USER_WORDS, *ITEM_WORDS)
    moments = [facts for facts in moments if is_called(facts.name, TIME_WORDS) or not is_called(facts.name, keys)]
    ranked = sorted(
        moments,
        key=lambda facts: (
            not is_called(facts.name, TIME_WORDS),
            is_called(facts.name, keys),
            -facts.distinct,
        ),
    )
    if not ranked:
        named = [facts.name for facts in guess.free if is_called(facts.name, TIME_WORDS) and not facts.is_small_number]
        if named:
            words_seen = ", ".join(guess.facts[named[0]].words[:2])
            guess.unsure.append(
                Unsure(
                    f"how the times in column {named[0]} are written ({words_seen})",
                    f"dataset.columns.time: {named[0]}, with dataset.time_unit or dataset.time_format",
                )
            )
        return
    chosen = ranked[0]
    guess.columns["time"] = chosen.name
    guess.time_unit, guess.time_format = chosen.moment or (None, None)
    others = [facts.name for facts in ranked[1:] if is_called(facts.name, TIME_WORDS)]
    if others:
        guess.unsure.append(
            Unsure(
                f"which time counts: {chosen.name} is taken, {', '.join(others)} hold times too", "dataset.columns.time"
            )
        )


def _guess_keys(guess: Guess, rows: pd.DataFrame) -> None:
    candidates = [facts for facts in guess.free if facts.may_be_key]
    chosen: dict[str, ColumnFacts] = {role: facts for role in ("user", "item") if (facts := guess.of(role))}
    for role, words, others in (("user", USER_WORDS, ITEM_WORDS), ("item", ITEM_WORDS, USER_WORDS)):
        if role in chosen:
            continue
        named = [facts for facts in candidates if is_called(facts.name, words) and facts not in chosen.values()]
        named.sort(
            key=lambda facts: (
                is_called(facts.name, others),
                not is_called(facts.name, ("id", "key", "code", "asin")),
                -facts.distinct,
            )
        )
        if named:
            chosen[role] = named[0]
            same = [
                facts.name
                for facts in named[1:]
                if facts.distinct != named[0].distinct and not _depends(rows, named[0].name, facts.name)
            ]
            if same:
                guess.unsure.append(
                    Unsure(
                        f"which column is the {role}: {named[0].name} is taken, {', '.join(same)} could be meant too",
                        f"dataset.columns.{role}",
                    )
                )
        refused = [
            facts
            for facts in guess.free
            if is_called(facts.name, words) and not facts.may_be_key and facts.name not in guess.columns.values()
        ]
        if role not in chosen and refused:
            guess.unsure.append(
                Unsure(
                    f"which column is the {role}: {refused[0].name} can be none, {refused[0].why_no_key}",
                    f"dataset.columns.{role}",
                )
            )
    left = [facts for facts in candidates if facts not in chosen.values()]
    left = [
        facts
        for facts in left
        if not any(_depends(rows, other.name, facts.name) for other in (*chosen.values(), *left) if other is not facts)
    ]
    missing = [role for role in ("user", "item") if role not in chosen]
    if len(missing) == 2 and len(left) >= 2:
        first, second = sorted(left, key=lambda facts: -facts.distinct)[:2] if len(left) > 2 else left
        first, second = sorted((first, second), key=lambda facts: facts.position)
        grouped = [facts for facts in (first, second) if facts.is_grouped]
        user = grouped[0] if len(grouped) == 1 else first
        item = second if user is first else first
        chosen |= {"user": user, "item": item}
        why = (
            f"rows of one value of {user.name} stand together, as a user's do"
            if len(grouped) == 1
            else "neither names nor contents tell"
        )
        guess.unsure.append(
            Unsure(
                f"which of {first.name} ({first.distinct:,} distinct) and {second.name} ({second.distinct:,} distinct) is the user:"
                f" {user.name} is taken ({why})",
                "dataset.columns.user and dataset.columns.item",
            )
        )
    elif len(missing) == 1 and left:
        taken = max(left, key=lambda facts: facts.distinct)
        chosen[missing[0]] = taken
        guess.unsure.append(
            Unsure(
                f"which column is the {missing[0]}: {taken.name} is taken ({taken.distinct:,} distinct)",
                f"dataset.columns.{missing[0]}",
            )
        )
    for role in ("user", "item"):
        if role in chosen:
            guess.columns[role] = chosen[role].name
        elif not any(unsure.setting == f"dataset.columns.{role}" for unsure in guess.unsure):
            guess.unsure.append(Unsure(f"which column is the {role}", f"dataset.columns.{role}"))


def _guess_measures(guess: Guess) -> None:
    free = [facts for facts in guess.free if facts.low is not None]
    is_named = not all(re.fullmatch(r"_\d+", name) for name in guess.facts)
    if "rating" not in guess.columns:
        named = [
            facts
            for facts in free
            if is_called(facts.name, RATING_WORDS) and facts.is_small_number and not facts.is_flag
        ]
        unnamed = [] if is_named else [facts for facts in free if facts.is_small_number and not facts.is_flag]
        if named or unnamed:
            rating = (named or unnamed)[0]
            guess.columns["rating"] = rating.name
            if not named:
                guess.unsure.append(
                    Unsure(
                        f"whether column {rating.name} ({rating.span}) holds ratings: it is taken for them",
                        "dataset.columns.rating",
                    )
                )
    flags = [
        facts
        for facts in free
        if facts.is_flag
        and is_called(facts.name, (*FLAG_WORDS, *RATING_WORDS))
        and facts.name not in guess.columns.values()
    ]
    if flags and "rating" not in guess.columns:
        guess.columns["label"] = flags[0].name
    flag_left = [facts.name for facts in guess.free if facts.is_flag]
    if "label" not in guess.columns and "rating" not in guess.columns and flag_left:
        guess.unsure.append(
            Unsure(
                f"whether column {flag_left[0]} (0 or 1) marks the rows to learn from: all rows are taken",
                f"dataset.columns.label: {flag_left[0]}, with preprocess.positive: {{kind: flag, column: label}}",
            )
        )
    counts = [
        facts for facts in guess.free
        if facts.low is not None and facts.low >= 0 and not facts.is_flag and is_called(facts.name, COUNT_WORDS)
    ]  # fmt: skip
    if counts and "weight" not in guess.columns:
        guess.columns["weight"] = counts[0].name
    kinds = [facts for facts in guess.free if facts.low is None and 2 <= facts.distinct <= 20 and facts.filled > 50]
    kinds = [facts for facts in kinds if is_called(facts.name, EVENT_WORDS) or _are_events(facts.words)]
    if kinds:
        guess.unsure.append(
            Unsure(
                f"which kinds of event in column {kinds[0].name} ({', '.join(sorted(kinds[0].words)[:8])}) are positives: all rows are taken",
                "the log itself: keep only the rows of the kinds that count",
            )
        )


def _guess_order(guess: Guess) -> None:
    if "time" in guess.columns or "order" in guess.columns:
        return
    named = [facts for facts in guess.free if facts.is_whole and is_called(facts.name, ORDER_WORDS)]
    if named:
        guess.columns["order"] = max(named, key=lambda facts: facts.distinct).name
        return
    guess.unsure.append(
        Unsure(
            "when or in which order events happened: the rows are taken as they stand in the file",
            "dataset.columns.time or dataset.columns.order",
        )
    )


def _are_events(words: tuple[str, ...]) -> bool:
    usual = {
        "pv",
        "view",
        "click",
        "cart",
        "addtocart",
        "buy",
        "purchase",
        "transaction",
        "fav",
        "favorite",
        "play",
        "like",
        "share",
    }
    return len({word.lower().replace("_", "") for word in words} & usual) >= 2


def _depends(rows: pd.DataFrame, key: str, name: str) -> bool:
    """Tell whether a column says something of another's values: each of those has one value here, and several share it."""
    pairs = rows[[key, name]].dropna().drop_duplicates()
    num_keys, num_values = pairs[key].nunique(), pairs[name].nunique()
    return num_values < num_keys and len(pairs) <= 1.02 * num_keys
