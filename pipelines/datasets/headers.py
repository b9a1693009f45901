"""Which file holds which columns: by the names in its header, never by their places in another file."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from dr_core.errors import InputError
from pipelines.datasets.paths import File, Source
from pipelines.datasets.text import TextHead, is_data, looks_like_header, tell_delimiter

logger = logging.getLogger(__name__)
Wanted = Mapping[str, str]
"""The columns that are needed: their names by the setting that says them."""


@dataclass(frozen=True)
class Part:
    """Text files that are read alike.

    Attributes:
        files: which.
        names: of the columns, by position.
        has_header: whether the first record of each holds the names.
        delimiter: between fields.
        encoding: of the text.
        spans_lines: whether fields in quotes hold line breaks.
    """

    files: tuple[File, ...]
    names: tuple[str, ...]
    has_header: bool
    delimiter: str
    encoding: str
    spans_lines: bool = False


def refuse_missing(where: str, wanted: Wanted, found: Sequence[str], *, unlike: str = "", hint: str = "") -> NoReturn:
    """Raise :class:`InputError` with every column that is wanted and not found, the settings, and the columns found."""
    missing = {setting: name for setting, name in wanted.items() if name not in found}
    named = ", ".join(f"no column '{name}' ({setting})" for setting, name in missing.items())
    shown = ", ".join(repr(name) if name != name.strip() or not name else name for name in found)
    text = f"{where} has {named}; columns found: {shown}{unlike}"
    alike = [
        f"{setting}={other!r}"
        for setting, name in missing.items()
        for other in found
        if other.strip().strip('"').casefold() == name.strip().casefold()
    ]
    remedy = ", ".join(alike) if alike else ", ".join(f"{setting}=…" for setting in missing)
    raise InputError(f"{text}; set {remedy}{hint}")


def plan_parts(
    source: Source,
    heads: Sequence[TextHead],
    wanted: Wanted,
    *,
    delimiter: str = "auto",
    column_names: Sequence[str] = (),
    extra_names: Sequence[str] = (),
    quoted: bool = True,
    prefix: str = "dataset",
) -> list[Part]:
    """Return the parts of delimited text, each with its own names.

    A file whose first record is data, not names, and as wide as the header of another, continues that one, as the parts of a
    file that was cut in pieces do. Files with other names, or in another order, are parts of their own.

    Args:
        source: for messages.
        heads: of the files that are not empty.
        wanted: columns that each file must have.
        delimiter: ``auto`` tells it file by file.
        column_names: given when the files have no header.
        extra_names: columns that files have by the folders in which they lie.
        quoted: whether fields may stand in quotes.
        prefix: of the settings, for messages.

    Raises:
        InputError: a file lacks a column, or it cannot be told what its columns are.
    """
    names = list(wanted.values())
    files = []
    for head in heads:
        mark = tell_delimiter(head, names, len(column_names) or None) if delimiter == "auto" else delimiter
        rows = head.records(mark, quoted=quoted)
        if rows:
            files.append((head, mark, rows))
    if not files:
        raise InputError(f"the {source.what} {source.path} holds no rows")
    if column_names:
        parts = [_named_part(source, head, mark, rows, column_names, wanted, prefix) for head, mark, rows in files]
        return _joined(parts)
    parts = []
    headless = []
    for head, mark, rows in files:
        header = rows[0]
        if set(names) <= {*header, *extra_names}:
            _refuse_twice(source, head, header, wanted)
            parts.append(Part((head.file,), tuple(header), True, mark, head.encoding))
        else:
            headless.append((head, mark, rows))
    for head, mark, rows in headless:
        if parts and delimiter == "auto":
            mark = parts[0].delimiter
            rows = head.records(mark, quoted=quoted)
        parts.append(_continuation(source, head, mark, rows, parts, wanted, extra_names, prefix))
    if headless:
        shown = ", ".join(source.short_name(head.file) for head, _, _ in headless[:3])
        more = f" and {len(headless) - 3} more" if len(headless) > 3 else ""
        logger.info("%s%s: without a header, read as the continuation of %s", shown, more, parts[0].files[0].name)
    return _joined(parts)


def _continuation(
    source: Source,
    head: TextHead,
    delimiter: str,
    rows: list[list[str]],
    parts: Sequence[Part],
    wanted: Wanted,
    extra_names: Sequence[str],
    prefix: str,
) -> Part:
    """Return a part without a header under the names of the one that it continues; refuse what is none."""
    where = f"the {source.what} {head.file.uri}"
    first = rows[0]
    headers = [part for part in parts if part.has_header]
    if not headers:
        hint = ""
        if not looks_like_header(rows):
            hint = (
                f"; if the file has no header, name its {len(first)} columns by position: {prefix}.column_names=[…]"
                f" (then {next(iter(wanted))} is one of these names)"
            )
        elif len(first) == 1:
            hint = f"; or its fields are separated by something else: {prefix}.delimiter=…"
        if any("\ufffd" in name for name in first):
            hint += f"; its text is not {head.encoding}: {prefix}.encoding=…"
        refuse_missing(where, wanted, [*first, *extra_names], hint=hint)
    known = {name.strip().casefold() for part in headers for name in part.names}
    example = headers[0]
    shares = any(name.strip().strip('"').casefold() in known for name in first)
    if shares or not any(is_data(value) for value in first):
        other = f", unlike {source.short_name(example.files[0])} ({', '.join(example.names)})"
        refuse_missing(where, wanted, [*first, *extra_names], unlike=other)
    fitting = dict.fromkeys(part.names for part in headers if len(part.names) == len(first))
    if len(fitting) != 1:
        raise InputError(
            f"{where} begins with {', '.join(first[:6])}, not with a header like {source.short_name(example.files[0])}"
            f" ({', '.join(example.names)}), and {'several headers have' if fitting else 'no header has'} its"
            f" {len(first)} fields: give it one"
        )
    return Part((head.file,), next(iter(fitting)), False, delimiter, head.encoding)


def _named_part(
    source: Source,
    head: TextHead,
    delimiter: str,
    rows: list[list[str]],
    column_names: Sequence[str],
    wanted: Wanted,
    prefix: str,
) -> Part:
    """Return a part without a header under the configured names."""
    where = f"the {source.what} {head.file.uri}"
    first = rows[0]
    known = {name.casefold() for name in column_names}
    names_data = any(
        value.strip() and all(len(row) > at and is_data(row[at]) for row in rows[1:]) for at, value in enumerate(first)
    )
    if looks_like_header(rows) and (
        any(name.strip().casefold() in known for name in first) or (len(rows) > 1 and names_data)
    ):
        raise InputError(
            f"{where} begins with a header ({', '.join(first)}): leave out {prefix}.column_names, which is for files"
            " without one"
        )
    if len(first) != len(column_names):
        raise InputError(
            f"{where} has {len(first)} columns ({', '.join(first[:8])}), but {prefix}.column_names names"
            f" {len(column_names)}: name all of them, by position"
        )
    if not set(wanted.values()) <= set(column_names):
        refuse_missing(f"{prefix}.column_names", wanted, column_names)
    return Part((head.file,), tuple(column_names), False, delimiter, head.encoding)


def _refuse_twice(source: Source, head: TextHead, header: Sequence[str], wanted: Wanted) -> None:
    for setting, name in wanted.items():
        if list(header).count(name) > 1:
            raise InputError(
                f"the {source.what} {head.file.uri} has two columns '{name}' ({setting}); columns found:"
                f" {', '.join(header)}: rename one of them"
            )


def _joined(parts: Sequence[Part]) -> list[Part]:
    """Join parts that differ in their files only, in the order of their first files."""
    groups: dict[Part, list[File]] = {}
    for part in parts:
        groups.setdefault(replace(part, files=()), []).extend(part.files)
    return [replace(group, files=tuple(files)) for group, files in groups.items()]
