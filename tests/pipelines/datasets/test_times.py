"""Numbers in a unit, text in a pattern, local times in a zone; and what is none of these is null."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError
from pyspark.sql import SparkSession

from dr_core.errors import ConfigError
from pipelines.datasets.interactions import DatasetConfig
from pipelines.datasets.times import TimeRule, in_zone

DAY = datetime(2024, 1, 2, tzinfo=UTC)
MOMENT = datetime(2024, 1, 2, 18, 30, 5, tzinfo=UTC)
SECOND = int(MOMENT.timestamp())
MINUTE = MOMENT.replace(second=0)
ISO, NEW_YORK = TimeRule("timestamp"), TimeRule("timestamp", zone="America/New_York")
NANOSECONDS = TimeRule("nanoseconds")


def pattern(text: str, zone: str = "UTC") -> TimeRule:
    return TimeRule("seconds", text, zone)


CASES: list[tuple[TimeRule, str, Any, datetime | None]] = [
    (NANOSECONDS, "bigint", SECOND * 10**9 + 123_456_789, MOMENT.replace(microsecond=123456)),
    (NANOSECONDS, "string", f"{SECOND}123456789", MOMENT.replace(microsecond=123456)),
    (NANOSECONDS, "decimal(20,0)", Decimal(SECOND * 10**9 + 123_456_789), MOMENT.replace(microsecond=123456)),
    (NANOSECONDS, "double", SECOND * 1e9, MOMENT),
    (TimeRule("microseconds"), "string", f"{SECOND}123456", MOMENT.replace(microsecond=123456)),
    (TimeRule("seconds"), "string", "1.704220205E9", MOMENT),
    (TimeRule("seconds"), "string", f"{SECOND}.5", MOMENT.replace(microsecond=500_000)),
    (TimeRule("seconds"), "string", "18:30:05", None),
    (TimeRule("seconds"), "double", float("nan"), None),
    (ISO, "string", "2024-01-02T18:30:05Z", MOMENT),
    (ISO, "string", "2024-01-02 18:30:05 UTC", MOMENT),
    (ISO, "string", "2024-01-02T13:30:05-05:00", MOMENT),
    (ISO, "string", "2024-01-02T18:30:05+0000", MOMENT),
    (ISO, "string", "2024-01-02", DAY),
    (ISO, "string", "18:30:05", None),
    (ISO, "string", "T18:30", None),
    (ISO, "string", "18:30:05Z", None),
    (ISO, "string", "20240102", None),
    (ISO, "string", "now", None),
    (ISO, "bigint", SECOND, None),
    (NEW_YORK, "string", "2024-01-02 13:30:05", MOMENT),
    (NEW_YORK, "string", "2024-01-02T18:30:05Z", MOMENT),
    (NEW_YORK, "string", "2024-01-02T13:30:05-05:00", MOMENT),
    (NEW_YORK, "string", "2024-07-02 14:30:05", MOMENT.replace(month=7)),
    (NEW_YORK, "timestamp_ntz", datetime(2024, 1, 2, 13, 30, 5), MOMENT),
    (NEW_YORK, "timestamp", MOMENT, MOMENT),
    (NEW_YORK, "date", date(2024, 1, 2), DAY.replace(hour=5)),
    (TimeRule("seconds", zone="-05:00"), "date", date(2024, 1, 2), DAY.replace(hour=5)),
    (TimeRule("seconds", zone="America/New_York"), "bigint", SECOND, MOMENT),
    (pattern("yyyyMMdd"), "string", "20240102", DAY),
    (pattern("yyyyMMdd"), "bigint", 20240102, DAY),
    (pattern("yyyyMMdd"), "double", 20240102.0, DAY),
    (pattern("yyyyMMdd"), "string", "20240102.0", DAY),
    (pattern("yyyyMMdd"), "string", "20241302", None),
    (pattern("yyyyMMddHHmmss"), "bigint", 20240102183005, MOMENT),
    (pattern("dd.MM.yyyy HH:mm"), "string", "02.01.2024 18:30", MINUTE),
    (pattern("dd.MM.yyyy HH:mm", "Europe/Berlin"), "string", "02.01.2024 19:30", MINUTE),
    (pattern("d/M/yyyy H:mm"), "string", "2/1/2024 18:30", MINUTE),
    (pattern("M/d/yyyy h:mm a"), "string", "1/2/2024 6:30 PM", MINUTE),
    (pattern("EEE MMM dd HH:mm:ss Z yyyy"), "string", "Tue Jan 02 18:30:05 +0000 2024", MOMENT),
    (pattern("EEE MMM dd HH:mm:ss Z yyyy", "Asia/Tokyo"), "string", "Tue Jan 02 13:30:05 -0500 2024", MOMENT),
    (pattern("EEE, d MMM yyyy HH:mm:ss Z"), "string", "Tue, 2 Jan 2024 18:30:05 +0000", MOMENT),
    (pattern("dd/MMM/yyyy:HH:mm:ss Z"), "string", "02/Jan/2024:18:30:05 +0000", MOMENT),
    (pattern("yyyy-MM-dd'T'HH:mm", "-05:00"), "string", "2024-01-02T13:30", MINUTE),
]


def test_times_are_read_as_the_rule_says(spark: SparkSession) -> None:
    schema = ", ".join(f"c{number} {kind}" for number, (_, kind, _, _) in enumerate(CASES))
    frame = spark.createDataFrame([tuple(value for _, _, value, _ in CASES)], schema)
    read = [rule.read(frame[field.name], field.dataType) for (rule, *_), field in zip(CASES, frame.schema, strict=True)]
    (row,) = frame.select(*read).collect()
    for (rule, kind, value, expected), found in zip(CASES, row, strict=True):
        assert (found and found.astimezone(UTC)) == expected, (rule, kind, value)


@pytest.mark.parametrize("text", ["foo", "yyyy-MM-dd'T", "{"])
def test_a_pattern_that_is_none_is_named(spark: SparkSession, text: str) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.time_format=.* is no pattern of Spark") as caught:
        pattern(text).check(spark)
    assert "\n" not in str(caught.value)
    pattern("EEE MMM dd HH:mm:ss Z yyyy").check(spark)


def test_moments_without_an_offset_are_of_the_zone() -> None:
    assert in_zone(datetime(2024, 1, 2), "America/New_York") == DAY.replace(hour=5)
    assert in_zone(datetime(2024, 7, 2), "America/New_York") == datetime(2024, 7, 2, 4, tzinfo=UTC)
    assert in_zone(datetime(2024, 1, 2), "-05:30") == datetime(2024, 1, 2, 5, 30, tzinfo=UTC)
    assert in_zone(MOMENT, "Asia/Tokyo") == MOMENT
    for name in ("EST5", "Mars/Olympus", "../etc", "+5"):
        with pytest.raises(ValidationError, match="is no time zone"):
            DatasetConfig(time_zone=name)
