"""Where logs and catalogues are, and how they are to be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, field_validator

from dr_core.config import Config
from dr_core.errors import InputError
from pipelines.datasets.keys import MISSING_IDS
from pipelines.datasets.preset import Preset
from pipelines.datasets.rawframe import CatalogueColumns, LogColumns
from pipelines.datasets.synthetic import SyntheticConfig
from pipelines.datasets.text import SPELLINGS, python_encoding
from pipelines.datasets.times import TimeRule, TimeUnit, zone_of

Format = Literal["auto", "parquet", "csv", "json", "delta", "movielens", "amazon", "synthetic"]
FileFormat = Literal["auto", "parquet", "csv", "json", "delta"]
Quote = Literal['"', "none"]


def _delimiter(value: object) -> object:
    if value is None or value == "":
        raise ValueError(
            "a delimiter cannot be empty; write tab, comma, semicolon, pipe, space, or the text itself in quotes"
        )
    if not isinstance(value, str):
        return value
    text = SPELLINGS.get(value.casefold(), SPELLINGS.get(value, value))
    if any(mark in text for mark in '"\r\n'):
        raise ValueError("a delimiter holds no quote and no line break")
    return text


def _names(names: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"names {twice[0]!r} twice; give every column a name of its own, by position")
    return names


Delimiter = Annotated[str, BeforeValidator(_delimiter)]
Encoding = Annotated[str, AfterValidator(python_encoding)]
ColumnNames = Annotated[tuple[str, ...], AfterValidator(_names)]


class FileConfig(Config):
    """How a catalogue is to be read where its contents do not say it."""

    format: FileFormat = "auto"
    """File format; ``auto`` tells it from the contents."""
    delimiter: Delimiter | None = None
    """Field separator, as `dataset.delimiter`; none tells it from the header."""
    encoding: Encoding | None = None
    """Encoding of text; none is that of the log."""
    quote: Quote | None = None
    """As `dataset.quote`; none is that of the log."""
    column_names: ColumnNames = ()
    """Names of all columns, by position, of text without a header."""


class DatasetConfig(Config):
    """Where the logs are and what their columns mean."""

    format: Format = "auto"
    """File format. ``auto`` tells it from the contents; ``json`` is one object a line; ``movielens`` and ``amazon`` read the
    original files and know their columns; ``synthetic`` generates logs when no path is given."""
    path: str | None = None
    """URI of the log (a file, a folder, or a pattern with ``*``); ``--logs`` overrides it."""
    catalogue: str | None = None
    """URI of the catalogue, optional; ``--catalogue`` overrides it."""
    columns: LogColumns = LogColumns()
    """Column names of the log. ``a.b`` is field b of a struct or object a, unless a column has that name."""
    catalogue_columns: CatalogueColumns = CatalogueColumns()
    """Column names of the catalogue."""
    catalogue_file: FileConfig = FileConfig()
    """How the catalogue is to be read where its contents do not say it."""
    time_unit: TimeUnit = "seconds"
    """Unit of numeric times; ``timestamp`` for ISO text. Never guessed: a wrong guess would move every event."""
    time_format: str | None = None
    """Pattern of times that are no ISO text, also of numbers such as 20240131, as Spark writes it: ``yyyyMMdd``,
    ``dd.MM.yyyy HH:mm``, ``EEE MMM dd HH:mm:ss Z yyyy``. It goes before ``time_unit``."""
    time_zone: str = "UTC"
    """Zone of times that name none (``Europe/Berlin``, ``-05:00``), and of ``--start`` and ``--end`` without an offset."""
    missing_ids: tuple[str, ...] = MISSING_IDS
    """Texts in a column of ids that mean "none"; such rows are quarantined as ``null_user`` or ``null_item``."""
    unordered: Literal["refuse", "file_order"] = "refuse"
    """What to do with a log that has neither time nor order: refuse it, or take the rows' order in the files as the
    order."""
    delimiter: Delimiter = "auto"
    """Field separator of delimited text. ``auto`` tells comma, tab, semicolon, pipe, ``::`` and Hive's \\\\x01 from the
    header; also said as ``tab``, ``comma``, ``semicolon``, ``pipe``, ``space``, ``colon``, or as the text itself."""
    encoding: Encoding | None = None
    """Encoding of text; none is UTF-8. A byte order mark wins. Ids that are not valid in it are quarantined."""
    quote: Quote = '"'
    """What encloses fields of delimited text that hold separators or line breaks; ``none``: quotes mean nothing."""
    column_names: ColumnNames = ()
    """Names of all columns, by position, of delimited text without a header; `columns` then refers to these names."""
    synthetic: SyntheticConfig = SyntheticConfig()
    """What the ``synthetic`` format generates."""

    @field_validator("time_zone")
    @classmethod
    def _check_zone(cls, name: str) -> str:
        zone_of(name)
        return name

    @property
    def times(self) -> TimeRule:
        """How times are read."""
        return TimeRule(self.time_unit, self.time_format, self.time_zone)

    @property
    def has_time(self) -> bool:
        """Tell whether events of this (resolved) log have a time."""
        return self.columns.time is not None

    def wanted_columns(self) -> dict[str, str]:
        """Return the names of the log's columns by the settings that say them."""
        columns: Mapping[str, str | None] = self.columns.model_dump()
        return {f"dataset.columns.{field}": name for field, name in columns.items() if name is not None}

    def contradiction(self, preset: Preset) -> str | None:
        """Return the first setting, with its value, that says something else than a known data set's own files."""
        default, known = LogColumns().model_dump(), preset.columns.model_dump()
        for field, name in self.columns.model_dump().items():
            if name != default[field] and name != known[field]:
                return f"dataset.columns.{field}={name}"
        if self.time_unit not in ("seconds", preset.time_unit):
            return f"dataset.time_unit={self.time_unit}"
        if self.time_format is not None:
            return f"dataset.time_format={self.time_format}"
        if self.column_names and self.column_names != preset.column_names:
            return f"dataset.column_names={list(self.column_names)}"
        return None

    def refuse_idle(self, kind: str, *, has_catalogue: bool) -> None:
        """Raise :class:`InputError` for an option that has no effect on a log of this format."""
        given: dict[str, bool] = {
            "delimiter": self.delimiter != "auto" and kind != "csv",
            "column_names": bool(self.column_names) and kind != "csv",
            "quote": self.quote == "none" and kind != "csv" and not has_catalogue,
            "encoding": self.encoding is not None and kind not in ("csv", "json") and not has_catalogue,
        }
        for name, is_idle in given.items():
            if is_idle:
                other = f" (dataset.catalogue_file.{name} is the catalogue's)" if has_catalogue else ""
                raise InputError(f"dataset.{name} has no effect: the log is {kind}: leave it out{other}")
