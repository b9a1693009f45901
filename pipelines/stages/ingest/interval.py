"""A half-open span of event time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from dr_core.errors import ConfigError
from pipelines.datasets.times import in_zone


def as_utc(moment: datetime) -> datetime:
    """Return a moment in UTC; one without a zone is taken to be UTC already."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


@dataclass(frozen=True)
class Interval:
    """A half-open span of event time [start, end), UTC."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        """Put both moments in UTC; raise :class:`ConfigError` when they are not in order."""
        object.__setattr__(self, "start", as_utc(self.start))
        object.__setattr__(self, "end", as_utc(self.end))
        if self.start >= self.end:
            raise ConfigError(f"the interval's start {self.start} must lie before its end {self.end}")

    @classmethod
    def parse(cls, start: str, end: str, zone: str = "UTC") -> Interval:
        """Read two ISO dates or moments, those without an offset as of ``zone``; raise :class:`ConfigError` when they are
        none or not in order."""
        try:
            return cls(*(in_zone(datetime.fromisoformat(moment), zone) for moment in (start, end)))
        except ValueError as error:
            raise ConfigError(f"'{start}' … '{end}' is no interval of two ISO dates or moments") from error

    @classmethod
    def from_label(cls, label: str) -> Interval:
        """Return the interval that a ``source_interval`` names."""
        return cls.parse(*label.split("/"))

    @property
    def days(self) -> float:
        """Its length in days."""
        return (self.end - self.start).total_seconds() / 86400

    @property
    def label(self) -> str:
        """The text kept in ``source_interval``."""
        return f"{self.start:%Y-%m-%dT%H:%M:%SZ}/{self.end:%Y-%m-%dT%H:%M:%SZ}"
