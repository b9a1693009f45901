"""Which column of a log holds what, proposed from names and contents together.

A name alone decides nothing: a column is taken for what it is called only if its values can be that. What cannot be told is
said, with the setting that a person has to look at.
"""

from __future__ import annotations

import re

from pipelines.datasets.column_facts import ColumnFacts
from pipelines.datasets.column_guess import Guess, is_called
from pipelines.datasets.key_guess import ITEM_WORDS, USER_WORDS, guess_keys
from pipelines.datasets.sample import Sample

RATING_WORDS = ("rating", "rate", "stars", "star", "score", "overall", "grade")
FLAG_WORDS = (
    "label", "click", "clicked", "like", "liked", "purchased", "bought", "target", "positive", "converted", "watched", "follow", "known",
)  # fmt: skip
COUNT_WORDS = (
    "plays", "play", "count", "listens", "listen", "weight", "duration", "watch", "seconds", "hours", "quantity", "qty", "views", "freq",
)  # fmt: skip
TIME_WORDS = ("time", "timestamp", "ts", "date", "datetime", "day", "at", "created")
ORDER_WORDS = ("order", "position", "rank", "seq", "sequence", "index", "step", "idx")
EVENT_WORDS = ("event", "behavior", "behaviour", "action", "type", "activity", "kind")
USUAL_EVENTS = (
    "pv", "view", "click", "cart", "addtocart", "buy", "purchase", "transaction", "fav", "favorite", "play", "like", "share",
)  # fmt: skip


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
    guess_keys(guess, sample.rows)
    _guess_rating(guess)
    _guess_flag(guess)
    _guess_count(guess)
    _doubt_kinds(guess)
    _guess_order(guess)
    return guess


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
            guess.doubt(
                f"how the times in column {named[0]} are written ({words_seen})",
                f"dataset.columns.time: {named[0]}, with dataset.time_unit or dataset.time_format",
            )
        return
    chosen = ranked[0]
    guess.columns["time"] = chosen.name
    guess.time_unit, guess.time_format = chosen.moment or (None, None)
    others = [facts.name for facts in ranked[1:] if is_called(facts.name, TIME_WORDS)]
    if others:
        guess.doubt(
            f"which time counts: {chosen.name} is taken, {', '.join(others)} hold times too", "dataset.columns.time"
        )


def _guess_rating(guess: Guess) -> None:
    if "rating" in guess.columns:
        return
    scales = [facts for facts in guess.free if facts.is_small_number and not facts.is_flag]
    named = [facts for facts in scales if is_called(facts.name, RATING_WORDS)]
    if named:
        guess.columns["rating"] = named[0].name
        return
    few = [facts for facts in scales if 2 <= facts.distinct <= 21 and facts.high is not None and facts.high <= 10]
    if few and all(re.fullmatch(r"_\d+", name) for name in guess.facts):
        guess.columns["rating"] = few[0].name
        guess.doubt(
            f"whether column {few[0].name} ({few[0].span}) holds ratings: it is taken for them",
            "dataset.columns.rating",
        )


def _guess_flag(guess: Guess) -> None:
    flags = [facts for facts in guess.free if facts.is_flag]
    if not flags or {"rating", "label"} & set(guess.columns):
        return
    named = [facts for facts in flags if is_called(facts.name, (*FLAG_WORDS, *RATING_WORDS))]
    if named:
        guess.columns["label"] = named[0].name
        return
    guess.doubt(
        f"whether column {flags[0].name} (0 or 1) marks the rows to learn from: all rows are taken",
        f"dataset.columns.label: {flags[0].name}, with preprocess.positive: {{kind: flag, column: label}}",
    )


def _guess_count(guess: Guess) -> None:
    numbers = [facts for facts in guess.free if facts.low is not None and facts.low >= 0 and not facts.is_flag]
    named = [facts for facts in numbers if is_called(facts.name, COUNT_WORDS)]
    if named and "weight" not in guess.columns:
        guess.columns["weight"] = named[0].name


def _doubt_kinds(guess: Guess) -> None:
    for facts in guess.free:
        is_kind = facts.low is None and 2 <= facts.distinct <= 20 and facts.filled > 50
        if is_kind and (is_called(facts.name, EVENT_WORDS) or _are_events(facts.words)):
            guess.doubt(
                f"which kinds of event in column {facts.name} ({', '.join(sorted(facts.words)[:8])}) are positives: all rows"
                " are taken",
                "the log itself: keep only the rows of the kinds that count",
            )
            return


def _guess_order(guess: Guess) -> None:
    if "time" in guess.columns or "order" in guess.columns:
        return
    named = [facts for facts in guess.free if facts.is_whole and is_called(facts.name, ORDER_WORDS)]
    if named:
        guess.columns["order"] = max(named, key=lambda facts: facts.distinct).name
        return
    guess.doubt(
        "when or in which order events happened: the rows are taken as they stand in the file",
        "dataset.columns.time or dataset.columns.order",
    )


def _are_events(words: tuple[str, ...]) -> bool:
    return len({word.lower().replace("_", "") for word in words} & set(USUAL_EVENTS)) >= 2
