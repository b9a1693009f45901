"""The raw frame that every log format is turned into: named columns, typed where possible, nothing dropped.

Raw logs have the columns of :data:`RAW_LOG_COLUMNS`; any of them may be null, and nothing is cleaned. ``source_file``,
``block_start`` and ``file_row`` order rows as they stand in the files (splits of one file are read apart, so a
running number alone does not), hence ties in time keep file order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, PySparkException
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
    "is_malformed", "raw_row", *FILE_ORDER,
)  # fmt: skip
RAW_CATALOGUE_COLUMNS = (
    "item", "is_inexact", "title", "category", "creator", "active", "raw_active", "first_seen", "is_malformed", "raw_row",
    *FILE_ORDER,
)  # fmt: skip
CORRUPT_RECORD = "_corrupt_record"
_NESTED = (T.ArrayType, T.MapType, T.StructType, T.BinaryType)


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
        if not isinstance(error, AnalysisException) and "FAILED_READ_FILE" not in text:
            raise
        reason = re.search(r"\[FAILED_READ_FILE[A-Z_.]*\] ([^\n]+)", text) or re.search(
            r"\[[A-Z][A-Z_.]+\] ([^\n]+)", text
        )
        raise InputError(f"the {what} {path} cannot be read: {reason[1][:300] if reason else text[:300]}") from error


def read_source(path: str, what: str, read: Callable[[], DataFrame]) -> DataFrame:
    """Run a Spark read and add the file position; turn Spark's error for a bad path or file into one line.

    Args:
        path: what the user named.
        what: ``log`` or ``catalogue``, for the message.
        read: builds the frame.

    Raises:
        InputError: the path is missing, unreadable or holds no rows.
    """
    with reading(path, what):
        frame = read()
        is_empty = frame.isEmpty()
    if is_empty:
        raise InputError(f"the {what} {path} holds no rows")
    return frame.select(
        "*",
        F.col("_metadata.file_path").alias("__file"),
        F.col("_metadata.file_block_start").alias("__block"),
        F.monotonically_increasing_id().alias("__row"),
    )


def permissive_reader(spark: SparkSession, schema: str) -> DataFrameReader:
    """Return a reader of text formats that keeps a line it cannot parse, whole, in the column ``CORRUPT_RECORD``.

    Columns of CSV are not pruned: a line of the wrong width would pass as good in queries that read only some of them.
    """
    reader = spark.read.schema(f"{schema}, `{CORRUPT_RECORD}` string").option("columnPruning", "false")
    return reader.option("mode", "PERMISSIVE").option("columnNameOfCorruptRecord", CORRUPT_RECORD)


def raw_logs(
    source: DataFrame, path: str, columns: LogColumns, times: TimeRule, missing_ids: Sequence[str] = MISSING_IDS
) -> DataFrame:
    """Turn a source frame of :func:`read_source` into the raw frame of :data:`RAW_LOG_COLUMNS`.

    Raises:
        InputError: a mapped column is missing, or is of a type that cannot hold it.
        ConfigError: the times' pattern is none.
    """
    times.check(source.sparkSession)
    wanted = {name: column for name, column in columns.model_dump().items() if column is not None}
    fields = _find_fields(source, path, "log", wanted, prefix="columns")
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
        _is_malformed(source).alias("is_malformed"),
        _raw_row(source).alias("raw_row"),
        F.col("__file").alias("source_file"),
        F.col("__block").alias("block_start"),
        F.col("__row").alias("file_row"),
    )


def raw_catalogue(
    source: DataFrame, path: str, columns: CatalogueColumns, times: TimeRule, missing_ids: Sequence[str] = MISSING_IDS
) -> DataFrame:
    """Turn a source frame of :func:`read_source` into the raw frame of :data:`RAW_CATALOGUE_COLUMNS`; errors as for
    the log."""
    wanted = {name: column for name, column in columns.model_dump().items() if column is not None}
    fields = _find_fields(source, path, "catalogue", wanted, prefix="catalogue_columns")
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
        _is_malformed(source).alias("is_malformed"),
        _raw_row(source).alias("raw_row"),
        F.col("__file").alias("source_file"),
        F.col("__block").alias("block_start"),
        F.col("__row").alias("file_row"),
    )


def list_columns(frame: DataFrame) -> str:
    """Return the columns of a source frame as text for an error message."""
    return ", ".join(name for name in frame.columns if not name.startswith("__") and name != CORRUPT_RECORD)


def first_text_line(spark: SparkSession, path: str) -> str:
    """Return the first line of a text file (gzip too); raise :class:`InputError` when there is none."""
    with reading(path, "log"):
        row = spark.read.text(path).first()
    if row is None:
        raise InputError(f"the log {path} holds no rows")
    return str(row[0])


def _find_fields(
    source: DataFrame, path: str, what: str, wanted: dict[str, str], prefix: str
) -> dict[str, T.StructField]:
    available = {field.name: field for field in source.schema.fields}
    for name, column in wanted.items():
        if column not in available:
            raise InputError(
                f"the {what} {path} has no column '{column}' (dataset.{prefix}.{name});"
                f" columns found: {list_columns(source)}"
            )
    return {name: available[column] for name, column in wanted.items()}


def _column(field: T.StructField) -> Column:
    return F.col(f"`{field.name}`")


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
    return column.cast("string").try_cast(kind) if isinstance(field.dataType, _NESTED) else column.try_cast(kind)


def _text(field: T.StructField | None) -> Column:
    if field is None:
        return F.lit(None).cast("string")
    column = _column(field)
    data_type = field.dataType
    while isinstance(data_type, T.ArrayType) and isinstance(data_type.elementType, T.ArrayType):
        column, data_type = F.flatten(column), data_type.elementType
    return F.array_join(column, "|") if isinstance(data_type, T.ArrayType) else column.cast("string")


def _is_malformed(source: DataFrame) -> Column:
    return F.col(CORRUPT_RECORD).isNotNull() if CORRUPT_RECORD in source.columns else F.lit(False)


def _raw_row(source: DataFrame) -> Column:
    names: Iterable[str] = (name for name in source.columns if not name.startswith("__"))
    return F.struct(*(F.col(f"`{name}`") for name in names))
