"""JSON lines as a frame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from dr_core.errors import InputError
from pipelines.datasets.headers import Wanted, refuse_missing
from pipelines.datasets.look import columns_of_objects, json_objects
from pipelines.datasets.paths import Source
from pipelines.datasets.rawframe import (
    CORRUPT_RECORD,
    UNDECODABLE,
    column_of,
    is_undecodable,
    permissive_reader,
    with_position,
)
from pipelines.datasets.text import TextHead, java_encoding


def json_frames(
    spark: SparkSession,
    source: Source,
    texts: Sequence[TextHead],
    wanted: Wanted,
    ids: Sequence[str],
    *,
    only: Sequence[str] = (),
) -> list[DataFrame]:
    """Read JSON lines as one frame, in which every key is text.

    Args:
        spark: the session.
        source: the files.
        texts: how they begin.
        wanted: the columns that are needed, by the settings that name them; ``a.b`` is key b of the object a.
        ids: those of them that hold ids.
        only: the only keys to read; none means all that the first lines hold.

    Raises:
        InputError: a file is no JSON lines, lacks a key, or is in an encoding that Spark cannot cut into lines.
    """
    keys: dict[str, None] = {}
    lists: set[str] = set()
    encodings = set()
    for text in texts:
        if not text.text.strip():
            continue
        if text.encoding.startswith(("utf-16", "utf-32")):
            raise InputError(f"the {source.what} {text.file.uri} is JSON lines in {text.encoding}: convert it to UTF-8")
        columns = columns_of_objects(json_objects(text, source.what))
        names = [column.name for column in columns]
        lists |= {column.name for column in columns if any(str(value).startswith("[") for value in column.values)}
        if not set(wanted.values()) <= {*names, *source.folder_columns}:
            refuse_missing(f"the {source.what} {text.file.uri}", wanted, [*names, *source.folder_columns])
        keys |= dict.fromkeys(names)
        encodings.add(text.encoding)
    if not encodings:
        raise InputError(f"the {source.what} {source.path} holds no rows")
    if len(encodings) > 1:
        raise InputError(
            f"the {source.what} {source.path} holds files in {' and '.join(sorted(encodings))}: convert them"
        )
    encoding = encodings.pop()
    read = _keys_to_read([name for name in keys if not _is_nested(name, keys)], list(wanted.values()), only)
    frame = with_position(
        permissive_reader(spark, read).json(
            source.for_spark([text.file for text in texts]),
            encoding=java_encoding(encoding),
            lineSep=None if encoding == "utf-8" else "\n",
        )
    )
    nested = {
        name: F.get_json_object(column_of(name.split(".", 1)[0]), "$." + name.split(".", 1)[1])
        for name in wanted.values()
        if name not in (*read, *source.folder_columns)
    }
    joined = {name: _joined_list(column_of(name)) for name in wanted.values() if name in lists and name not in ids}
    broken = F.col(CORRUPT_RECORD)
    marks = {
        UNDECODABLE: is_undecodable(ids) | F.coalesce(~F.is_valid_utf8(broken), F.lit(False)),
        CORRUPT_RECORD: F.make_valid_utf8(broken),
    }
    return [frame.withColumns(nested).withColumns(joined | marks)]


def _keys_to_read(keys: Sequence[str], wanted: Sequence[str], only: Sequence[str]) -> list[str]:
    """Return the keys, without those that differ from another in case only, which Spark does not tell apart."""
    by_case: dict[str, str] = {}
    for key in sorted(keys, key=lambda key: key not in wanted):
        if not only or key in only:
            by_case.setdefault(key.casefold(), key)
    return [key for key in keys if key in by_case.values()]


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
