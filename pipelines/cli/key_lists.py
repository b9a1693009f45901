"""Lists of item keys on a command line: separated by commas, as JSON, or in a file."""

from __future__ import annotations

import json
from collections.abc import Iterable

from dr_core.errors import InputError

FORMS = "Separated by commas; or a JSON list, for keys with commas; or @FILE, with a key a line. May be repeated."


def keys_of(option: str, texts: Iterable[str] | None) -> list[str]:
    """Return the keys that an option names, in their order.

    Raises:
        InputError: a JSON list or a file cannot be read.
    """
    return [key for text in texts or () for key in _keys(option, text.strip())]


def _keys(option: str, text: str) -> list[str]:
    if text.startswith("@"):
        return _from_file(option, text[1:])
    if text.startswith("["):
        return _from_json(option, text)
    return [key.strip() for key in text.split(",") if key.strip()]


def _from_json(option: str, text: str) -> list[str]:
    from pipelines.serving.given_keys import key_texts

    try:
        return key_texts(json.loads(text), option)
    except ValueError as error:
        raise InputError(
            f'{option}: {text[:60]} begins with [ and is no JSON list ({error}): write {option} \'["a key", "another"]\''
        ) from error


def _from_file(option: str, path: str) -> list[str]:
    import fsspec

    try:
        with fsspec.open(path, "rt", encoding="utf-8-sig", compression="infer") as file:
            text = str(file.read()).strip()
    except (OSError, EOFError, ImportError, ValueError) as error:
        raise InputError(
            f"{option} @{path}: the file cannot be read ({error}); a key that begins with @ goes into a JSON list"
        ) from error
    if text.startswith("["):
        return _from_json(option, text)
    return [line.strip() for line in text.splitlines() if line.strip()]
