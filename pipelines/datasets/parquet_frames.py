"""Parquet files as frames: one for each schema that they have."""

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
from pipelines.datasets.headers import Wanted, refuse_missing
from pipelines.datasets.paths import File, Source
from pipelines.datasets.rawframe import column_of, with_position


def parquet_frames(spark: SparkSession, source: Source, wanted: Wanted) -> Iterable[DataFrame]:
    """Read Parquet files as frames: one for each schema, with the columns that Spark can read.

    Raises:
        InputError: a file is torn, lacks a column that is wanted, or holds it in a type that Spark cannot read.
    """
    files = [file for file in source.files if file.size]
    with ThreadPoolExecutor(16) as pool:
        schemas = list(pool.map(lambda file: _parquet_schema(source, file), files))
    groups: dict[tuple[tuple[str, str], ...], list[File]] = {}
    examples: dict[tuple[tuple[str, str], ...], _ParquetColumns] = {}
    for file, columns in zip(files, schemas, strict=True):
        key = columns.key
        groups.setdefault(key, []).append(file)
        examples.setdefault(key, columns)
    folder_columns = source.folder_columns
    complete = next((key for key, columns in examples.items() if _has_all(wanted, columns, folder_columns)), None)
    for key, part in groups.items():
        columns = examples[key]
        if not _has_all(wanted, columns, folder_columns):
            unlike = f", unlike {source.short_name(groups[complete][0])}" if complete else ""
            refuse_missing(f"the {source.what} {part[0].uri}", wanted, [*columns.names, *folder_columns], unlike=unlike)
        yield _parquet_frame(spark, source, part, columns, wanted)


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
    if source.folder_columns:
        reader = reader.option("basePath", str(source.root))
    frame = with_position(reader.parquet(*source.for_spark(files)))
    zones = {field.name: field.type.tz for field in columns.schema if field.name in columns.nanoseconds}
    moments = {
        name: _from_nanoseconds(column_of(name)).cast("timestamp" if zone else "timestamp_ntz")
        for name, zone in zones.items()
    }
    return with_nested(frame.withColumns(moments) if moments else frame, source, files[0].uri, wanted)


def _from_nanoseconds(column: Column) -> Column:
    whole = (column - F.pmod(column, F.lit(1000))).cast("decimal(20,0)") / F.lit(1000).cast("decimal(4,0)")
    return F.timestamp_micros(whole.cast("bigint"))


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


def with_nested(frame: DataFrame, source: Source, where: str, wanted: Wanted) -> DataFrame:
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
