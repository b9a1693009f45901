"""Files of many users: JSON lines of histories in, JSON lines of items out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import fsspec

from dr_core.errors import InputError
from pipelines.serving.given_keys import key_text, key_texts

FORM = '{"user": …, "history": [item keys]}'


def read_users(path: str) -> list[tuple[str, list[str]]]:
    """Return users and their item keys, oldest first, from lines such as ``{"user": "u1", "history": ["3", "17"]}``.

    Raises:
        InputError: the file cannot be read or holds no user, or a line (named) is not such an object.
    """
    with _reading(path), fsspec.open(path, "rt", encoding="utf-8-sig", compression="infer") as file:
        lines = [(number, line.strip()) for number, line in enumerate(file, start=1) if line.strip()]
    if not lines:
        raise InputError(f"--users {path} holds no users: expected lines of {FORM}")
    return [_user(line, f"--users {path}, line {number}") for number, line in lines]


@contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"--users {path} does not exist") from error
    except UnicodeDecodeError as error:
        raise InputError(f"--users {path} is not UTF-8 text ({error.reason})") from error
    except (OSError, EOFError, ImportError, ValueError) as error:
        raise InputError(f"--users {path} cannot be read: {error}") from error


def _user(line: str, where: str) -> tuple[str, list[str]]:
    try:
        row = json.loads(line, object_pairs_hook=_once)
    except ValueError as error:
        raise InputError(f"{where}: expected {FORM}, found {line[:60]} ({error})") from error
    if not isinstance(row, dict) or not {"user", "history"} <= set(row):
        raise InputError(f"{where}: expected {FORM}, found {line[:60]}")
    user = key_text(row["user"], f"{where}: user")
    if not user.strip():
        raise InputError(f"{where}: the user is blank")
    return user, key_texts(row["history"], f"{where}: history")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a name stands twice")
    return row


def refuse_same_file(users_file: str, out: str) -> None:
    """Raise :class:`InputError` when the answers would take the place of the questions."""
    if fsspec.core.url_to_fs(users_file)[1] == fsspec.core.url_to_fs(out)[1]:
        raise InputError(f"--out {out} is the file that --users reads: name another")


@contextmanager
def write_lines(path: str) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give a function that writes a JSON line; the file takes its name when all are written, and not at all otherwise.

    Raises:
        InputError: there is no such folder, or the path is a folder.
    """
    filesystem, target = fsspec.core.url_to_fs(path)
    if filesystem.isdir(target):
        raise InputError(f"--out {path} is a folder: name a file")
    unfinished = f"{target}.{os.getpid()}.tmp"
    try:
        with filesystem.open(unfinished, "w", encoding="utf-8") as file:
            yield lambda row: file.write(json.dumps(row, ensure_ascii=False) + "\n") and None
        filesystem.mv(unfinished, target)
    except BaseException as error:
        if filesystem.exists(unfinished):
            filesystem.rm(unfinished)
        elif isinstance(error, FileNotFoundError):
            raise InputError(f"--out {path}: there is no such folder") from error
        raise
