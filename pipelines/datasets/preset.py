"""What the columns of a public data set in its original files mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipelines.datasets.rawframe import LogColumns
from pipelines.datasets.times import TimeUnit


@dataclass(frozen=True)
class ColumnLook:
    """A column: its name, the first values as text (None where there is none), and its type where the file says it."""

    name: str
    values: tuple[str | None, ...] = ()
    type: str | None = None


@dataclass(frozen=True)
class Preset:
    """A known data set's columns.

    Attributes:
        format: the setting that reads it.
        columns: which holds what.
        time_unit: of its times.
        column_names: names by position, of files without a header.
    """

    format: Literal["movielens", "amazon"]
    columns: LogColumns
    time_unit: TimeUnit = "seconds"
    column_names: tuple[str, ...] = ()
