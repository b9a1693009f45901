"""MovieLens in its original files: ``ratings.dat`` and ``movies.dat`` (1M, 10M), ``ratings.csv`` and ``movies.csv``
(20M, 25M)."""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession

from dr_core.errors import InputError
from pipelines.datasets.rawframe import (
    CatalogueColumns,
    LogColumns,
    permissive_reader,
    raw_catalogue,
    raw_logs,
    read_source,
)
from pipelines.datasets.times import TimeRule

LOG_COLUMNS = LogColumns(user="userId", item="movieId", rating="rating", time="timestamp")
CATALOGUE_COLUMNS = CatalogueColumns(item="movieId", title="title", category="genres")


def read_logs(spark: SparkSession, path: str) -> DataFrame:
    """Read ratings (Unix seconds) as a raw frame; see :mod:`pipelines.datasets.rawframe`. Raises InputError."""
    names = ["userId", "movieId", "rating", "timestamp"]
    return raw_logs(_read_table(spark, path, "log", names), path, LOG_COLUMNS, TimeRule("seconds"))


def read_catalogue(spark: SparkSession, path: str) -> DataFrame:
    """Read movies as a raw catalogue: title, and genres (``Action|Comedy``) as category. Raises InputError."""
    names = ["movieId", "title", "genres"]
    return raw_catalogue(_read_table(spark, path, "catalogue", names), path, CATALOGUE_COLUMNS, TimeRule("seconds"))


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
