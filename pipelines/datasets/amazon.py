"""Amazon reviews in their original files: ratings as CSV and reviews as JSON lines, of 2014, 2018 and 2023."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipelines.datasets.preset import ColumnLook, Preset
from pipelines.datasets.rawframe import CatalogueColumns, LogColumns
from pipelines.datasets.text import is_data

NAMES = ("user", "item", "rating", "timestamp")
CSV_COLUMNS = LogColumns(user="user", item="item", rating="rating", time="timestamp")
JSON_COLUMNS = LogColumns(user="reviewerID", item="asin", rating="overall", time="unixReviewTime")
CATALOGUE_COLUMNS = (
    CatalogueColumns(item="parent_asin", title="title", category="categories", creator="store"),
    CatalogueColumns(item="asin", title="title", category="categories", creator="brand"),
    CatalogueColumns(item="asin", title="title", category="category", creator="brand"),
)
"""Of the metadata of 2023, 2014 and 2018."""
_ASIN = re.compile(r"B[0-9A-Z]{9}|\d{9}[\dX]")
_ORDERS = (NAMES, ("item", "user", "rating", "timestamp"))


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
    ratings = [row for row in rows if len(row) == 4 and is_data(row[2]) and row[3].isdigit()]
    if len(ratings) < 0.9 * len(rows):
        return None
    shares = [sum(bool(_ASIN.fullmatch(row[at])) for row in ratings) / len(ratings) for at in (0, 1)]
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


def catalogue_columns(found: Sequence[str]) -> CatalogueColumns:
    """Return what the keys of metadata mean, of whichever release they are; keys that are not there hold nothing."""
    columns = next((known for known in CATALOGUE_COLUMNS if known.item in found and known.category in found), None)
    item = "parent_asin" if "parent_asin" in found else "asin"
    known = columns or CatalogueColumns(item=item, title="title", category="categories", creator="brand")
    there = {field: name for field, name in known.model_dump().items() if name in found or field == "item"}
    return CatalogueColumns.model_validate(there)
