"""Amazon reviews in their original files: ``ratings_Books.csv`` (no header) and JSON lines of reviews and metadata,
gzip too."""

from __future__ import annotations

import ast
import json
import re

from pyspark.sql import DataFrame, SparkSession

from dr_core.errors import InputError
from pipelines.datasets.rawframe import (
    CatalogueColumns,
    LogColumns,
    first_text_line,
    permissive_reader,
    raw_catalogue,
    raw_logs,
    read_source,
)
from pipelines.datasets.times import TimeRule

CSV_COLUMNS = LogColumns(user="user", item="item", rating="rating", time="timestamp")
JSON_COLUMNS = LogColumns(user="reviewerID", item="asin", rating="overall", time="unixReviewTime")
CATALOGUE_COLUMNS = CatalogueColumns(item="asin", title="title", category="categories", creator="brand")
_CSV_SCHEMA = "user string, item string, rating string, timestamp string"
_JSON_SCHEMA = "reviewerID string, asin string, overall double, unixReviewTime bigint"
_METADATA_SCHEMA = "asin string, title string, categories array<array<string>>, brand string"


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
    return raw_logs(source, path, log_columns(path), TimeRule("seconds"))


def read_catalogue(spark: SparkSession, path: str) -> DataFrame:
    """Read product metadata (JSON lines, or the Python-literal lines of the 2014 release) as a raw catalogue. Raises
    InputError."""
    _check_json_keys(spark, path, ["asin"])
    source = read_source(path, "catalogue", lambda: permissive_reader(spark, _METADATA_SCHEMA).json(path))
    return raw_catalogue(source, path, CATALOGUE_COLUMNS, TimeRule("seconds"))


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
