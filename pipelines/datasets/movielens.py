"""MovieLens in its original files: ``ratings.dat`` and ``movies.dat`` (1M, 10M), ``ratings.csv`` and ``movies.csv``
(20M, 25M)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipelines.datasets.preset import Preset
from pipelines.datasets.rawframe import CatalogueColumns, LogColumns

NAMES = ("userId", "movieId", "rating", "timestamp")
CATALOGUE_NAMES = ("movieId", "title", "genres")
LOG_COLUMNS = LogColumns(user="userId", item="movieId", rating="rating", time="timestamp")
CATALOGUE_COLUMNS = CatalogueColumns(item="movieId", title="title", category="genres")
RATINGS_FILES = ("ratings.csv", "ratings.dat", "ratings.csv.gz", "ratings.dat.gz")
_RATING = re.compile(r"\d(\.\d)?")


def is_dat(path: str) -> bool:
    """Tell whether a file's name says ``::`` separated Latin-1 text without a header (else CSV with one)."""
    return path.removesuffix(".gz").endswith(".dat")


def recognise(rows: Sequence[Sequence[str]], delimiter: str, name: str) -> Preset | None:
    """Return what the columns mean, when the first records are those of a MovieLens ratings file."""
    if delimiter == "," and tuple(rows[0]) == NAMES:
        return Preset("movielens", LOG_COLUMNS)
    if delimiter == "::" and is_dat(name) and sum(map(_is_rating, rows)) >= 0.9 * len(rows):
        return Preset("movielens", LOG_COLUMNS, column_names=NAMES)
    return None


def _is_rating(row: Sequence[str]) -> bool:
    return len(row) == 4 and row[0].isdigit() and row[1].isdigit() and bool(_RATING.fullmatch(row[2]))
