"""The raw frame that every log format is turned into: named columns, typed where possible, nothing dropped.

Raw logs have the columns of :data:`RAW_LOG_COLUMNS`; any of them may be null, and nothing is cleaned. ``source_file``,
``block_start`` and ``file_row`` order rows as they stand in the files (splits of one file are read apart, so a
running number alone does not), hence ties in time keep file order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, IllegalArgumentException, PySparkException
from pyspark.sql import Column, DataFrame, DataFrameReader, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from dr_core.config import Config
from dr_core.errors import InputError
from pipelines.datasets.flags import ACTIVE, INACTIVE, is_nothing, word_flag
from pipelines.datasets.key_columns import key_column
from pipelines.datasets.keys import MISSING_IDS
from pipelines.datasets.times import TimeRule

FILE_ORDER = ("source_file", "block_start", "file_row")
RAW_LOG_COLUMNS = (
    "user", "item", "is_inexact", "event_time", "raw_time", "event_order", "rating", "label", "weight", "split",
    "is_malformed", "is_undecodable", "raw_row", *FILE_ORDER,
)  # fmt: skip
RAW_CATALOGUE_COLUMNS = (
    "item", "is_inexact", "title", "category", "creator", "active", "raw_active", "first_seen", "is_malformed",
    "is_undecodable", "raw_row", *FILE_ORDER,
)  # fmt: skip
CORRUPT_RECORD = "_corrupt_record"
REPEATS_HEADER, UNDECODABLE = "__repeats_header", "__undecodable"
"""Columns by which readers of text say that a row is the header again, or that its ids are not valid in the encoding."""
_NESTED = (T.MapType, T.ArrayType, T.StructType, T.VariantType)
_NOT_HASHED = (T.MapType, T.VariantType, T.DayTimeIntervalType, T.YearMonthIntervalType, T.CalendarIntervalType)
_NOT_A_NUMBER = (T.ArrayType, T.MapType, T.StructType, T.BinaryType)


class LogColumns(Config):
    """Which column of a log holds what. Ids may be text or numbers; :mod:`pipelines.datasets.keys` says which are one."""

    user: str = "user"
    """User id (or session id, where a session stands for a user)."""
    item: str = "item"
    """Item id."""
    time: str | None = None
    """Event time: a timestamp column, a number in ``time_unit``, ISO text with ``time_unit: timestamp``, or text or
    numbers in ``time_format``."""
    order: str | None = None
    """Position in the user's history (integer), for logs without a time; beside a time it breaks ties."""
    rating: str | None = None
    """Stars or another explicit score."""
    label: str | None = None
    """A flag (true/false, yes/no, 1/0) or a number that marks positives."""
    weight: str | None = None
    """Label weight, watch time or the like."""
    split: str | None = None
    """1 marks rows of later sessions or test users; used by ``split.users: column``."""


class CatalogueColumns(Config):
    """Which column of a catalogue holds what."""

    item: str = "item"
    """Item id, as in the log."""
    title: str | None = None
    """Text shown to people."""
    category: str | None = None
    """Topic or genre; lists are joined with ``|``."""
    creator: str | None = None
    """Author, channel or brand."""
    active: str | None = None
    """False, 0 or a word such as ``inactive``, ``sold out`` or ``discontinued`` retires an item: it leaves paths and
    index and keeps its id. A word that is not known is quarantined with its row."""
    first_seen: str | None = None
    """First moment of the item, in the same unit as the log's time; when absent, its first kept event."""


@contextmanager
def reading(path: str, what: str) -> Iterator[None]:
    """Turn Spark's errors about a file (missing, torn, of another format) into one line; let other errors pass.

    Raises:
        InputError: naming the path and Spark's reason.
    """
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        text = str(error)
        if not isinstance(error, AnalysisException | IllegalArgumentException) and "FAILED_READ_FILE" not in text:
            raise
        reason = re.search(r"\[FAILED_READ_FILE[A-Z_.]*\] ([^\n]+)", text) or re.search(
            r"\[[A-Z][A-Z_.]+\] ([^\n]+)", text
        )
        raise InputError(f"the {what} {path} cannot be read: {reason[1][:300] if reason else text[:300]}") from error


def with_position(frame: DataFrame) -> DataFrame:
    """Add where in the files a row stands."""
    return frame.select(
        "*",
        F.col("_metadata.file_path").alias("__file"),
        F.col("_metadata.file_block_start").alias("__block"),
        F.monotonically_increasing_id().alias("__row"),
    )


def is_undecodable(ids: Sequence[str]) -> Column:
    """Return whether one of the ids of a row of text holds what is not valid in its encoding."""
    mark = F.lit(False)
    for name in ids:
        mark = mark | F.coalesce(column_of(name).contains("\ufffd"), F.lit(False))
    return mark


def permissive_reader(spark: SparkSession, names: Iterable[str]) -> DataFrameReader:
    """Return a reader of text formats, with all fields text, that keeps a line it cannot parse, whole, in the column
    ``CORRUPT_RECORD``.

    Columns of CSV are not pruned: a line of the wrong width would pass as good in queries that read only some of them.
    """
    schema = T.StructType([T.StructField(name, T.StringType()) for name in (*names, CORRUPT_RECORD)])
    reader = spark.read.schema(schema).option("columnPruning", "false")
    return reader.option("mode", "PERMISSIVE").option("columnNameOfCorruptRecord", CORRUPT_RECORD)


def raw_logs(
    sources: Sequence[DataFrame],
    path: str,
    columns: LogColumns,
    times: TimeRule,
    missing_ids: Sequence[str] = MISSING_IDS,
) -> DataFrame:
    """Turn source frames into the raw frame of :data:`RAW_LOG_COLUMNS`.

    Args:
        sources: frames with the mapped columns and those of :func:`with_position`; several when files differ in theirs.
        path: named in errors.
        columns: which column holds what.
        times: how times are read.
        missing_ids: texts that mean "no id".

    Raises:
        InputError: a mapped column is of a type that cannot hold it.
        ConfigError: the times' pattern is none.
    """
    times.check(sources[0].sparkSession)
    row_types = _row_types(sources)
    frames = [_raw_log(source, path, columns, times, missing_ids, row_types) for source in sources]
    return reduce(DataFrame.unionByName, frames)


def _raw_log(
    source: DataFrame,
    path: str,
    columns: LogColumns,
    times: TimeRule,
    missing_ids: Sequence[str],
    row_types: dict[str, T.DataType | None],
) -> DataFrame:
    fields = _fields(source, columns)
    time, label = fields.get("time"), fields.get("label")
    user, is_inexact_user = _key(fields["user"], path, missing_ids)
    item, is_inexact_item = _key(fields["item"], path, missing_ids)
    return source.select(
        user.alias("user"),
        item.alias("item"),
        (is_inexact_user | is_inexact_item).alias("is_inexact"),
        _moment(time, times).alias("event_time"),
        (_column(time).cast("string") if time else F.lit(None).cast("string")).alias("raw_time"),
        _number(fields.get("order"), "bigint").alias("event_order"),
        _number(fields.get("rating"), "double").alias("rating"),
        F.coalesce(_number(label, "double"), word_flag(_text(label))).alias("label"),
        _number(fields.get("weight"), "double").alias("weight"),
        _number(fields.get("split"), "int").alias("split"),
        *_row_columns(source, row_types),
    )


def raw_catalogue(
    sources: Sequence[DataFrame],
    path: str,
    columns: CatalogueColumns,
    times: TimeRule,
    missing_ids: Sequence[str] = MISSING_IDS,
) -> DataFrame:
    """Turn source frames into the raw frame of :data:`RAW_CATALOGUE_COLUMNS`; arguments and errors as for the log."""
    row_types = _row_types(sources)
    frames = [_raw_items(source, path, columns, times, missing_ids, row_types) for source in sources]
    return reduce(DataFrame.unionByName, frames)


def _raw_items(
    source: DataFrame,
    path: str,
    columns: CatalogueColumns,
    times: TimeRule,
    missing_ids: Sequence[str],
    row_types: dict[str, T.DataType | None],
) -> DataFrame:
    fields = _fields(source, columns)
    first_seen = fields.get("first_seen")
    item, is_inexact = _key(fields["item"], path, missing_ids)
    raw_active = _text(fields.get("active"))
    active = F.coalesce(_number(fields.get("active"), "double"), word_flag(raw_active, ACTIVE, INACTIVE))
    return source.select(
        item.alias("item"),
        is_inexact.alias("is_inexact"),
        *(_text(fields.get(name)).alias(name) for name in ("title", "category", "creator")),
        F.when(active.isin(0, 1), active == 1).alias("active"),
        F.when(~is_nothing(raw_active), raw_active).alias("raw_active"),
        _moment(first_seen, times).alias("first_seen"),
        *_row_columns(source, row_types),
    )


def _row_columns(source: DataFrame, row_types: dict[str, T.DataType | None]) -> list[Column]:
    """Return what a raw frame says of a row as a whole: whether it can be used, the row, and where it stands."""
    return [
        _is_malformed(source).alias("is_malformed"),
        (F.col(UNDECODABLE) if UNDECODABLE in source.columns else F.lit(False)).alias("is_undecodable"),
        _raw_row(source, row_types).alias("raw_row"),
        F.col("__file").alias("source_file"),
        F.col("__block").alias("block_start"),
        F.col("__row").alias("file_row"),
    ]


def _fields(source: DataFrame, columns: LogColumns | CatalogueColumns) -> dict[str, T.StructField]:
    available = {field.name: field for field in source.schema.fields}
    return {name: available[column] for name, column in columns.model_dump().items() if column is not None}


def _column(field: T.StructField) -> Column:
    return column_of(field.name)


def column_of(name: str) -> Column:
    """Return a top-level column, whatever characters its name holds."""
    return F.col(f"`{name.replace('`', '``')}`")


def _key(field: T.StructField, path: str, missing: Sequence[str]) -> tuple[Column, Column]:
    return key_column(_column(field), field.dataType, f"column '{field.name}' of {path}", missing)


def _moment(field: T.StructField | None, times: TimeRule) -> Column:
    return times.read(_column(field), field.dataType) if field else F.lit(None).cast("timestamp")


def _number(field: T.StructField | None, kind: str) -> Column:
    if field is None:
        return F.lit(None).cast(kind)
    column = _column(field)
    if isinstance(field.dataType, T.BooleanType):
        return column.cast("int").cast(kind)
    return column.cast("string").try_cast(kind) if isinstance(field.dataType, _NOT_A_NUMBER) else column.try_cast(kind)


def _text(field: T.StructField | None) -> Column:
    if field is None:
        return F.lit(None).cast("string")
    column = _column(field)
    data_type = field.dataType
    while isinstance(data_type, T.ArrayType) and isinstance(data_type.elementType, T.ArrayType):
        column, data_type = F.flatten(column), data_type.elementType
    return F.array_join(column, "|") if isinstance(data_type, T.ArrayType) else column.cast("string")


def _is_malformed(source: DataFrame) -> Column:
    is_corrupt = F.col(CORRUPT_RECORD).isNotNull() if CORRUPT_RECORD in source.columns else F.lit(False)
    return is_corrupt | F.col(REPEATS_HEADER) if REPEATS_HEADER in source.columns else is_corrupt


def _row_types(sources: Sequence[DataFrame]) -> dict[str, T.DataType | None]:
    """Return the columns of all sources with the type that a raw row shows them in: text (None) where that is none which
    can be hashed, or sources differ."""
    types: dict[str, T.DataType | None] = {}
    for source in sources:
        for field in source.schema.fields:
            if not field.name.startswith("__"):
                shown = field.dataType if _can_be_hashed(field.dataType) else None
                types[field.name] = shown if types.setdefault(field.name, shown) == shown else None
    return types


def _can_be_hashed(data_type: T.DataType) -> bool:
    if isinstance(data_type, T.StructType):
        return all(_can_be_hashed(field.dataType) for field in data_type.fields)
    if isinstance(data_type, T.ArrayType):
        return _can_be_hashed(data_type.elementType)
    return not isinstance(data_type, _NOT_HASHED)


def _raw_row(source: DataFrame, row_types: dict[str, T.DataType | None]) -> Column:
    available = {field.name: field.dataType for field in source.schema.fields}
    return F.struct(*(_shown(available.get(name), name, kind).alias(name) for name, kind in row_types.items()))


def _shown(found: T.DataType | None, name: str, kind: T.DataType | None) -> Column:
    """Return a column as a raw row shows it: as it is, or as text."""
    if found is None:
        return F.lit(None).cast(kind or T.StringType())
    if kind is not None:
        return column_of(name)
    return F.to_json(column_of(name)) if isinstance(found, _NESTED) else column_of(name).cast("string")
