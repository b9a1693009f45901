"""MovieLens in its original files: ``ratings.dat`` and ``movies.dat`` (1M, 10M), ``ratings.csv`` and ``movies.csv``
(20M, 25M)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pyspark.sql import DataFrame, SparkSession

from dr_core.errors import InputError
from pipelines.datasets.preset import Preset
from pipelines.datasets.rawframe import (
    CatalogueColumns,
    LogColumns,
    permissive_reader,
    raw_catalogue,
    raw_logs,
    read_source,
)

NAMES = ["userId", "movieId", "rating", "timestamp"]
LOG_COLUMNS = LogColumns(user="userId", item="movieId", rating="rating", time="timestamp")
CATALOGUE_COLUMNS = CatalogueColumns(item="movieId", title="title", category="genres")


_RATING = re.compile(r"\d(\.\d)?")


def recognise(rows: Sequence[Sequence[str]], delimiter: str, name: str) -> Preset | None:
    """Return what the columns mean, when the first records are those of a MovieLens ratings file."""
    if delimiter == "," and list(rows[0]) == NAMES:
        return Preset("movielens", LOG_COLUMNS)
    if delimiter == "::" and name.startswith("ratings.dat") and all(_is_rating(row) for row in rows):
        return Preset("movielens", LOG_COLUMNS, column_names=tuple(NAMES))
    return None


def _is_rating(row: Sequence[str]) -> bool:
    return len(row) == 4 and row[0].isdigit() and row[1].isdigit() and bool(_RATING.fullmatch(row[2]))


def read_logs(spark: SparkSession, path: str) -> DataFrame:
    """Read ratings (Unix seconds) as a raw frame; see :mod:`pipelines.datasets.rawframe`. Raises InputError."""
    return raw_logs(_read_table(spark, path, "log", NAMES), path, LOG_COLUMNS, "seconds")


def read_catalogue(spark: SparkSession, path: str) -> DataFrame:
    """Read movies as a raw catalogue: title, and genres (``Action|Comedy``) as category. Raises InputError."""
    names = ["movieId", "title", "genres"]
    return raw_catalogue(_read_table(spark, path, "catalogue", names), path, CATALOGUE_COLUMNS, "seconds")


def _read_table(spark: SparkSession, path: str, what: str, names: list[str]) -> DataFrame:
    """Read ``::`` separated text without a header (.dat, Latin-1) or CSV with one; fields are text."""
    reader = permissive_reader(spark, ", ".join(f"`{name}` string" for name in names))
    stem = path.removesuffix(".gz")
    if stem.endswith(".dat"):
        return read_source(
            path, what, lambda: reader.csv(path, sep="::", encoding="ISO-8859-1", quote="", header=False)
        )
    if stem.endswith(".csv"):
        header = read_source(path, what, lambda: spark.read.csv(path, header=True))
        found = header.columns[:-3]
        if found != names:
            raise InputError(f"the {what} {path} has columns {', '.join(found)}; MovieLens has {', '.join(names)}")
        return read_source(path, what, lambda: reader.csv(path, header=True, escape='"'))
    raise InputError(f"the {what} {path} is no MovieLens file: expected a name ending in .dat or .csv")
