"""Keys of items and users as callers give them: text, or numbers that stand for it. What is neither is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from numbers import Integral, Real

from dr_core.errors import InputError
from pipelines.datasets.keys import InexactIdError, normal_key

EXACT = 2**53
"""Floats below it hold every whole number."""
_SURROGATES = re.compile("[\ud800-\udfff]")
"""Halves of characters, which no text in UTF-8 holds."""


def key_text(value: object, where: str) -> str:
    """Return a key as text; a whole number loses its fraction, as in the log.

    Raises:
        InputError: the value is neither text nor a whole number; the message begins with ``where``.
    """
    if isinstance(value, str) and not _SURROGATES.search(value):
        return value
    if isinstance(value, Integral) and not isinstance(value, bool):
        return str(int(value))
    if isinstance(value, Real) and not isinstance(value, bool):
        number = float(value)
        if abs(number) < EXACT and number.is_integer():
            return str(int(number))
    raise InputError(f"{where}: {value!r} is no key: a key is text or a whole number")


def key_texts(values: object, where: str) -> list[str]:
    """Return a list of keys as texts.

    Raises:
        InputError: it is no list (text would be taken letter by letter), or holds something else than keys.
    """
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise InputError(f"{where}: {values!r} is no list of keys")
    return [key_text(value, where) for value in values]


def spellings(key: str) -> tuple[str, ...]:
    """Return the forms in which a key may stand in the tables: as it is given, and as an ingest would write it."""
    try:
        normal = normal_key(key)
    except InexactIdError:
        normal = None
    return tuple(dict.fromkeys(form for form in (key, key.strip(), normal) if form))
