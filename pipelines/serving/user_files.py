"""Files of many users: JSON lines of histories in, JSON lines of items out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import fsspec

from dr_core.errors import InputError


def read_users(path: str) -> list[tuple[str, list[str]]]:
    """Return users and their item keys, oldest first, from lines such as ``{"user": "u1", "history": ["3", "17"]}``.

    Raises:
        InputError: the file is missing, or a line (named) is not such an object.
    """
    users = []
    number = 0
    try:
        with fsspec.open(path, "r") as file:
            for line in file:
                number += 1
                if line.strip():
                    users.append(_user(json.loads(line)))
    except FileNotFoundError as error:
        raise InputError(f"--users {path} does not exist") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f'--users {path}, line {number}: expected {{"user": …, "history": [item keys]}}') from error
    return users


def _user(row: Any) -> tuple[str, list[str]]:
    user, history = row["user"], row["history"]
    if not isinstance(history, list) or not all(_is_key(key) for key in [user, *history]):
        raise TypeError("a user and item keys are strings or whole numbers, a history is a list")
    return str(user), [str(key) for key in history]


def _is_key(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


@contextmanager
def write_lines(path: str) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give a function that writes a JSON line; the file takes its name when all are written, and not at all otherwise."""
    filesystem, target = fsspec.core.url_to_fs(path)
    unfinished = f"{target}.{os.getpid()}.tmp"
    try:
        with filesystem.open(unfinished, "w") as file:
            yield lambda row: file.write(json.dumps(row, ensure_ascii=False) + "\n") and None
        filesystem.mv(unfinished, target)
    except BaseException:
        if filesystem.exists(unfinished):
            filesystem.rm(unfinished)
        raise
