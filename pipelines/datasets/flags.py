"""Flags: yes and no, as numbers and as words."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F

YES = ("true", "t", "yes", "y", "on")
NO = ("false", "f", "no", "n", "off")
ACTIVE = (*YES, "active", "available", "enabled", "live", "published", "in stock")
INACTIVE = (
    *NO, "inactive", "unavailable", "disabled", "retired", "discontinued", "sold out", "out of stock", "deleted",
    "removed", "archived", "expired", "deactivated",
)  # fmt: skip
NOTHING = ("", "nan", "null", "none", "<na>", r"\n")
"""What tools write where a flag has no value, in lower case."""


def is_nothing(text: Column) -> Column:
    """Tell whether a flag's text stands for no value."""
    return text.isNull() | F.lower(F.trim(text)).isin(*NOTHING)


def word_flag(text: Column, yes: tuple[str, ...] = YES, no: tuple[str, ...] = NO) -> Column:
    """Return 1.0 for a word of ``yes``, 0.0 for one of ``no``, whatever its case and blanks; null for any other text."""
    word = F.regexp_replace(F.lower(F.trim(text)), r"[\s_-]+", " ")
    return F.when(word.isin(*yes), F.lit(1.0)).when(word.isin(*no), F.lit(0.0))
