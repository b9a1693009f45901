"""What a sample's column holds, in figures."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pandas as pd

YEARS = (1990, 2040)
"""Times outside of these are not taken for times."""
_UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
_ISO = r"\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2})?.*)?"
_PATTERNS = {
    r"\d{4}/\d{2}/\d{2}": "yyyy/MM/dd",
    r"\d{4}/\d{2}/\d{2} \d{2}:\d{2}:\d{2}": "yyyy/MM/dd HH:mm:ss",
    r"\d{2}\.\d{2}\.\d{4}": "dd.MM.yyyy",
    r"\d{2}\.\d{2}\.\d{4} \d{2}:\d{2}": "dd.MM.yyyy HH:mm",
    r"\d{2}\.\d{2}\.\d{4} \d{2}:\d{2}:\d{2}": "dd.MM.yyyy HH:mm:ss",
}
"""Of times that can be read in one way alone; a day and a month with a slash between them cannot."""
LONGEST_KEY = 256
Moment = tuple[str, str | None]
"""Unit and pattern."""


@dataclass(frozen=True)
class ColumnFacts:
    """Figures of a column.

    Attributes:
        name: of the column.
        position: among the columns, from 0.
        filled: values that are there.
        distinct: different ones.
        words: some of those.
        runs: stretches of rows with one value.
        low, high: of a column of numbers, else None.
        is_whole: whether all values are whole numbers.
        moment: unit and pattern by which all values are plausible times, or None.
        longest: characters of the longest value.
        typical_high: what 99 % of the numbers do not exceed.
    """

    name: str
    position: int
    filled: int
    distinct: int
    words: tuple[str, ...]
    runs: int
    low: float | None
    high: float | None
    is_whole: bool
    moment: Moment | None
    longest: int
    typical_high: float | None

    @classmethod
    def of(cls, values: pd.Series, position: int, kind: str | None) -> ColumnFacts:
        """Measure a column of text.

        Args:
            values: the column.
            position: among the columns.
            kind: its type where the file says it.
        """
        text = values.dropna().astype(str)
        unique = text.unique()
        numbers = (
            pd.to_numeric(pd.Series(unique, dtype=object), errors="coerce") if len(unique) else pd.Series(dtype=float)
        )
        is_number = len(unique) > 0 and bool(numbers.notna().all())
        all_numbers = pd.to_numeric(text, errors="coerce") if is_number else None
        return cls(
            name=str(values.name),
            position=position,
            filled=len(text),
            distinct=len(unique),
            words=tuple(map(str, unique[:20])),
            runs=int((text != text.shift()).sum()),
            low=float(numbers.min()) if is_number else None,
            high=float(numbers.max()) if is_number else None,
            is_whole=is_number and bool((numbers % 1 == 0).all()),
            moment=_moment(unique, numbers if is_number else None, kind or ""),
            longest=max(map(len, unique), default=0),
            typical_high=None if all_numbers is None or all_numbers.empty else float(all_numbers.quantile(0.99)),
        )

    @property
    def is_flag(self) -> bool:
        """Whether all values are yes or no."""
        return {word.lower() for word in self.words} <= {"0", "1", "0.0", "1.0", "true", "false"} and self.distinct == 2

    @property
    def is_small_number(self) -> bool:
        """Whether the numbers are few and small, as ratings are."""
        return (
            self.low is not None
            and self.high is not None
            and self.low >= -1
            and self.high <= 100
            and self.distinct <= 101
        )

    @property
    def is_grouped(self) -> bool:
        """Whether the rows of one value stand together."""
        return self.runs <= 1.1 * self.distinct < 0.8 * self.filled

    @property
    def summary(self) -> str:
        """Of a column of ids: how many there are, and how many rows each."""
        return f"{self.distinct:,} distinct, {self.filled / max(1, self.distinct):.1f} rows each"

    @property
    def examples(self) -> str:
        """First values, as text."""
        return ", ".join(word[:30] for word in self.words[:2]) + (", …" if self.distinct > 2 else "")

    @property
    def span(self) -> str:
        """Smallest and largest number as text."""
        return f"{self.low:g} … {self.high:g}" if self.low is not None else f"{self.distinct:,} distinct"

    @property
    def why_no_key(self) -> str:
        """Why values cannot be ids; nothing where they can."""
        if self.filled == 0:
            return "it is empty"
        if self.distinct == 1:
            return f"all its values are {self.words[0][:40]!r}"
        if self.low is not None and not self.is_whole:
            return "its values are fractions"
        if self.longest > LONGEST_KEY:
            return f"its values are texts of up to {self.longest:,} characters"
        if self.filled > 20 and self.distinct == self.filled:
            return "no value comes twice"
        if self.filled > 200 and self.distinct <= 5:
            return f"it has {self.distinct} values alone"
        return ""

    @property
    def may_be_key(self) -> bool:
        """Whether the values can be ids of users or items."""
        return not self.why_no_key


def _moment(unique: object, numbers: pd.Series | None, kind: str) -> Moment | None:
    if kind.startswith(("timestamp", "date")):
        return "timestamp", None
    values = [str(value).strip() for value in list(unique)[:2000]]  # type: ignore[call-overload]
    if not values:
        return None
    if numbers is not None:
        low, high = float(numbers.quantile(0.01)), float(numbers.quantile(0.99))
        for unit, factor in _UNITS.items():
            bounds = [(year - 1970) * 365.25 * 86_400 * factor for year in YEARS]
            if bounds[0] <= low and high <= bounds[1]:
                return unit, None
        is_compact = all(re.fullmatch(r"(19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])", value) for value in values)
        return ("timestamp", "yyyyMMdd") if is_compact else None
    if all(re.fullmatch(_ISO, value) for value in values):
        return "timestamp", None
    return next(
        (
            ("timestamp", pattern)
            for shape, pattern in _PATTERNS.items()
            if all(re.fullmatch(shape, value) for value in values)
        ),
        None,
    )
