"""Amazon reviews in their original files: ``ratings_Books.csv`` (no header) and JSON lines of reviews and metadata,
gzip too."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence

from pyspark.sql import DataFrame, SparkSession

from dr_core.errors import InputError
from pipelines.datasets.preset import ColumnLook, Preset
from pipelines.datasets.rawframe import (
    CatalogueColumns,
    LogColumns,
    first_text_line,
    permissive_reader,
    raw_catalogue,
    raw_logs,
    read_source,
)
from pipelines.datasets.text import is_data

CSV_COLUMNS = LogColumns(user="user", item="item", rating="rating", time="timestamp")
JSON_COLUMNS = LogColumns(user="reviewerID", item="asin", rating="overall", time="unixReviewTime")
CATALOGUE_COLUMNS = CatalogueColumns(item="asin", title="title", category="categories", creator="brand")
_CSV_SCHEMA = "user string, item string, rating string, timestamp string"
_JSON_SCHEMA = "reviewerID string, asin string, overall double, unixReviewTime bigint"
_METADATA_SCHEMA = "asin string, title string, categories array<array<string>>, brand string"


_ASIN = re.compile(r"B[0-9A-Z]{9}|\d{9}[\dX]")
_ORDERS = (("user", "item", "rating", "timestamp"), ("item", "user", "rating", "timestamp"))


def recognise(rows: Sequence[Sequence[str]]) -> Preset | None:
    """Return what the columns mean, when the first records are Amazon ratings.

    The files of 2014 hold user, item, rating, time; those of 2018 item, user, rating, time; both without a header, and in
    seconds. Those of 2023 have a header, and milliseconds.
    """
    if {"user_id", "rating", "timestamp"} <= set(rows[0]) and {"parent_asin", "asin"} & set(rows[0]):
        item = "parent_asin" if "parent_asin" in rows[0] else "asin"
        at = list(rows[0]).index("timestamp")
        return _preset_2023(item, [row[at] for row in rows[1:] if len(row) > at])
    order = tell_order(rows)
    return Preset("amazon", CSV_COLUMNS, column_names=order) if order else None


def tell_order(rows: Sequence[Sequence[str]]) -> tuple[str, ...] | None:
    """Return the names of the columns of a file without a header; None when they are no ratings, or when the shapes of
    the first two columns do not tell which of them holds the items."""
    if not all(len(row) == 4 and is_data(row[2]) and row[3].isdigit() for row in rows):
        return None
    shares = [sum(bool(_ASIN.fullmatch(row[at])) for row in rows) / len(rows) for at in (0, 1)]
    return next((_ORDERS[1 - at] for at in (0, 1) if shares[at] > 0.9 and shares[1 - at] < 0.1), None)


def recognise_objects(columns: Sequence[ColumnLook]) -> Preset | None:
    """Return what the keys of JSON lines mean, when they are Amazon reviews of any release."""
    names = {column.name: column for column in columns}
    if {"reviewerID", "asin", "overall", "unixReviewTime"} <= names.keys():
        return Preset("amazon", JSON_COLUMNS)
    if {"user_id", "rating", "timestamp"} <= names.keys() and {"parent_asin", "asin"} & names.keys():
        item = "parent_asin" if "parent_asin" in names else "asin"
        return _preset_2023(item, [value or "" for value in names["timestamp"].values])
    return None


def _preset_2023(item: str, times: Sequence[str]) -> Preset:
    in_seconds = bool(times) and all(len(time) <= 10 for time in times)
    columns = LogColumns(user="user_id", item=item, rating="rating", time="timestamp")
    return Preset("amazon", columns, "seconds" if in_seconds else "milliseconds")


def is_csv(path: str) -> bool:
    """Tell whether a file's name says CSV (else JSON lines)."""
    return re.search(r"\.csv(\.gz)?$", path) is not None


def log_columns(path: str) -> LogColumns:
    """Return which columns the log of this name has."""
    return CSV_COLUMNS if is_csv(path) else JSON_COLUMNS


def read_logs(spark: SparkSession, path: str) -> DataFrame:
    """Read ratings (Unix seconds) as a raw frame; see :mod:`pipelines.datasets.rawframe`.

    Raises:
        InputError: no such file, or its first line has other columns.
    """
    if is_csv(path):
        num_fields = len(first_text_line(spark, path).split(","))
        if num_fields != 4:
            raise InputError(f"the log {path} has {num_fields} columns; Amazon ratings have user,item,rating,timestamp")
        source = read_source(path, "log", lambda: permissive_reader(spark, _CSV_SCHEMA).csv(path, header=False))
    else:
        _check_json_keys(spark, path, ["reviewerID", "asin", "overall", "unixReviewTime"])
        source = read_source(path, "log", lambda: permissive_reader(spark, _JSON_SCHEMA).json(path))
    return raw_logs(source, path, log_columns(path), "seconds")


def read_catalogue(spark: SparkSession, path: str) -> DataFrame:
    """Read product metadata (JSON lines, or the Python-literal lines of the 2014 release) as a raw catalogue. Raises
    InputError."""
    _check_json_keys(spark, path, ["asin"])
    source = read_source(path, "catalogue", lambda: permissive_reader(spark, _METADATA_SCHEMA).json(path))
    return raw_catalogue(source, path, CATALOGUE_COLUMNS, "seconds")


def _check_json_keys(spark: SparkSession, path: str, wanted: list[str]) -> None:
    line = first_text_line(spark, path)
    try:
        record = _parse(line)
    except (ValueError, SyntaxError):
        record = None
    if not isinstance(record, dict):
        raise InputError(f"the first line of {path} is not a JSON object")
    missing = [name for name in wanted if name not in record]
    if missing:
        raise InputError(f"{path} has no key '{missing[0]}'; keys found: {', '.join(record)}")


def _parse(line: str) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return ast.literal_eval(line.strip())
