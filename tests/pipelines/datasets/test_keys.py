"""One text for one id, however a file writes it; never one text for two."""

from datetime import date
from decimal import Decimal

import pytest
from pyspark.sql import SparkSession

from dr_core.errors import InputError
from pipelines.datasets.key_columns import key_column
from pipelines.datasets.keys import MISSING_IDS, InexactIdError, normal_key

KEYS = {
    "101": "101", "101.0": "101", "101.00": "101", "-7.0": "-7", "-0.0": "0", "0.0": "0",
    "1.01E2": "101", "1.2345678E7": "12345678", "1.0E7": "10000000", "1.01e+02": "101", "1e+05": "100000",
    "9007199254740991.0": "9007199254740991",
    "9" * 30: "9" * 30, "9007199254740993": "9007199254740993",
    "007": "007", "7": "7", "007.0": "007.0", "0108775000": "0108775000", "00": "00",
    "1.5": "1.5", "1.10": "1.10", "1.2345E2": "1.2345E2", "101.": "101.", ".0": ".0", "1,000.0": "1,000.0",
    "1e5": "1e5", "5E3": "5E3", "12e34": "12e34", "10.0.0.0": "10.0.0.0", "v1.0": "v1.0", "1.0.0": "1.0.0",
    "+7": "+7", "+101.0": "+101.0", "a+b": "a+b", "2024-01-01": "2024-01-01", "٣.0": "٣.0",
    " 101 ": "101", "\t101.0\r": "101", "\u00a0i7\ufeff": "i7", "a b": "a b",
    "Cafe\u0301": "Café", "Café": "Café", "Cafe": "Cafe", "\u1100\u1161": "가", "\u212b": "Å", "ﬁ": "ﬁ",
    "none": "none", "Nan": "Nan", "True": "True", "0": "0", "-": "-",
}  # fmt: skip
NO_KEYS = ["", " ", "\u3000\t", *MISSING_IDS, " NaN "]
INEXACT = [
    "1.2345678901234567e18", "1.2345678901234567E18", "9007199254740992.0", "-9007199254740992.0", "1e+16", "1E+300",
    "1.23457E+11", "1.5e+06", "1e+06", "1.0E400", "12345678901234567890.00",
]  # fmt: skip


@pytest.mark.parametrize(("text", "key"), KEYS.items())
def test_a_key_is_the_number_or_the_text_that_was_written(text: str, key: str) -> None:
    assert normal_key(text) == key
    assert normal_key(key) == key, "the normal form is its own"


def test_words_for_no_value_are_no_key() -> None:
    assert {text: normal_key(text) for text in NO_KEYS} == dict.fromkeys(NO_KEYS)
    assert normal_key("NA", missing=()) == "NA"


@pytest.mark.parametrize("text", INEXACT)
def test_floats_that_may_have_lost_digits_are_no_key(text: str) -> None:
    with pytest.raises(InexactIdError):
        normal_key(text)


def keys(spark: SparkSession, values: list[object], kind: str) -> list[tuple[str | None, bool]]:
    frame = spark.createDataFrame([(value,) for value in values], f"id {kind}")
    columns = key_column(frame["id"], frame.schema["id"].dataType, "column 'id' of log")
    return [tuple(row) for row in frame.select(*columns).collect()]


def test_spark_gives_text_the_same_keys(spark: SparkSession) -> None:
    texts = [*KEYS, *NO_KEYS, *INEXACT, None]
    found = dict(zip(texts, keys(spark, texts, "string"), strict=True))
    expected = {text: (key, False) for text, key in KEYS.items()} | dict.fromkeys([*NO_KEYS, None], (None, False))
    assert {text: value for text, value in found.items() if text not in INEXACT} == expected
    assert {text: found[text] for text in INEXACT} == {text: (text, True) for text in INEXACT}


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("bigint", [101, -7, 2**62, None], ["101", "-7", str(2**62), None]),
        (
            "double",
            [101.0, -0.0, 1.5, 2.0**53 - 1, float("nan"), None],
            ["101", "0", "1.5", str(2**53 - 1), None, None],
        ),
        ("float", [101.0, 16_777_215.0, 1.5], ["101", "16777215", "1.5"]),
        (
            "decimal(38,2)",
            [Decimal("101.00"), Decimal("101.50"), Decimal("0.00"), Decimal(10**25), None],
            ["101", "101.50", "0", str(10**25), None],
        ),
        ("decimal(20,0)", [Decimal(2**63)], [str(2**63)]),
        ("date", [date(2024, 1, 1)], ["2024-01-01"]),
    ],
)
def test_every_type_of_column_gives_the_same_keys(
    spark: SparkSession, kind: str, values: list[object], expected: list[str | None]
) -> None:
    assert keys(spark, values, kind) == [(key, False) for key in expected]


def test_columns_of_floats_tell_the_ids_that_they_cannot_hold(spark: SparkSession) -> None:
    assert [flag for _, flag in keys(spark, [2.0**53, -(2.0**60), float("inf"), 2.0**53 - 1], "double")] == [
        True, True, True, False,
    ]  # fmt: skip
    assert [flag for _, flag in keys(spark, [16_777_216.0, 16_777_215.0], "float")] == [True, False]


def test_ids_must_be_text_or_numbers(spark: SparkSession) -> None:
    with pytest.raises(InputError, match=r"column 'id' of log is array<int>: an id must be text or a number"):
        keys(spark, [[1]], "array<int>")
