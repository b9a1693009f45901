"""Columns of ids in their normal form; the rule is that of :mod:`pipelines.datasets.keys`."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql import types as T

from dr_core.errors import InputError
from pipelines.datasets.keys import BLANKS, FLOAT, MISSING_IDS, SURE_DIGITS, WHOLE_LIMIT

_NOT_AN_ID = (T.ArrayType, T.MapType, T.StructType, T.BinaryType)
_FLOAT32_LIMIT = 2**24


def key_column(
    column: Column, kind: T.DataType, what: str, missing: Sequence[str] = MISSING_IDS
) -> tuple[Column, Column]:
    """Return the keys of a column, and whether a key is inexact (its text is then as the file has it).

    A key is null where the file has none.

    Args:
        column: the ids.
        kind: their type.
        what: the column and its file, for the message.
        missing: texts that mean that there is no id.

    Raises:
        InputError: the column is of a type that cannot be an id.
    """
    if isinstance(kind, _NOT_AN_ID):
        raise InputError(f"{what} is {kind.simpleString()}: an id must be text or a number")
    if isinstance(kind, T.FloatType | T.DoubleType):
        return _float_key(column, _FLOAT32_LIMIT if isinstance(kind, T.FloatType) else WHOLE_LIMIT)
    text = column.cast("string")
    if isinstance(kind, T.DecimalType):
        return F.regexp_replace(text, r"\.0+$", ""), F.lit(False)
    if not isinstance(kind, T.StringType | T.CharType | T.VarcharType):
        return text, F.lit(False)
    return _text_key(F.btrim(_composed(text), F.lit(BLANKS)), missing)


def _composed(text: Column) -> Column:
    """Return text in Unicode's form NFC; plain ASCII, told by its length in bytes, is in that form already."""
    icu = F.lit("com.ibm.icu.text.Normalizer"), F.lit("compose")
    return F.when(F.octet_length(text) > F.length(text), F.java_method(*icu, text, F.lit(False))).otherwise(text)


def _text_key(text: Column, missing: Sequence[str]) -> tuple[Column, Column]:
    is_float = (F.contains(text, F.lit(".")) | F.contains(text, F.lit("+"))) & text.rlike(FLOAT)
    value = text.try_cast("double")
    is_big = is_float & (F.abs(value) >= float(WHOLE_LIMIT))
    is_whole = is_float & (value == F.floor(value))
    digits = F.greatest(F.length(F.regexp_extract(text, FLOAT, 1)) - 1, F.lit(SURE_DIGITS))
    is_cut = (F.regexp_extract(text, FLOAT, 2) == "+") & (F.regexp_extract(text, FLOAT, 3).try_cast("int") > digits)
    is_inexact = is_big | (is_whole & is_cut)
    key = F.when(is_whole & ~is_inexact, value.try_cast("bigint").cast("string")).otherwise(text)
    is_none = (text == "") | text.isin(*missing) if missing else text == ""
    return F.when(~is_none, key), F.coalesce(~is_none & is_inexact, F.lit(False))


def _float_key(column: Column, limit: int) -> tuple[Column, Column]:
    value = column.cast("double")
    is_inexact = F.abs(value) >= float(limit)
    is_whole = ~is_inexact & (value == F.floor(value))
    key = F.when(is_whole, value.try_cast("bigint").cast("string")).otherwise(column.cast("string"))
    is_number = ~F.isnan(column)
    return F.when(is_number, key), F.coalesce(is_number & is_inexact, F.lit(False))
