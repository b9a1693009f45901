"""What refused times look like, and which setting would read them."""

from datetime import UTC, datetime

import pytest

from pipelines.datasets.times import TimeRule
from pipelines.stages.ingest.time_advice import advise_time

LOW, HIGH = datetime(1990, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
NOW = 1_704_070_940
CASES = [
    ("milliseconds", str(NOW), "look like seconds: set dataset.time_unit=seconds"),
    ("microseconds", str(NOW), "dataset.time_unit=seconds"),
    ("timestamp", str(NOW), "dataset.time_unit=seconds"),
    ("seconds", f"{NOW}123", "dataset.time_unit=milliseconds"),
    ("milliseconds", f"{NOW}123456", "dataset.time_unit=microseconds"),
    ("seconds", f"{NOW}123456789", "dataset.time_unit=nanoseconds"),
    ("seconds", "1.704070940123E12", "dataset.time_unit=milliseconds"),
    ("seconds", "20240131", "dataset.time_format=yyyyMMdd"),
    ("seconds", "20240131.0", "dataset.time_format=yyyyMMdd"),
    ("milliseconds", "20240131183000", "dataset.time_format=yyyyMMddHHmmss"),
    ("timestamp", "18:30:00", "times of day without a date"),
    ("timestamp", "6:30 PM", "times of day without a date"),
    ("timestamp", "04/03/2024", "d/M/yyyy or M/d/yyyy"),
    ("timestamp", "04/03/2024 18:00", "'d/M/yyyy H:mm' or 'M/d/yyyy H:mm'"),
    ("timestamp", "3/4/2024, 6:00:05 PM", "or 'M/d/yyyy"),
    ("timestamp", "03.04.2024", "dataset.time_format=d.M.yyyy"),
    ("seconds", "03.04.2024 18:00", "dataset.time_format='d.M.yyyy H:mm'"),
    ("timestamp", "Mon Jan 01 01:02:20 +0000 2024", "dataset.time_format='EEE MMM dd HH:mm:ss Z yyyy'"),
    ("seconds", "2024-01-31 18:00:00", "dataset.time_unit=timestamp"),
    ("timestamp", "1970-01-01 00:00:01.704", "too small a unit when the file was written"),
]


@pytest.mark.parametrize(("unit", "value", "words"), CASES)
def test_the_setting_that_reads_the_values_is_named(unit: str, value: str, words: str) -> None:
    advice = advise_time([value] * 3 + ["?"], TimeRule(unit), LOW, HIGH)  # type: ignore[arg-type]
    assert advice is not None
    assert words in advice
    assert value in advice


def test_nothing_is_said_of_what_fits_nothing() -> None:
    for values in ([], ["yesterday"], ["-5", "0"], [str(NOW), "yesterday", "tomorrow"]):
        assert advise_time(values, TimeRule("milliseconds"), LOW, HIGH) is None
    assert advise_time([str(NOW)], TimeRule("seconds"), LOW, HIGH) is None, "the unit that is set already"


def test_a_pattern_that_hides_the_unit_is_named() -> None:
    advice = advise_time([str(NOW)], TimeRule("seconds", "yyyyMMdd"), LOW, HIGH)
    assert advice is not None
    assert advice.endswith("set dataset.time_unit=seconds and leave dataset.time_format out")
