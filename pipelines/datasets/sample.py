"""The first rows of a log as text, read on the driver without Spark: what a guess about its columns is made from."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import re
import warnings
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.datasets.look import Look
from pipelines.datasets.paths import File, Source, find_source

MOST_ROWS, MOST_SLOW_ROWS = 500_000, 200_000
"""The latter of text whose delimiter has several characters."""


@dataclass(frozen=True)
class Sample:
    """The first rows of a log.

    Attributes:
        rows: a column of text (or None) for each column of the log; nested ones are left out.
        is_whole: whether these are all rows.
        types: of columns whose type the file says.
    """

    rows: pd.DataFrame
    is_whole: bool
    types: dict[str, str]


def read_sample(found: Look, most: int = MOST_ROWS) -> Sample:
    """Read the first rows of what :func:`pipelines.datasets.look.look` has found, at most ``most``.

    Raises:
        InputError: the path is gone meanwhile.
    """
    if len(found.delimiter or "") > 1:
        most = min(most, MOST_SLOW_ROWS)
    types = {column.name: column.type for column in found.columns if column.type}
    if found.format == "delta":
        parts: Iterator[pd.DataFrame] = iter([_read_delta(found.path, most)])
    else:
        source = find_source(found.path, "log")
        parts = (part for file in source.files if file.size for part in _read_file(found, source, file, most))
    kept: list[pd.DataFrame] = []
    num_rows = 0
    for part in parts:
        kept.append(part.head(most - num_rows))
        num_rows += len(part)
        if num_rows >= most:
            break
    names = _names(found)
    rows = pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=list(names))
    return Sample(rows.astype(object).where(rows.notna(), None), num_rows < most, types)


def _names(found: Look) -> tuple[str, ...]:
    return found.preset.column_names if found.preset and found.preset.column_names else found.names


def _read_file(found: Look, source: Source, file: File, most: int) -> Iterator[pd.DataFrame]:
    with source.filesystem.open(file.uri, "rb") as stream:
        if found.format == "parquet":
            yield from _read_parquet(stream)
        elif found.format == "json":
            yield _read_json(found, stream, file, most)
        else:
            yield _read_text(found, stream, file, most)


def _read_parquet(stream: Any) -> Iterator[pd.DataFrame]:
    table = pq.ParquetFile(stream)
    flat = [field.name for field in table.schema_arrow if not pa.types.is_nested(field.type)]
    for batch in table.iter_batches(65_536, columns=flat):
        yield pd.DataFrame({name: [_text(value) for value in batch.column(name).to_pylist()] for name in flat})


def _read_text(found: Look, stream: Any, file: File, most: int) -> pd.DataFrame:
    """Read a text under its own header; one that begins with data continues the first file, as parts of a cut file do."""
    names = _names(found)
    if found.has_header:
        rows = _read_delimited(found, stream, file, most, header=0, names=None)
        if len(set(names) & set(rows.columns)) > len(names) / 2:
            return rows.reindex(columns=list(names))
        stream.seek(0)
    return _read_delimited(found, stream, file, most, header=None, names=list(names))


def _read_delimited(
    found: Look, stream: Any, file: File, most: int, *, header: int | None, names: list[str] | None
) -> pd.DataFrame:
    separator = found.delimiter or ","
    is_long = len(separator) > 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pd.errors.ParserWarning)  # of lines with more fields than others
        return pd.read_csv(
            stream,
            sep=re.escape(separator) if is_long else separator,
            engine="python" if is_long else "c",
            header=header,
            names=names,
            index_col=False,
            dtype=str,
            keep_default_na=False,
            na_values=[""],
            encoding=found.encoding or "utf-8",
            encoding_errors="replace",
            compression=_compression(file),
            on_bad_lines="skip",
            quoting=csv.QUOTE_MINIMAL,
            nrows=most,
        )


def _read_json(found: Look, stream: Any, file: File, most: int) -> pd.DataFrame:
    unpacked: dict[str | None, Any] = {"gzip": gzip.open, "bz2": bz2.open}
    records = []
    with unpacked.get(_compression(file), nullcontext)(stream) as raw:
        for line in io.TextIOWrapper(raw, encoding=found.encoding or "utf-8", errors="replace"):
            with suppress(ValueError):
                value = json.loads(line)
                records.append([_text(_field(value, name)) for name in found.names])
            if len(records) >= most:
                break
    return pd.DataFrame(records, columns=list(found.names), dtype=object)


def _read_delta(path: str, most: int) -> pd.DataFrame:
    from deltalake import DeltaTable, QueryBuilder

    rows = QueryBuilder().register("data", DeltaTable(path)).execute(f"SELECT * FROM data LIMIT {most}").read_all()
    return pd.DataFrame({name: [_text(value) for value in rows.column(name).to_pylist()] for name in rows.column_names})


def _field(record: Any, name: str) -> Any:
    if not isinstance(record, dict) or name in record:
        return record.get(name) if isinstance(record, dict) else None
    first, _, rest = name.partition(".")
    return _field(record.get(first), rest) if rest else None


def _text(value: Any) -> str | None:
    """Return a value as text: whole floats (pandas makes them of integers with gaps) without their ``.0``."""
    if value is None or value != value or isinstance(value, dict | list):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _compression(file: File) -> Any:
    return {"gz": "gzip", "bz2": "bz2"}.get(file.name.rsplit(".", 1)[-1])
