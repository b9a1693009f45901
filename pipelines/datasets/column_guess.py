"""What is proposed of a log's columns, with the doubts about it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from pipelines.datasets.column_facts import ColumnFacts


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

    def doubt(self, sentence: str, setting: str) -> None:
        """Note what could not be told."""
        self.unsure.append(Unsure(sentence, setting))


def is_called(name: str, words: tuple[str, ...]) -> bool:
    """Tell whether one of the words that a column's name consists of is among some words."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    lowered = [part.lower() for part in parts]
    return any(part in words or part.removesuffix("id") in words or part.removesuffix("s") in words for part in lowered)
