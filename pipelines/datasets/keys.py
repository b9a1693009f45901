"""The normal form of user and item ids: one text for one id, however a file writes it.

Log, catalogue and what a caller asks by go through the same rule, which looks at the value alone: each day, each file and
each column type gives the same key.

* Blanks around an id are dropped, and letters with accents are composed (Unicode NFC).
* A whole number written as a float is that number: ``101.0`` and ``1.01E2`` are ``101``. Other text stays as it is:
  ``007`` and ``7`` are two ids.
* A float that may have lost digits of its id is *inexact*: it is no key. That is 2^53 or more, or a scientific notation
  that shows fewer digits than the number has (``1.23457E+11``).
* The words that tools write for "no value" are no id (:data:`MISSING_IDS`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection

BLANKS = " \t\n\r\v\f\u00a0\u2007\u200b\u202f\u3000\ufeff"
MISSING_IDS = (
    "nan", "NaN", "NAN", "null", "NULL", "None", "<NA>", "NaT", "NA", "N/A", "n/a", "#N/A", r"\N", "undefined", "(null)",
)  # fmt: skip
"""What pandas, numpy, R, SQL dumps, Hive, spreadsheets and JavaScript write where there is no value."""
FLOAT = r"^(?:-?(?:0|[1-9]\d*)\.0+|-?[1-9](\.\d+)?[eE](\+?)(\d{1,3}))$"
"""A whole number as a float's text, or a scientific notation: its fraction, its plus sign, its exponent."""
WHOLE_LIMIT = 2**53
"""Whole numbers from here on have no double of their own."""
SURE_DIGITS = 5
"""Exponent up to which a scientific notation shows every digit: no writer shows fewer than six."""


class InexactIdError(ValueError):
    """An id was written as a float that may have lost digits."""


def normal_key(text: str, missing: Collection[str] = MISSING_IDS) -> str | None:
    """Return an id in its normal form, or None where the text means that there is none.

    Raises:
        InexactIdError: the text is a float that may stand for several ids.
    """
    key = unicodedata.normalize("NFC", text).strip(BLANKS)
    if not key or key in missing:
        return None
    found = re.match(FLOAT, key, re.ASCII) if "." in key or "+" in key else None
    if found is None:
        return key
    value = float(key)
    if abs(value) >= WHOLE_LIMIT:
        raise InexactIdError(key)
    if not value.is_integer():
        return key
    fraction, plus, exponent = found.groups()
    if plus and int(exponent) > max(len(fraction or ".") - 1, SURE_DIGITS):
        raise InexactIdError(key)
    return str(int(value))
