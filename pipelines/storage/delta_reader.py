"""Delta tables read without a JVM, by delta-rs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec

from dr_core.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

STORES = ("file", "s3", "s3a", "gs", "az", "abfs", "abfss")
"""Schemes that delta-rs reads by itself."""


def read_rows(uri: str, clauses: str = "") -> list[dict[str, Any]]:
    """Return the rows of a small table in its newest version, moments as UTC without a zone; none where there is no table.

    Args:
        uri: of the table: a local path; one of the object stores that delta-rs knows (:data:`STORES`), with credentials from
            the environment; or on any file system of fsspec, from which the table is copied first.
        clauses: SQL that follows ``FROM table``.

    Raises:
        InputError: the table cannot be read.
    """
    result = _query(uri, f"SELECT * FROM data {clauses}")
    if result is None:
        return []
    columns = {name: [_plain(value.as_py()) for value in result.column(name)] for name in result.column_names}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def read_columns(uri: str, columns: Sequence[str], clauses: str = "") -> pa.Table:
    """Return columns of a table in its newest version, strings as ``large_string``.

    Args:
        uri: as of :func:`read_rows`.
        columns: their names.
        clauses: SQL that follows ``FROM table``.

    Raises:
        InputError: the table is missing or cannot be read.
    """
    import pyarrow as pa
    from arro3.core import DataType, Table

    result = _query(uri, f"SELECT {', '.join(columns)} FROM data {clauses}")
    if result is None:
        raise InputError(f"table {uri} is missing: an earlier stage has not run in this work folder")
    large = DataType.large_utf8()
    held = [
        column.cast(large) if DataType.is_string_view(column.type) else column for column in result.columns
    ]  # pyarrow knows no views yet
    return pa.table(Table.from_arrays(held, names=result.column_names))


def _query(uri: str, sql: str) -> Any:
    from deltalake import DeltaTable, QueryBuilder
    from deltalake.exceptions import DeltaError

    try:
        with _readable(uri) as place:
            if place is None or not DeltaTable.is_deltatable(place):
                return None
            return QueryBuilder().register("data", DeltaTable(place)).execute(sql).read_all()
    except (DeltaError, OSError, ValueError) as error:
        raise InputError(f"table {uri} cannot be read ({error}): restore its files, or run anew") from error


@contextmanager
def _readable(uri: str) -> Iterator[str | None]:
    """Yield where delta-rs can read a table: the table itself, or a copy of it; None where there is none."""
    scheme = uri.partition("://")[0] if "://" in uri else "file"
    if scheme in STORES:
        yield uri
        return
    filesystem, path = fsspec.core.url_to_fs(uri)
    if not filesystem.exists(f"{path}/_delta_log"):
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        # The log is listed first: whatever it names is there when the rest is listed.
        commits = set(filesystem.find(f"{path}/_delta_log"))
        for name in sorted(commits | {name for name in filesystem.find(path) if "/_delta_log/" not in name}):
            copy = Path(folder, name.removeprefix(path).lstrip("/"))
            copy.parent.mkdir(parents=True, exist_ok=True)
            filesystem.get_file(name, str(copy))
        yield folder


def _plain(value: Any) -> Any:
    return value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) and value.tzinfo else value
