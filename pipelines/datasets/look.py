"""A look at a log or catalogue on the driver, without Spark: what it is, and what its columns hold."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow.parquet as pq

from dr_core.errors import InputError
from pipelines.datasets import amazon, movielens
from pipelines.datasets.paths import File, Source, find_source
from pipelines.datasets.preset import ColumnLook, Preset
from pipelines.datasets.text import Head, TextHead, decode, looks_like_header, read_heads, tell_delimiter

NUM_VALUES = 20
PhysicalFormat = Literal["parquet", "csv", "json", "delta"]


@dataclass(frozen=True)
class Look:
    """What a path holds, told from contents.

    Attributes:
        path: as the user wrote it.
        format: ``parquet``, ``csv`` (any delimited text), ``json`` (one object a line) or ``delta``.
        delimiter: of delimited text.
        encoding: of text: by its byte order mark, else the one asked for.
        has_header: of delimited text: whether the first record names the columns. Without a header the columns are
            called ``_1``, ``_2``, … or as the caller named them.
        columns: of the first file; of a Delta table that only Spark can open none.
        num_files: files that are not empty.
        num_bytes: their size; of a Delta table 0.
        preset: what the columns mean, when the contents are those of a public data set in its original files.
        is_valid_text: whether the first file's head is valid in the encoding.
        rows: the first records of delimited text, the header included.
    """

    path: str
    format: PhysicalFormat
    columns: tuple[ColumnLook, ...]
    num_files: int
    num_bytes: int
    delimiter: str | None = None
    encoding: str | None = None
    has_header: bool | None = None
    preset: Preset | None = None
    is_valid_text: bool = True
    rows: tuple[tuple[str, ...], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Return the columns' names."""
        return tuple(column.name for column in self.columns)


def look(
    path: str,
    what: str = "log",
    *,
    delimiter: str = "auto",
    encoding: str | None = None,
    column_names: Sequence[str] = (),
    wanted: Sequence[str] = (),
    quoted: bool = True,
    opens_tables: bool = True,
) -> Look:
    """Look at the first file that a path names, and at the first bytes of all.

    Args:
        path: a file, a folder, or a pattern with ``*``.
        what: ``log`` or ``catalogue``, for messages.
        delimiter: of delimited text; ``auto`` tells it.
        encoding: of text; None is UTF-8. A byte order mark says it too, and must not say another.
        column_names: names of the columns, by position, of files without a header.
        wanted: names that a header should hold, which help to tell the delimiter.
        quoted: whether fields of delimited text may stand in quotes.
        opens_tables: whether to look at the columns of Parquet and Delta as well.

    Raises:
        InputError: nothing is there, nothing is in it, or it is of a kind that is not read.
    """
    source = find_source(path, what)
    if source.is_delta:
        return Look(path, "delta", tuple(_delta_columns(str(source.root))) if opens_tables else (), 0, 0)
    heads = read_heads(source)
    kind = one_kind(source, heads)
    found = Look(path, kind, (), len(heads), source.num_bytes)
    if kind == "parquet":
        return replace(found, columns=tuple(_parquet_columns(source, heads[0].file)) if opens_tables else ())
    text = next(
        (
            text
            for head in heads
            if (text := decode(head, encoding or "utf-8", what, is_given=encoding is not None)).text.strip()
        ),
        None,
    )
    if text is None:
        raise InputError(f"the {what} {path} holds no rows")
    found = replace(found, encoding=text.encoding, is_valid_text="\ufffd" not in text.text)
    if kind == "json":
        columns = columns_of_objects(json_objects(text, what))
        return replace(found, columns=columns, preset=amazon.recognise_objects(columns))
    if delimiter == "auto":
        delimiter = tell_delimiter(text, wanted, len(column_names) or None)
    rows = text.records(delimiter, quoted=quoted)
    if not rows:
        raise InputError(f"the {what} {path} holds no rows")
    has_header = not column_names and (bool(set(wanted) & set(rows[0])) or looks_like_header(rows))
    names = rows[0] if has_header else [*column_names, *(f"_{at + 1}" for at in range(len(column_names), len(rows[0])))]
    body = rows[1:] if has_header else rows
    columns = tuple(
        ColumnLook(name, tuple(row[at] if at < len(row) else None for row in body[:NUM_VALUES]))
        for at, name in enumerate(names)
    )
    preset = movielens.recognise(rows, delimiter, text.file.name) or amazon.recognise(rows)
    kept = tuple(tuple(row) for row in rows)
    return replace(found, delimiter=delimiter, has_header=has_header, columns=columns, preset=preset, rows=kept)


def one_kind(source: Source, heads: Sequence[Head]) -> Literal["parquet", "csv", "json"]:
    """Return the kind of all files; refuse several kinds at once, naming a file of each."""
    examples = {head.kind: source.short_name(head.file) for head in reversed(heads) if head.kind != "csv" or head.data}
    if len(examples) > 1:
        named = ", ".join(f"{name} ({kind})" for kind, name in sorted(examples.items()))
        raise InputError(
            f"the {source.what} {source.path} holds files of several formats: {named}: name one kind alone"
        )
    return next(iter(examples), "csv")


def json_objects(text: TextHead, what: str) -> list[dict[str, Any]]:
    """Return the objects of the first lines; lines that are none are left out.

    Raises:
        InputError: the file is no JSON lines.
    """
    where = f"the {what} {text.file.uri}"
    if text.text.lstrip().startswith("["):
        raise InputError(f"{where} is one JSON array: write one object a line (jq -c '.[]' FILE)")
    objects = [value for line in text.text.split("\n") if isinstance(value := _parse(line), dict)]
    if not objects:
        raise InputError(f"{where} is no JSON lines: the first line of it is not a JSON object (one object a line)")
    return objects


def _parse(line: str) -> object:
    """Return a line's value; the metadata of Amazon's 2014 release are Python literals."""
    try:
        return json.loads(line)
    except ValueError:
        pass
    try:
        return ast.literal_eval(line.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def columns_of_objects(objects: Sequence[dict[str, Any]]) -> tuple[ColumnLook, ...]:
    """Return the keys of objects, with nested ones by dotted names after their parent."""
    names = dict.fromkeys(key for record in objects for key in _keys(record))
    return tuple(
        ColumnLook(name, tuple(_as_text(_value(record, name)) for record in objects[:NUM_VALUES])) for name in names
    )


def _keys(record: dict[str, Any], prefix: str = "") -> Iterable[str]:
    for key, value in record.items():
        yield prefix + key
        if isinstance(value, dict) and prefix.count(".") < 3:
            yield from _keys(value, f"{prefix}{key}.")


def _value(record: Any, name: str) -> Any:
    if not isinstance(record, dict) or name in record:
        return record.get(name) if isinstance(record, dict) else None
    first, _, rest = name.partition(".")
    return _value(record.get(first), rest) if rest else None


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _parquet_columns(source: Source, file: File) -> Iterable[ColumnLook]:
    with source.filesystem.open(file.uri, "rb") as stream:
        try:
            table = pq.ParquetFile(stream)
            schema = table.schema_arrow
            rows = next(table.iter_batches(NUM_VALUES), None)
        except (OSError, ValueError) as error:
            raise InputError(
                f"the {source.what} {file.uri} cannot be read: it is torn, or no Parquet file ({_first_line(error)})"
            ) from error
    for at, field in enumerate(schema):
        values = [] if rows is None else rows.column(at).to_pylist()
        yield ColumnLook(field.name, tuple(None if value is None else str(value) for value in values), str(field.type))


def _delta_columns(path: str) -> Iterable[ColumnLook]:
    from deltalake import DeltaTable, QueryBuilder
    from deltalake.exceptions import DeltaError

    try:
        table = DeltaTable(path)
        fields = table.schema().fields
    except (DeltaError, OSError, ValueError):
        return  # on a file system, or of a kind, that delta-rs does not know
    try:
        rows = QueryBuilder().register("data", table).execute(f"SELECT * FROM data LIMIT {NUM_VALUES}").read_all()
        values = {name: rows.column(name).to_pylist() for name in rows.column_names}
    except (DeltaError, OSError, ValueError, AttributeError):
        values = {}
    for field in fields:
        texts = tuple(None if value is None else str(value) for value in values.get(field.name, ()))
        yield ColumnLook(field.name, texts, str(getattr(field.type, "type", field.type)))


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0][:200]
