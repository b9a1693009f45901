"""Files of any format as frames: one for each set of columns that the files have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from dr_core.errors import InputError
from pipelines.datasets.headers import Wanted, plan_parts
from pipelines.datasets.json_frames import json_frames
from pipelines.datasets.look import one_kind
from pipelines.datasets.parquet_frames import parquet_frames, with_nested
from pipelines.datasets.paths import Source, find_source
from pipelines.datasets.quotes import with_spanning_files_apart
from pipelines.datasets.rawframe import (
    CORRUPT_RECORD,
    REPEATS_HEADER,
    UNDECODABLE,
    column_of,
    is_undecodable,
    permissive_reader,
    reading,
    with_position,
)
from pipelines.datasets.text import TextHead, decode, java_encoding, read_heads


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
        frame = with_position(spark.read.format("delta").load(str(source.root)))
        return [with_nested(frame, source, source.path, wanted)]
    heads = read_heads(source)
    kind = one_kind(source, heads)
    if kind == "parquet":
        return parquet_frames(spark, source, wanted)
    texts = [
        decode(head, options.encoding or "utf-8", source.what, is_given=options.encoding is not None) for head in heads
    ]
    if kind == "json":
        return json_frames(spark, source, texts, wanted, ids, only=json_keys)
    return _csv_frames(spark, source, texts, wanted, ids, options)


def _csv_frames(
    spark: SparkSession,
    source: Source,
    texts: Sequence[TextHead],
    wanted: Wanted,
    ids: Sequence[str],
    options: TextOptions,
) -> Iterable[DataFrame]:
    folder_columns = source.folder_columns
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
            reader = reader.option("basePath", str(source.root))
        frame = with_position(
            reader.csv(
                source.for_spark(part.files),
                header=part.has_header,
                sep=part.delimiter,
                encoding=java_encoding(part.encoding),
                quote='"' if options.quoted else "",
                escape='"' if options.quoted else None,
                multiLine=part.spans_lines or None,
            )
        )
        marks = {UNDECODABLE: is_undecodable(ids)}
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


def _is_header_again(names: Sequence[str]) -> Column:
    """Return whether a row holds the names of its columns: files with headers were put one after the other."""
    mark = F.lit(True)
    for name in names:
        mark = mark & column_of(name).eqNullSafe(F.lit(name))
    return mark
