"""Text files as a driver sees them before Spark does: encoding, records, fields, delimiter, header."""

from __future__ import annotations

import bz2
import codecs
import re
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from dr_core.errors import InputError
from pipelines.datasets.paths import File, Source

HEAD_BYTES = 1 << 16
DELIMITERS = (",", "\t", ";", "|", "::", "\x01")
"""What ``auto`` tells apart."""
SPELLINGS = {
    "\\t": "\t", "tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "colon": ":", "space": " ",
    "\\x01": "\x01", "\\u0001": "\x01", "\\001": "\x01", "^A": "\x01",
}  # fmt: skip
"""Other ways to write a delimiter."""
Kind = Literal["parquet", "json", "csv"]
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_OTHER_KINDS = (
    (b"PK\x03\x04", "a ZIP archive (or an Excel workbook)", "unpack it, or save it as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "save it as CSV"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it, or compress it with gzip"),
    (b"\xfd7zXZ", "compressed with xz", "unpack it, or compress it with gzip"),
    (b"7z\xbc\xaf", "a 7-Zip archive", "unpack it"),
    (b"\x04\x22\x4d\x18", "compressed with lz4", "unpack it, or compress it with gzip"),
    (b"ORC", "ORC", "write it as Parquet"),
    (b"Obj\x01", "Avro", "write it as Parquet"),
    (b"ARROW1", "an Arrow (Feather) file", "write it as Parquet"),
    (b"\x89HDF", "HDF5", "write it as Parquet"),
    (b"SQLite format 3", "an SQLite database", "export its table as CSV"),
    (b"\x80\x04\x95", "a Python pickle", "write it as Parquet"),
    (b"\x80\x05\x95", "a Python pickle", "write it as Parquet"),
    (b"%PDF", "a PDF", "name the data itself"),
)  # fmt: skip
_INNER = re.compile(r'[^"]*(?:""[^"]*)*')
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_MOMENT = re.compile(r"\d{4}-\d{1,2}-\d{1,2}|\d{1,2}[./]\d{1,2}[./]\d{4}|\d{1,2}:\d{2}")


@dataclass(frozen=True)
class Head:
    """The first bytes of a file, unpacked.

    Attributes:
        file: which.
        kind: what the bytes are.
        data: the bytes; of Parquet none.
        is_whole: whether that is the whole file.
    """

    file: File
    kind: Kind
    data: bytes
    is_whole: bool


@dataclass(frozen=True)
class TextHead:
    """The first lines of a text file.

    Attributes:
        file: which.
        encoding: by its byte order mark, else the configured one.
        text: without the mark, and without a last line that may be torn.
    """

    file: File
    encoding: str
    text: str

    def records(self, delimiter: str, *, quoted: bool = True, limit: int = 10_000) -> list[list[str]]:
        """Return the fields of the first records that are not blank."""
        return [
            split_fields(record, delimiter, quoted=quoted)
            for _, record in zip(range(limit), records(self.text, delimiter, quoted=quoted), strict=False)
        ]


def read_heads(source: Source, num_bytes: int = HEAD_BYTES) -> list[Head]:
    """Read how every file of a source that is not empty begins; any number of files, many at once.

    Raises:
        InputError: a file is of a kind that is not read, or all are empty.
    """
    files = [file for file in source.files if file.size]
    torn = [file for file in source.files if not file.size and re.search(r"\.(parquet|parq|pq)$", file.name.lower())]
    if not files or torn:
        empty = torn[0].uri if torn else source.path
        raise InputError(f"the {source.what} {empty} holds no rows: it is empty (0 bytes)")
    with ThreadPoolExecutor(32) as pool:
        return list(pool.map(lambda file: _read_head(source, file, num_bytes), files))


def _read_head(source: Source, file: File, num_bytes: int) -> Head:
    with source.filesystem.open(file.uri, "rb") as stream:
        packed = stream.read(num_bytes)
    data, suffix = packed, ""
    if packed[:2] == b"\x1f\x8b":
        data, suffix = _gunzip(packed, num_bytes * 4), ".gz"
    elif packed[:3] == b"BZh":
        data, suffix = _bunzip(packed), ".bz2"
    named = re.search(r"\.(gz|bz2)$", file.name)
    where = f"the {source.what} {file.uri}"
    if suffix != (named[0] if named else "") and packed[:4] != b"PAR1":
        if suffix:
            raise InputError(f"{where} is compressed, but its name does not end in {suffix}: rename it")
        raise InputError(f"{where} is not compressed, though its name ends in {named[0] if named else ''}: rename it")
    if data[:4] == b"PAR1":
        if suffix:
            raise InputError(f"{where} is a Parquet file inside {suffix}, which is not read: unpack it")
        return Head(file, "parquet", b"", False)
    for magic, name, remedy in _OTHER_KINDS:
        if data.startswith(magic):
            raise InputError(f"{where} is {name}, which is not read: {remedy}")
    begin = data.removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    return Head(file, "json" if begin in (b"{", b"[") else "csv", data, not suffix and len(packed) == file.size)


def _gunzip(data: bytes, most: int) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(data, most)
    except zlib.error:
        return b""


def _bunzip(data: bytes) -> bytes:
    try:
        return bz2.BZ2Decompressor().decompress(data)
    except (OSError, EOFError):
        return b""


def python_encoding(name: str) -> str:
    """Return Python's own name of an encoding; raise :class:`ValueError` for an unknown one."""
    try:
        known = codecs.lookup(name).name
    except LookupError as error:
        raise ValueError(f"{name!r} is no known encoding; for example utf-8, latin-1, windows-1252, gbk") from error
    return "utf-8" if known == "utf-8-sig" else known


def java_encoding(name: str) -> str:
    """Return what Java calls an encoding."""
    other = {"utf-16-le": "UTF-16LE", "utf-16-be": "UTF-16BE", "cp932": "windows-31j", "mac-roman": "x-MacRoman"}
    return other.get(name, name)


def decode(head: Head, encoding: str, what: str, *, is_given: bool) -> TextHead:
    """Return the text of a head; what is not valid in the encoding becomes U+FFFD, as Spark does it.

    Raises:
        InputError: its byte order mark says another encoding than the one given, or it is not text.
    """
    data = head.data
    mark, marked = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", ""))
    if marked:
        if is_given and not encoding.startswith(marked):
            raise InputError(
                f"the {what} {head.file.uri} begins with the byte order mark of {marked}, but dataset.encoding is"
                f" {encoding}: leave it out"
            )
        encoding = marked
    wide = encoding.startswith(("utf-16", "utf-32"))
    if not wide and data.count(b"\0") > len(data) // 20:
        raise InputError(
            f"the {what} {head.file.uri} holds zero bytes: it is no text, or UTF-16 without a mark"
            " (dataset.encoding=utf-16-le)"
        )
    text = (data if wide else data.removeprefix(mark)).decode(encoding, errors="replace").removeprefix("\ufeff")
    if not head.is_whole:
        cut = max(text.rfind("\n"), text.rfind("\r"))
        text = text[: cut + 1] if cut > 0 else text
    return TextHead(head.file, encoding, text)


def open_quote(delimiter: str) -> str:
    """Return a regular expression (of Java too) for the lines that may end inside a quoted field: it finds them all."""
    return rf'(?:^|{re.escape(delimiter)})"[^"]*+(?:""[^"]*+)*+$'


@dataclass
class QuoteState:
    """Where a reader stands among the quotes of a file, line by line.

    A field is quoted when it begins with a quote; it ends at the next quote that is not doubled, which the delimiter or
    the line's end must follow. A quote inside an unquoted field is itself.
    """

    delimiter: str
    is_open: bool = False
    """Whether the next line continues a quoted field."""
    is_torn: bool = False
    """Whether a quoted field over several lines did not end properly: its first quote was meant literally."""

    def read(self, line: str) -> None:
        """Go on by one line."""
        place = 0
        if self.is_open:
            if '"' not in line:
                return
            inner = _INNER.match(line)
            place = inner.end() if inner else 0
            if place == len(line):
                return
            place += 1
            self.is_open = False
            if place < len(line) and not line.startswith(self.delimiter, place):
                self.is_torn = True
                return
            place += len(self.delimiter)
        while place < len(line):
            if line[place] == '"':
                inner = _INNER.match(line, place + 1)
                end = inner.end() if inner else len(line)
                if end == len(line):
                    self.is_open = True
                    return
                place = end + 1
            end = line.find(self.delimiter, place)
            place = len(line) if end < 0 else end + len(self.delimiter)


def records(text: str, delimiter: str, *, quoted: bool = True) -> Iterator[str]:
    """Yield the records of a text without the blank ones; one may span lines inside quotes that are closed properly."""
    lines = re.split(r"\r\n|\n|\r", text)
    place = 0
    while place < len(lines):
        record, end = lines[place], place + 1
        state = QuoteState(delimiter)
        if quoted and '"' in record:
            state.read(record)
            while state.is_open and end < len(lines):
                state.read(lines[end])
                end += 1
            if end > place + 1 and not state.is_open and not state.is_torn:
                record = "\n".join(lines[place:end])
                place = end - 1
        place += 1
        if record.strip():
            yield record


def split_fields(record: str, delimiter: str, *, quoted: bool = True) -> list[str]:
    """Return the fields of one record; ``""`` inside quotes is a quote, a quote inside an unquoted field is itself."""
    fields, place = [], 0
    while True:
        field = re.compile(r'"((?:[^"]|"")*)"').match(record, place) if quoted else None
        if field and (field.end() == len(record) or record.startswith(delimiter, field.end())):
            fields.append(field[1].replace('""', '"'))
            place = field.end()
        else:
            end = record.find(delimiter, place)
            end = len(record) if end < 0 else end
            fields.append(record[place:end])
            place = end
        if place == len(record):
            return fields
        place += len(delimiter)
        if place == len(record):
            return [*fields, ""]


def tell_delimiter(head: TextHead, wanted: Sequence[str], num_columns: int | None = None) -> str:
    """Return the delimiter of a file.

    It is the one under which the header holds the wanted names (or the first record the number of columns); else the
    one that cuts the first records into most fields, as many in each.
    """
    best, best_score = ",", (-1.0, 0.0, 0)
    for delimiter in DELIMITERS:
        rows = head.records(delimiter, limit=50)
        if not rows:
            break
        width = len(rows[0])
        named = float(width == num_columns) if num_columns else float(len(set(wanted) & set(rows[0])))
        alike = sum(len(row) == width for row in rows) / len(rows)
        score = (named if width > 1 else 0.0, alike if width > 1 else 0.0, width)
        if score > best_score:
            best, best_score = delimiter, score
    return best


def is_data(value: str) -> bool:
    """Tell whether a field can be no column's name: a number or a moment."""
    text = value.strip()
    return bool(_NUMBER.fullmatch(text) or _MOMENT.match(text))


def looks_like_header(rows: Sequence[Sequence[str]]) -> bool:
    """Tell whether the first record names the columns: none is a number or a moment, none stands in its column again
    further down."""
    if not rows:
        return False
    first = rows[0]
    filled = [name.strip() for name in first if name.strip()]
    if not filled or any(is_data(name) for name in filled):
        return False
    later = [row for row in rows[1:] if len(row) == len(first)]
    return not any(name and any(row[at] == name for row in later) for at, name in enumerate(first))
