"""Event times: numbers in a unit, text in a pattern, local times in a zone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Literal
from zoneinfo import ZoneInfo

from pyspark.errors import PySparkException
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from dr_core.errors import ConfigError

TimeUnit = Literal["seconds", "milliseconds", "microseconds", "nanoseconds", "timestamp"]
MICROSECONDS: dict[str, int] = {"seconds": 1_000_000, "milliseconds": 1_000, "microseconds": 1}
"""Microseconds in a unit; a nanosecond is less than one."""
_WEEKDAY = re.compile(r"^E+,?\s*")
_BEGINS_WITH_A_YEAR = r"^\s*\d{4}(-|\s*$)"
_ENDS_WITH_A_ZONE = r":[\d:.]+\s*[A-Za-z+-]"


@dataclass(frozen=True)
class TimeRule:
    """How a column of times is read."""

    unit: TimeUnit
    pattern: str | None = None
    """Spark's datetime pattern of the values, text or numbers; it goes before the unit."""
    zone: str = "UTC"
    """Where the clocks stood that wrote times without a zone."""

    def check(self, spark: SparkSession) -> None:
        """Raise :class:`ConfigError` when Spark does not know the pattern."""
        if self.pattern is None:
            return
        try:
            spark.range(1).select(self._parsed(F.lit("?"))).collect()
        except PySparkException as error:
            reason = str(error).split("\n", 1)[0]
            raise ConfigError(
                f"dataset.time_format={self.pattern!r} is no pattern of Spark, such as yyyy-MM-dd HH:mm:ss: {reason}"
            ) from error

    def read(self, column: Column, kind: T.DataType) -> Column:
        """Return a column as timestamp, null where it cannot be one. Timestamp columns need no rule, dates only a zone."""
        if isinstance(kind, T.TimestampType):
            return column
        if isinstance(kind, T.TimestampNTZType | T.DateType):
            return self._from_local(column.cast("timestamp"))
        if self.pattern is not None:
            is_float = isinstance(kind, T.FloatType | T.DoubleType)
            return self._parsed((column.try_cast("bigint") if is_float else column).cast("string"))
        if self.unit == "timestamp":
            return self._from_iso(column.cast("string"))
        return self._from_number(column, kind)

    def _parsed(self, text: Column) -> Column:
        """Parse text in the pattern. Spark cannot read names of weekdays, which say nothing that the date does not."""
        pattern = _WEEKDAY.sub("", str(self.pattern))
        if pattern != self.pattern:
            text = F.regexp_replace(text, r"^\s*\p{L}+\.?,?\s*", "")
        moment = F.try_to_timestamp(F.regexp_replace(F.trim(text), r"^(\d+)\.0$", "$1"), F.lit(pattern))
        has_zone = re.search("[VzOXxZ]", re.sub("'[^']*'", "", pattern)) is not None
        return moment if has_zone else self._from_local(moment)

    def _from_iso(self, text: Column) -> Column:
        """Parse ISO text. Spark takes a time of day to be one of today: only text that begins with a year is read."""
        moment = F.when(text.rlike(_BEGINS_WITH_A_YEAR), F.try_to_timestamp(text))
        return (
            moment
            if self.zone == "UTC"
            else F.when(text.rlike(_ENDS_WITH_A_ZONE), moment).otherwise(self._from_local(moment))
        )

    def _from_number(self, column: Column, kind: T.DataType) -> Column:
        has_whole = isinstance(kind, T.IntegralType | T.StringType) or (
            isinstance(kind, T.DecimalType) and kind.scale == 0
        )
        whole = column.try_cast("bigint") if has_whole else F.lit(None).cast("bigint")
        fraction = column.try_cast("double")
        if self.unit == "nanoseconds":
            micros = F.floor(whole.cast("decimal(20,0)") / 1000), fraction / 1000
        else:
            factor = F.lit(MICROSECONDS[self.unit]).cast("bigint")
            micros = F.try_multiply(whole, factor), fraction * factor
        return F.timestamp_micros(F.coalesce(*(value.try_cast("bigint") for value in micros)))

    def _from_local(self, moment: Column) -> Column:
        return moment if self.zone == "UTC" else F.to_utc_timestamp(moment, self.zone)


def zone_of(name: str) -> tzinfo:
    """Return the zone of a name (``Europe/Berlin``) or an offset (``-05:00``); raise ``ValueError`` when there is none."""
    if name == "UTC":
        return UTC
    if found := re.fullmatch(r"([+-])(\d\d):(\d\d)", name):
        offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
        return timezone(-offset if found[1] == "-" else offset)
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(
            f"{name!r} is no time zone: give a name such as Europe/Berlin, or an offset such as -05:00"
        ) from error


def in_zone(moment: datetime, zone: str) -> datetime:
    """Return a moment in UTC; one without a zone of its own is taken to be of ``zone``."""
    local = moment if moment.tzinfo is not None else moment.replace(tzinfo=zone_of(zone))
    return local.astimezone(UTC)
