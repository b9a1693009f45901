"""What times that cannot be right look like: another unit, a pattern, or no times at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from pipelines.datasets.times import TimeRule

PER_SECOND = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
_CENTURY = r"(?:19|20)\d\d"
_MONTH, _DAY, _CLOCK = r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])", r"\d{1,2}:\d{2}(?::\d{2})?(?:\.\d+)?"
LOOKS: tuple[tuple[str, str], ...] = (
    (rf"{_CENTURY}{_MONTH}{_DAY}(\.0)?", "dates written as numbers: set dataset.time_format=yyyyMMdd"),
    (rf"{_CENTURY}{_MONTH}{_DAY}\d{{4}}", "dates written as numbers: set dataset.time_format=yyyyMMddHHmm"),
    (rf"{_CENTURY}{_MONTH}{_DAY}\d{{6}}", "dates written as numbers: set dataset.time_format=yyyyMMddHHmmss"),
    (rf"T?{_CLOCK}( ?[AaPp][Mm])?", "times of day without a date: map a column that holds the date as well"),
    (
        r"\d{1,2}/\d{1,2}/\d{4}",
        "dates: set dataset.time_format=d/M/yyyy or M/d/yyyy, as they are meant (never guessed)",
    ),
    (
        rf"\d{{1,2}}/\d{{1,2}}/\d{{4}},? {_CLOCK}.*",
        "dates and times: set dataset.time_format='d/M/yyyy H:mm' or 'M/d/yyyy H:mm', as they are meant (never guessed)",
    ),
    (r"\d{1,2}\.\d{1,2}\.\d{4}", "dates: set dataset.time_format=d.M.yyyy"),
    (rf"\d{{1,2}}\.\d{{1,2}}\.\d{{4}},? {_CLOCK}", "dates and times: set dataset.time_format='d.M.yyyy H:mm'"),
    (
        r"\d{1,2}-\d{1,2}-\d{4}",
        "dates: set dataset.time_format=d-M-yyyy or M-d-yyyy, as they are meant (never guessed)",
    ),
    (rf"{_CENTURY}/\d{{1,2}}/\d{{1,2}}", "dates: set dataset.time_format=yyyy/M/d"),
    (rf"{_CENTURY}/\d{{1,2}}/\d{{1,2}} {_CLOCK}", "dates and times: set dataset.time_format='yyyy/M/d H:mm:ss'"),
    (
        rf"[A-Z][a-z]{{2}} [A-Z][a-z]{{2}} \d{{2}} {_CLOCK} [+-]\d{{4}} \d{{4}}",
        "dates and times: set dataset.time_format='EEE MMM dd HH:mm:ss Z yyyy'",
    ),
    (
        rf"[A-Z][a-z]{{2}}, \d{{1,2}} [A-Z][a-z]{{2}} \d{{4}} {_CLOCK} [+-]\d{{4}}",
        "dates and times: set dataset.time_format='EEE, d MMM yyyy HH:mm:ss Z'",
    ),
    (r"1970-01-.*", "numbers taken in too small a unit when the file was written: write their column in the right one"),
)
"""Pattern of a value, and what to say of it."""
ISO = (rf"{_CENTURY}-\d{{1,2}}-\d{{1,2}}([T ].*)?", "ISO text: set dataset.time_unit=timestamp")


def advise_time(values: Sequence[str], rule: TimeRule, low: datetime, high: datetime) -> str | None:
    """Return what most of the values look like and the setting that reads them; None when nothing fits.

    Args:
        values: times as they stand in the file, of rows that were refused for their time.
        rule: how they were read.
        low: first moment that is plausible.
        high: end of what is plausible.
    """
    most = len(values) / 2
    for unit, per_second in PER_SECOND.items():
        bounds = low.timestamp() * per_second, high.timestamp() * per_second
        fitting = [value for value in values if bounds[0] <= _number(value) < bounds[1]]
        if len(fitting) > most and (rule.pattern is not None or rule.unit != unit):
            dropped = "" if rule.pattern is None else " and leave dataset.time_format out"
            return f"the numbers, such as {fitting[0]}, look like {unit}: set dataset.time_unit={unit}{dropped}"
    looks = LOOKS if rule.unit == "timestamp" else (*LOOKS, ISO)
    for pattern, words in looks:
        fitting = [value for value in values if re.fullmatch(pattern, value.strip())]
        if len(fitting) > most:
            return f"the values, such as '{fitting[0]}', look like {words}"
    return None


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return float("nan")
