"""Files of any format as frames: one for each set of columns that the files have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from dr_core.errors import InputError
from pipelines.datasets.headers import Wanted, plan_parts, refuse_missing
from pipelines.datasets.look import columns_of_objects, json_objects, one_kind
from pipelines.datasets.paths import File, Source, find_source, literal
from pipelines.datasets.quotes import with_spanning_files_apart
from pipelines.datasets.rawframe import (
    CORRUPT_RECORD,
    REPEATS_HEADER,
    UNDECODABLE,
    column_of,
    permissive_reader,
    reading,
    with_position,
)
from pipelines.datasets.text import Head, decode, read_heads

JAVA_NAMES = {"utf-16-le": "UTF-16LE", "utf-16-be": "UTF-16BE", "cp932": "windows-31j"}
"""Encodings that Java calls otherwise than Python."""


@dataclass(frozen=True)
class TextOptions:
    """How text is to be read; see :class:`pipelines.datasets.interactions.DatasetConfig`."""

    delimiter: str = "auto"
    encoding: str | None = None
    column_names: tuple[str, ...] = ()
    quoted: bool = True
    prefix: str = "dataset"
    """Of the settings, for messages."""


def read_frames(
    spark: SparkSession,
    path: str,
    what: str,
    wanted: Wanted,
    ids: Sequence[str],
    options: TextOptions,
    *,
    json_keys: Sequence[str] = (),
) -> list[DataFrame]:
    """Read files as frames that hold the wanted columns under their names, and those of ``with_position``.

    Args:
        spark: the session.
        path: what the user named.
        what: ``log`` or ``catalogue``, for messages.
        wanted: the columns that are needed, by the settings that name them.
        ids: those of them that hold ids: a row is marked when they are not valid in the encoding.
        options: of text.
        json_keys: the only keys of JSON lines to read; none means all.

    Raises:
        InputError: a file is missing, unreadable, lacks a column, or all hold no rows.
    """
    source = find_source(path, what)
    with reading(path, what):
        frames = list(_frames(spark, source, wanted, ids, options, json_keys))
        if all(frame.isEmpty() for frame in frames):
            raise InputError(f"the {what} {path} holds no rows")
    return frames


def _frames(
    spark: SparkSession,
    source: Source,
    wanted: Wanted,
    ids: Sequence[str],
    options: TextOptions,
    json_keys: Sequence[str],
) -> Iterable[DataFrame]:
    if source.is_delta:
        frame = with_position(spark.read.format("delta").load(source.path))
        return [_with_nested(frame, source, source.path, wanted)]
    heads = read_heads(source)
    kind = one_kind(source, heads)
    if kind == "parquet":
        return _parquet_frames(spark, source, wanted)
    if kind == "json":
        return _json_frames(spark, source, heads, wanted, ids, options, json_keys)
    return _csv_frames(spark, source, heads, wanted, ids, options)


def _paths(source: Source, files: Sequence[File], num_files: int) -> list[str]:
    """Return what Spark is to read: a flat folder as such when all of its files are read alike, else every file."""
    root = source.path.rstrip("/")
    is_flat = all(all("=" in part for part in source.short_name(file).split("/")[:-1]) for file in files)
    if source.is_folder and is_flat and len(files) == num_files:
        return [literal(root)]
    return [literal(file.uri) for file in files]


def _folder_columns(source: Source) -> list[str]:
    """Return the names that folders called ``name=value`` give to all files below them."""
    if not source.is_folder or not source.files:
        return []
    parts = source.short_name(source.files[0]).split("/")[:-1]
    return [part.split("=", 1)[0] for part in parts if "=" in part]


def _csv_frames(
    spark: SparkSession,
    source: Source,
    heads: Sequence[Head],
    wanted: Wanted,
    ids: Sequence[str],
    options: TextOptions,
) -> Iterable[DataFrame]:
    texts = [
        decode(head, options.encoding or "utf-8", source.what, is_given=options.encoding is not None) for head in heads
    ]
    folder_columns = _folder_columns(source)
    parts = plan_parts(
        source,
        texts,
        wanted,
        delimiter=options.delimiter,
        column_names=options.column_names,
        extra_names=folder_columns,
        quoted=options.quoted,
        prefix=options.prefix,
    )
    if options.quoted:
        parts = with_spanning_files_apart(spark, source, parts)
    for part in parts:
        names = safe_names(part.names, [*wanted.values(), *folder_columns])
        reader = permissive_reader(spark, [*names, *folder_columns])
        if folder_columns:
            reader = reader.option("basePath", literal(source.path.rstrip("/")))
        frame = with_position(
            reader.csv(
                _paths(source, part.files, len(texts)),
                header=part.has_header,
                sep=part.delimiter,
                encoding=JAVA_NAMES.get(part.encoding, part.encoding),
                quote='"' if options.quoted else "",
                escape='"' if options.quoted else None,
                multiLine=part.spans_lines or None,
            )
        )
        marks = {UNDECODABLE: _is_undecodable(ids)}
        if not options.column_names:
            marks[REPEATS_HEADER] = _is_header_again(list(wanted.values()))
        yield frame.withColumns(marks)


def safe_names(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return names that Spark tells apart, which does not look at case; the wanted ones stay as they are."""
    taken = {name.casefold() for name in (*wanted, CORRUPT_RECORD)}
    result: list[str] = []
    for at, name in enumerate(names):
        safe = name
        if name not in wanted or name in result:
            safe = name.strip() or f"_c{at}"
            while safe.casefold() in taken or safe.startswith("__"):
                safe = f"{safe.lstrip('_')}_{at}"
            taken.add(safe.casefold())
        result.append(safe)
    return result


def _is_undecodable(ids: Sequence[str]) -> Column:
    mark = F.lit(False)
    for name in ids:
        mark = mark | F.coalesce(column_of(name).contains("\ufffd"), F.lit(False))
    return mark


def _is_header_again(names: Sequence[str]) -> Column:
    """Return whether a row holds the names of its columns: files with headers were put one after the other."""
    mark = F.lit(True)
    for name in names:
        mark = mark & column_of(name).eqNullSafe(F.lit(name))
    return mark


def _json_frames(
    spark: SparkSession,
    source: Source,
    heads: Sequence[Head],
    wanted: Wanted,
    ids: Sequence[str],
    options: TextOptions,
    only: Sequence[str],
) -> Iterable[DataFrame]:
    keys: dict[str, None] = {}
    lists: set[str] = set()
    encodings = set()
    for head in heads:
        text = decode(head, options.encoding or "utf-8", source.what, is_given=options.encoding is not None)
        if not text.text.strip():
            continue
        if text.encoding.startswith(("utf-16", "utf-32")):
            raise InputError(f"the {source.what} {head.file.uri} is JSON lines in {text.encoding}: convert it to UTF-8")
        columns = columns_of_objects(json_objects(text, source.what))
        names = [column.name for column in columns]
        lists |= {column.name for column in columns if any(str(value).startswith("[") for value in column.values)}
        if not set(wanted.values()) <= set(names):
            refuse_missing(f"the {source.what} {head.file.uri}", wanted, names)
        keys |= dict.fromkeys(names)
        encodings.add(text.encoding)
    if not encodings:
        raise InputError(f"the {source.what} {source.path} holds no rows")
    flat = [name for name in keys if name in wanted.values() and not _is_nested(name, keys)]
    tops = [name for name in keys if not _is_nested(name, keys)]
    seen = {name.casefold() for name in flat}
    for name in tops:
        if name not in flat and name.casefold() not in seen and (not only or name in only):
            seen.add(name.casefold())
            flat.append(name)
    reader = permissive_reader(spark, [name for name in tops if name in flat])
    frame = with_position(
        reader.json(
            _paths(source, [head.file for head in heads], len(heads)),
            encoding=JAVA_NAMES.get(max(encodings), max(encodings)),
        )
    )
    nested = {
        name: F.get_json_object(column_of(name.split(".", 1)[0]), "$." + name.split(".", 1)[1])
        for name in wanted.values()
        if name not in flat
    }
    joined = {name: _joined_list(column_of(name)) for name in wanted.values() if name in lists and name not in ids}
    return [frame.withColumns(nested).withColumns(joined | {UNDECODABLE: _is_undecodable(ids)})]


def _joined_list(column: Column) -> Column:
    """Return a JSON list, of texts or of lists of texts, joined with ``|``; other text as it is."""
    lists, texts = F.from_json(column, "array<array<string>>"), F.from_json(column, "array<string>")
    is_nested = column.rlike(r"^\s*\[\s*\[")
    joined = F.when(is_nested, F.array_join(F.flatten(lists), "|")).when(
        column.startswith("["), F.array_join(texts, "|")
    )
    return F.coalesce(joined, column)


def _is_nested(name: str, keys: Iterable[str]) -> bool:
    return "." in name and name.split(".", 1)[0] in keys


def _parquet_frames(spark: SparkSession, source: Source, wanted: Wanted) -> Iterable[DataFrame]:
    files = [file for file in source.files if file.size]
    with ThreadPoolExecutor(16) as pool:
        schemas = list(pool.map(lambda file: _parquet_schema(source, file), files))
    groups: dict[tuple[tuple[str, str], ...], list[File]] = {}
    examples: dict[tuple[tuple[str, str], ...], _ParquetColumns] = {}
    for file, columns in zip(files, schemas, strict=True):
        key = columns.key
        groups.setdefault(key, []).append(file)
        examples.setdefault(key, columns)
    folder_columns = _folder_columns(source)
    complete = next((key for key, columns in examples.items() if _has_all(wanted, columns, folder_columns)), None)
    for key, part in groups.items():
        columns = examples[key]
        if not _has_all(wanted, columns, folder_columns):
            unlike = f", unlike {source.short_name(groups[complete][0])}" if complete else ""
            refuse_missing(f"the {source.what} {part[0].uri}", wanted, [*columns.names, *folder_columns], unlike=unlike)
        yield _parquet_frame(spark, source, part, columns, wanted, len(files))


@dataclass(frozen=True)
class _ParquetColumns:
    """The columns of a Parquet file: as Arrow sees them, and which hold nanoseconds as integers."""

    schema: pa.Schema
    nanoseconds: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        return list(self.schema.names)

    @property
    def key(self) -> tuple[tuple[str, str], ...]:
        return tuple((field.name, f"{field.type} {field.name in self.nanoseconds}") for field in self.schema)


def _has_all(wanted: Wanted, columns: _ParquetColumns, folder_columns: Sequence[str]) -> bool:
    return all(
        name in columns.names or name in folder_columns or _arrow_type(columns.schema, name) is not None
        for name in wanted.values()
    )


def _arrow_type(schema: pa.Schema, name: str) -> pa.DataType | None:
    """Return the type of a column, or of a field of a struct by its dotted name."""
    if name in schema.names:
        return schema.field(schema.names.index(name)).type
    first, _, rest = name.partition(".")
    if not rest or first not in schema.names:
        return None
    kind = schema.field(schema.names.index(first)).type
    return _arrow_type(pa.schema(list(kind)), rest) if pa.types.is_struct(kind) else None


def _parquet_schema(source: Source, file: File) -> _ParquetColumns:
    where = f"the {source.what} {file.uri}"
    try:
        with source.filesystem.open(file.uri, "rb") as stream:
            table = pq.ParquetFile(stream)
            schema, raw = table.schema_arrow, table.schema
    except (OSError, ValueError) as error:
        reason = str(error).split("\n", 1)[0][:200]
        raise InputError(f"{where} cannot be read: it is torn, or no Parquet file ({reason})") from error
    by_case: dict[str, str] = {}
    for name in schema.names:
        other = by_case.setdefault(name.casefold(), name)
        if other != name or schema.names.count(name) > 1:
            raise InputError(
                f"{where} has columns {other} and {name}, which differ in case at most: rename one of them"
            )
    leaves = {column.path: column for column in map(raw.column, range(len(raw.names)))}
    nanoseconds = tuple(
        field.name
        for field in schema
        if pa.types.is_timestamp(field.type)
        and field.type.unit == "ns"
        and field.name in leaves
        and leaves[field.name].physical_type == "INT64"
    )
    return _ParquetColumns(schema, nanoseconds)


def _parquet_frame(
    spark: SparkSession,
    source: Source,
    files: Sequence[File],
    columns: _ParquetColumns,
    wanted: Wanted,
    num_files: int,
) -> DataFrame:
    reader = spark.read
    kept = [field for field in columns.schema if is_readable(field.type)]
    if len(kept) < len(columns.schema):
        for setting, name in wanted.items():
            if name in columns.names and name not in {field.name for field in kept}:
                kind = columns.schema.field(columns.names.index(name)).type
                raise InputError(
                    f"column '{name}' ({setting}) of the {source.what} {files[0].uri} is {kind}, which is not read:"
                    " write it as text or a number"
                )
        fields = (
            (field.name, "bigint" if field.name in columns.nanoseconds else spark_type(field.type)) for field in kept
        )
        reader = reader.schema(T.StructType([T.StructField(name, T.DataType.fromDDL(kind)) for name, kind in fields]))
    if _folder_columns(source):
        reader = reader.option("basePath", literal(source.path.rstrip("/")))
    frame = with_position(reader.parquet(*_paths(source, files, num_files)))
    moments = {name: _from_nanoseconds(column_of(name)) for name in columns.nanoseconds}
    return _with_nested(frame.withColumns(moments) if moments else frame, source, files[0].uri, wanted)


def _from_nanoseconds(column: Column) -> Column:
    whole = (column - F.pmod(column, F.lit(1000))).cast("decimal(20,0)") / F.lit(1000).cast("decimal(4,0)")
    return F.timestamp_micros(whole.cast("bigint"))


def _with_nested(frame: DataFrame, source: Source, where: str, wanted: Wanted) -> DataFrame:
    """Add the fields of structs that are wanted by their dotted names."""
    nested = {}
    for name in wanted.values():
        if name not in frame.columns:
            if not _has_field(frame.schema, name.split(".")):
                found = [column for column in frame.columns if not column.startswith("__")]
                refuse_missing(f"the {source.what} {where}", wanted, found)
            nested[name] = reduce(
                lambda column, field: column.getField(field), name.split(".")[1:], column_of(name.split(".")[0])
            )
    return frame.withColumns(nested) if nested else frame


def _has_field(schema: T.DataType, parts: Sequence[str]) -> bool:
    if not parts:
        return True
    return (
        isinstance(schema, T.StructType)
        and parts[0] in schema.names
        and _has_field(schema[parts[0]].dataType, parts[1:])
    )


def is_readable(kind: pa.DataType) -> bool:
    """Tell whether Spark reads a type of Parquet: not times of day, half floats or decimals of more than 38 digits."""
    if pa.types.is_nested(kind):
        return all(is_readable(kind.field(at).type) for at in range(kind.num_fields))
    if pa.types.is_decimal(kind):
        return bool(kind.precision <= 38)
    return not (pa.types.is_time(kind) or pa.types.is_float16(kind))


def spark_type(kind: pa.DataType) -> str:
    """Return the type that Spark reads a type of Parquet as."""
    types = pa.types
    if types.is_dictionary(kind):
        return spark_type(kind.value_type)
    if types.is_map(kind):
        return f"map<{spark_type(kind.key_type)},{spark_type(kind.item_type)}>"
    if types.is_struct(kind):
        inner = (f"`{field.name.replace('`', '``')}`: {spark_type(field.type)}" for field in kind)
        return f"struct<{', '.join(inner)}>"
    if types.is_nested(kind):
        return f"array<{spark_type(kind.value_type)}>"
    if types.is_timestamp(kind):
        return "timestamp" if kind.tz or kind.unit == "ns" else "timestamp_ntz"
    if types.is_decimal(kind):
        return f"decimal({kind.precision},{kind.scale})"
    if types.is_date(kind):
        return "date"
    names = {
        "int8": "tinyint", "int16": "smallint", "int32": "int", "int64": "bigint", "uint8": "smallint", "uint16": "int",
        "uint32": "bigint", "uint64": "decimal(20,0)", "float": "float", "double": "double", "bool": "boolean",
        "string": "string", "large_string": "string", "null": "int",
    }  # fmt: skip
    return names.get(str(kind), "bigint" if types.is_duration(kind) else "binary")
