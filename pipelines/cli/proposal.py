"""A configuration proposed for a log: what ``dr init`` writes, with a comment beside each choice."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from pipelines.datasets.column_facts import YEARS
from pipelines.datasets.column_guess import Guess, Unsure, is_called
from pipelines.datasets.guess import guess_columns
from pipelines.datasets.look import Look, look
from pipelines.datasets.paths import find_source
from pipelines.datasets.sample import Sample, read_sample
from pipelines.datasets.text import SPELLINGS

ROLES = ("user", "item", "time", "order", "rating", "label", "weight")
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1
"""Of the users with enough events, at most."""
MOST_TEST, MOST_VALIDATION = 600, 200
ENOUGH_USERS = 100
USUAL_ENCODING = "cp1252"
"""Of text that is not UTF-8: Western European, a superset of Latin-1's letters."""
MANY_DAYS, MANY_YEARS = 400, 20
MANY_DUPLICATES, MANY_REPEATS = 0.02, 0.2
LEAST_OVERLAP = 0.5
"""Share of the log's items that a catalogue's column must know to be taken for its ids."""
DETAILS = {
    "title": ("title", "name"),
    "category": ("category", "categories", "genre", "genres", "topic", "department"),
    "creator": ("creator", "brand", "artist", "author", "director", "store", "channel", "seller"),
    "active": ("active", "available"),
}


@dataclass
class Proposal:
    """A configuration and why.

    Attributes:
        tree: the configuration, as YAML's keys and values.
        notes: a comment by key (``split.num_test``).
        unsure: what a person should look at.
        facts: figures of the log for people: rows, users, items.
    """

    tree: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    unsure: list[Unsure] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def set(self, key: str, value: Any, note: str = "") -> None:
        """Set a key of the tree, with a comment."""
        *sections, leaf = key.split(".")
        tree = self.tree
        for section in sections:
            tree = tree.setdefault(section, {})
        tree[leaf] = value
        self.notes[key] = note


def propose(logs: str, catalogue: str | None, name: str) -> Proposal:
    """Look at a log, and a catalogue if there is one, and propose a configuration.

    Raises:
        InputError: the log or the catalogue cannot be looked at.
    """
    path = ratings_in(logs)
    found = look(path)
    if not found.is_valid_text:
        found = look(path, encoding=USUAL_ENCODING)
    sample = read_sample(found)
    known = found.preset.columns.model_dump(exclude_none=True) if found.preset else {}
    guess = guess_columns(sample, known)
    proposal = Proposal(unsure=guess.unsure)
    proposal.set("name", name, "of the report, and of the work folder var/runs/<name>")
    _read(proposal, found, guess)
    _name_columns(proposal, found, guess)
    _choose_positives(proposal, guess)
    events = _events(proposal, guess, sample.rows)
    _keep_duplicates(proposal, sample.rows)
    _cut_partitions(proposal, guess, events)
    _hold_out(proposal, events, sample)
    if catalogue is not None:
        _map_catalogue(proposal, look(catalogue, "catalogue"), events)
    proposal.facts = {
        "format": found.format,
        "rows": len(sample.rows),
        "all_rows": sample.is_whole,
        **{f"{role}s": facts.distinct for role in ("user", "item") if (facts := guess.of(role))},
    }
    return proposal


def ratings_in(logs: str) -> str:
    """Return the ratings file of a folder that holds MovieLens' files, else the path as it is."""
    source = find_source(logs, "log")
    named = [file.uri for file in source.files if file.name in ("ratings.csv", "ratings.dat")]
    return named[0] if source.is_folder and named else logs


def _read(proposal: Proposal, found: Look, guess: Guess) -> None:
    """How the files are read."""
    if found.preset is not None:
        proposal.set("dataset.format", found.preset.format, "the original files, whose columns are known")
    else:
        proposal.set("dataset.format", found.format, "told from the contents")
        if found.delimiter is not None:
            spelled = {text: word for word, text in reversed(SPELLINGS.items()) if word.isalpha()}
            proposal.set("dataset.delimiter", spelled.get(found.delimiter, found.delimiter))
        if found.has_header is False:
            roles = {column: role for role, column in guess.columns.items()}
            names = [roles.get(column, column) for column in found.names]
            proposal.set("dataset.column_names", names, "by position: the file has no header")
    if found.encoding not in (None, "utf-8"):
        proposal.set("dataset.encoding", found.encoding)
    if found.encoding == USUAL_ENCODING:
        proposal.unsure.append(
            Unsure(f"the encoding: the text is no UTF-8, {USUAL_ENCODING} is taken", "dataset.encoding")
        )


def _name_columns(proposal: Proposal, found: Look, guess: Guess) -> None:
    """Which column holds what, and in which unit times are."""
    if found.preset is None:
        for role in ROLES:
            facts = guess.of(role)
            if facts is not None:
                name = role if found.has_header is False else facts.name
                note = {"user": facts.summary, "item": facts.summary, "time": facts.examples}.get(role, facts.span)
                proposal.set(f"dataset.columns.{role}", name, note)
            elif role in ("user", "item"):
                proposal.set(f"dataset.columns.{role}", role, "FILL IN the column's name")
    if guess.of("time") is None and guess.of("order") is None:
        proposal.set("dataset.unordered", "file_order", "no column says when: the rows are taken as they stand")
    elif guess.of("time") is not None:
        if guess.time_format is not None:
            proposal.set("dataset.time_format", guess.time_format, "pattern of the times")
        else:
            proposal.set("dataset.time_unit", found.preset.time_unit if found.preset else guess.time_unit)


def _choose_positives(proposal: Proposal, guess: Guess) -> None:
    """Which rows are positives, and what they weigh."""
    rating, label, weight = guess.of("rating"), guess.of("label"), guess.of("weight")
    if rating is not None and rating.high is not None and rating.low is not None:
        at_least = math.ceil(rating.high * 0.7)
        proposal.set(
            "preprocess.positive",
            {"kind": "threshold", "column": "rating", "at_least": at_least},
            f"ratings go from {rating.low:g} to {rating.high:g}; {{kind: all}} takes every row",
        )
        if rating.low <= 0 < rating.high - 4:
            proposal.unsure.append(
                Unsure(f"whether ratings of {rating.low:g} mean none: they count as low ones", "preprocess.positive")
            )
    elif label is not None:
        rule = {"kind": "flag", "column": "label"}
        proposal.set("preprocess.positive", rule, "rows whose flag is set; {kind: all} takes every row")
    else:
        proposal.set("preprocess.positive", {"kind": "all"}, "every row is a positive")
    if weight is not None and weight.typical_high is not None:
        maximum = max(1.0, float(f"{weight.typical_high:.2g}"))
        proposal.set(
            "preprocess.weight",
            {"kind": "column", "column": "weight", "minimum": min(1.0, maximum), "maximum": maximum},
            "99 of 100 rows weigh no more; leave it out and every event weighs 1",
        )


def _events(proposal: Proposal, guess: Guess, rows: pd.DataFrame) -> pd.DataFrame:
    """Return user, item and time of the sample's positives."""
    names = {role: guess.columns[role] for role in ROLES if role in guess.columns}
    events = rows[list(names.values())].set_axis(list(names), axis=1)
    rule = proposal.tree["preprocess"]["positive"]
    if rule["kind"] == "threshold":
        events = events[pd.to_numeric(events["rating"], errors="coerce") >= rule["at_least"]]
    elif rule["kind"] == "flag":
        events = events[events["label"].isin(["1", "1.0", "true", "True", "TRUE"])]
    return events


def _keep_duplicates(proposal: Proposal, rows: pd.DataFrame) -> None:
    share = float(rows.duplicated().mean()) if len(rows) else 0.0
    if share > MANY_DUPLICATES:
        proposal.set("preprocess.duplicate_rows", "keep", f"{share:.0%} of the rows repeat another in every column")
        proposal.unsure.append(
            Unsure(
                f"whether rows that repeat another ({share:.0%}) are events of their own: they are kept",
                "preprocess.duplicate_rows",
            )
        )


def _cut_partitions(proposal: Proposal, guess: Guess, events: pd.DataFrame) -> None:
    """Write files of a day, month or year, by what the log spans."""
    if "time" not in events or events.empty:
        return
    factor = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}.get(
        guess.time_unit or ""
    )
    if factor is not None:
        times = pd.to_datetime(pd.to_numeric(events["time"], errors="coerce") / factor, unit="s", errors="coerce")
    else:
        times = pd.to_datetime(events["time"].str.slice(0, 10), format=_date_format(guess.time_format), errors="coerce")
    ordered = times[times.dt.year >= YEARS[0]].sort_values()
    if ordered.empty:
        return
    first, last = (pd.Timestamp(ordered.iloc[int(share * (len(ordered) - 1))]) for share in (0.001, 0.999))
    days = (last - first).days + 1
    unit = "day" if days <= MANY_DAYS else "month" if days <= MANY_YEARS * 365 else "year"
    proposal.set("preprocess.partition_unit", unit, f"events from {first:%Y-%m-%d} to {last:%Y-%m-%d}")


def _date_format(pattern: str | None) -> str:
    """Return the date in a pattern of Spark's as Python writes it; ISO without one."""
    date = (pattern or "yyyy-MM-dd").partition(" ")[0]
    return date.replace("yyyy", "%Y").replace("MM", "%m").replace("dd", "%d")


def _hold_out(proposal: Proposal, events: pd.DataFrame, sample: Sample) -> None:
    """Who is held out, by how many users have enough events."""
    proposal.set("split.kind", "halves", "a held-out user's first half asks, the second answers; or leave_last_out")
    if "user" not in events:
        return
    counts = events["user"].value_counts()
    enough = {least: int((counts >= least).sum()) for least in (10, 5, 3, 2)}
    least = next((least for least, users in enough.items() if users >= ENOUGH_USERS), None)
    least = least or max(enough, key=lambda least: (enough[least] >= 20, enough[least] and least, -least))
    users = enough[least]
    if users < 3:
        proposal.unsure.append(
            Unsure(f"whom to hold out: only {users} users have {least} events or more", "split.num_test")
        )
    at_least = "" if sample.is_whole else "at least "
    proposal.set("split.num_test", min(MOST_TEST, max(1, int(users * TEST_SHARE))))
    proposal.set("split.num_validation", min(MOST_VALIDATION, max(1, int(users * VALIDATION_SHARE))))
    proposal.set("split.min_events", least, f"{at_least}{users:,} of {len(counts):,} users have as many positives")
    repeats = float(events.duplicated(["user", "item"]).mean()) if "item" in events and len(events) else 0.0
    if repeats > MANY_REPEATS:
        proposal.set(
            "serving.filter_history", False, f"{repeats:.0%} of the events are with an item that the user had before"
        )


def _map_catalogue(proposal: Proposal, found: Look, events: pd.DataFrame) -> None:
    """Which column of a catalogue holds the log's item ids, and which describe items."""
    if found.preset is not None or proposal.tree["dataset"]["format"] in ("movielens", "amazon"):
        return
    rows = read_sample(found).rows
    items = set(events["item"].dropna()) if "item" in events else set()
    shares = {str(name): len(items & set(rows[name].dropna())) / max(1, len(items)) for name in rows.columns}
    best = max(shares, key=lambda name: shares[name], default=None)
    if best is None or shares[best] < LEAST_OVERLAP:
        proposal.set(
            "dataset.catalogue_columns.item", best or "item", "FILL IN the column that holds the log's item ids"
        )
        proposal.unsure.append(
            Unsure(
                f"which column of the catalogue holds the log's item ids: the best, {best}, knows"
                f" {shares.get(best or '', 0):.0%} of the items",
                "dataset.catalogue_columns.item",
            )
        )
    else:
        proposal.set("dataset.catalogue_columns.item", best, f"knows {shares[best]:.0%} of the log's items")
    free = [str(name) for name in rows.columns if name != best]
    for role, words in DETAILS.items():
        named = [name for name in free if is_called(name, words)]
        if named:
            proposal.set(f"dataset.catalogue_columns.{role}", named[0])
            free.remove(named[0])
