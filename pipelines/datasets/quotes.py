"""Line breaks inside quotes: which files have them, and what a quote that never closes means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from urllib.parse import unquote

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from dr_core.errors import InputError
from pipelines.datasets.headers import Part
from pipelines.datasets.paths import File, Source, literal
from pipelines.datasets.text import QuoteState, open_quote, split_fields

LONGEST = 1_000
"""Lines that a field in quotes may span."""


def with_spanning_files_apart(spark: SparkSession, source: Source, parts: Sequence[Part]) -> list[Part]:
    """Return the parts with the files apart whose quoted fields hold line breaks.

    Spark looks for lines that may end inside a quoted field; a file with such lines, which is rare, is then read as a whole.
    A field that begins with a quote and is not closed properly, by a quote that the delimiter or the line's end follows,
    within :data:`LONGEST` lines and with the right number of fields, begins with a literal quote: its line is malformed,
    and the next is a row of its own.

    Raises:
        InputError: a file holds both, so that no line can be trusted.
    """
    result = []
    for part in parts:
        wide = part.encoding.startswith(("utf-16", "utf-32"))
        suspects = set(part.files) if wide else _suspects(spark, part)
        spanning = {file for file in part.files if file in suspects and _spans_lines(source, file, part)}
        multi = part.files if wide else tuple(file for file in part.files if file in spanning)
        single = tuple(file for file in part.files if file not in multi)
        result += [replace(part, files=single)] if single else []
        result += [replace(part, files=multi, spans_lines=True)] if multi else []
    return result


def _suspects(spark: SparkSession, part: Part) -> set[File]:
    """Return the files with a line that may end inside a quoted field."""
    lines = spark.read.text([literal(file.uri) for file in part.files])
    found = (
        lines.where(F.col("value").contains('"') & F.col("value").rlike(open_quote(part.delimiter)))
        .select("_metadata.file_path")
        .distinct()
        .collect()
    )
    paths = {_plain(unquote(row[0])) for row in found}
    return {file for file in part.files if _plain(file.uri) in paths}


def _plain(uri: str) -> str:
    return re.sub(r"^file:/+", "/", uri)


def _spans_lines(source: Source, file: File, part: Part) -> bool:
    with source.filesystem.open(file.uri, "rt", encoding=part.encoding, errors="replace", compression="infer") as lines:
        spanning, torn = count_spans(lines, part.delimiter, len(part.names))
    if spanning and torn:
        raise InputError(
            f"the {source.what} {file.uri}: the quote that opens a field in line {torn} is never closed, while other"
            " fields hold line breaks: double it, or set dataset.quote=none if quotes mean nothing there"
        )
    return bool(spanning)


def count_spans(lines: Iterable[str], delimiter: str, width: int) -> tuple[int, int]:
    """Return how many records span lines, and the number of the first line with a quote that is never closed (0: none).

    Stops when it has found both.
    """
    coming, ahead = enumerate(lines, 1), list[tuple[int, str]]()
    spanning = torn = 0
    while not (spanning and torn):
        number, line = ahead.pop() if ahead else next(coming, (0, ""))
        if not number:
            break
        state, block = QuoteState(delimiter), [(number, line.rstrip("\n"))]
        if '"' in line:
            state.read(block[0][1])
        while state.is_open and len(block) <= LONGEST:
            number, line = ahead.pop() if ahead else next(coming, (0, ""))
            if not number:
                break
            block.append((number, line.rstrip("\n")))
            state.read(block[-1][1])
        if len(block) == 1 and not state.is_open:
            continue
        record = "\n".join(text for _, text in block)
        if not state.is_open and not state.is_torn and len(split_fields(record, delimiter)) == width:
            spanning += 1
        else:
            torn = torn or block[0][0]
            ahead.extend(reversed(block[1:]))
    return spanning, torn
