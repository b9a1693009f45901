"""Intervals that do not follow each other: older ones, overlapping ones, and the first one again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from dr_core.errors import ConfigError, GateRefused
from pipelines.datasets.interactions import DatasetConfig
from pipelines.stages.ingest.histories import last_events
from pipelines.stages.ingest.interval import Interval
from pipelines.stages.ingest.preprocess import preprocess
from pipelines.stages.ingest.row_rules import PreprocessConfig
from pipelines.stages.ingest.split import SplitConfig, training_interactions
from pipelines.stages.ingest.summary import PreprocessSummary
from pipelines.storage.workdir import Workdir

T0 = datetime(2024, 1, 1, tzinfo=UTC)
USERS = [f"u{number}" for number in range(12)]
SPLIT = SplitConfig(num_test=3, num_validation=2, min_events=2)
LENGTH = 30
EVALUATION = ("evaluation_users", "evaluation_histories")
TABLES = ("items", "interactions", "user_histories", *EVALUATION)


def span(start: float, end: float) -> Interval:
    """Return the days [start, end) after T0."""
    return Interval(T0 + timedelta(days=start), T0 + timedelta(days=end))


def events(start: float, end: float, users: list[str] = USERS, *, a_day: int = 5) -> pd.DataFrame:
    """Return the rows of some days: every user has ``a_day`` events a day, on items that follow from user and time."""
    moments = pd.date_range(
        T0 + timedelta(days=start), T0 + timedelta(days=end), freq=f"{24 // a_day}h", inclusive="left"
    )
    moments = [moment for moment in moments if moment.hour < 24 // a_day * a_day]
    rows = [
        (user, f"i{(7 * place + moment.dayofyear + moment.hour) % 40}", int(moment.timestamp()) + place)
        for place, user in enumerate(users)
        for moment in moments
    ]
    return pd.DataFrame(rows, columns=["user", "item", "time"])


class Folder:
    """A work folder, and what is ingested into it."""

    def __init__(self, spark: SparkSession, place: Path) -> None:
        self.spark, self.place, self.workdir = spark, place, Workdir(str(place / "W"))

    def ingest(
        self, interval: Interval | None, rows: pd.DataFrame, split: SplitConfig = SPLIT, **rules: object
    ) -> PreprocessSummary:
        log = self.place / "log.parquet"
        rows.to_parquet(log)
        return preprocess(
            self.spark,
            self.workdir,
            DatasetConfig(path=str(log), columns={"time": "time"}),
            PreprocessConfig(**({"min_events": 3} | rules)),  # type: ignore[arg-type]
            split,
            history_length=LENGTH,
            run_id="run",
            interval=interval,
        )

    def contents(self, *names: str) -> dict[str, list[str]]:
        return {name: sorted(map(str, self.workdir.read(self.spark, name).collect())) for name in names or TABLES}

    def num_events(self) -> int:
        return self.workdir.read(self.spark, "interactions").count()

    def assert_histories_are_of_all_events(self) -> None:
        rebuilt = last_events(self.workdir.read(self.spark, "interactions"), LENGTH)
        assert sorted(map(str, rebuilt.collect())) == self.contents("user_histories")["user_histories"]


def test_a_day_before_the_first_adds_events_and_leaves_the_questions(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(spark, tmp_path)
    first = folder.ingest(span(0, 3), events(0, 3))
    assert first.kept == folder.num_events() == 180
    held_out = {row.user for row in folder.workdir.read(spark, "evaluation_users").collect()}
    asked = {
        row.user: len(row.history) + len(row.truth)
        for row in folder.workdir.read(spark, "evaluation_histories").collect()
    }
    assert asked == dict.fromkeys(held_out, 15)
    before = folder.contents()

    bad = events(-2, -1).assign(user=None)
    with pytest.raises(GateRefused):
        folder.ingest(span(-2, -1), bad)
    assert folder.contents() == before, "a refused day changes no table"

    killed_at(
        monkeypatch,
        "write:interactions:after",
        lambda: folder.ingest(span(-2, -1), events(-2, -1, [*USERS, "new"], a_day=2)),
    )
    assert folder.contents(*EVALUATION) == {name: before[name] for name in EVALUATION}
    older = folder.ingest(span(-2, -1), events(-2, -1, [*USERS, "new"], a_day=2))
    assert (older.kept, older.reasons) == (26, {}), "min_events judges users by the first interval alone"
    assert folder.num_events() == 180 + 26
    assert folder.contents(*EVALUATION) == {name: before[name] for name in EVALUATION}
    assert not training_interactions(spark, folder.workdir).where(F.col("user").isin(*held_out)).count()
    folder.assert_histories_are_of_all_events()

    now = folder.contents()
    assert folder.ingest(span(-2, -1), events(-2, -1, [*USERS, "new"], a_day=2)) == older
    assert folder.contents() == now, "an older day again changes nothing"
    again = folder.ingest(span(0, 3), events(0, 3))
    assert (again.kept, again.test_users) == (first.kept, first.test_users)
    assert folder.contents() == now, "nor does the first one"


def killed_at(monkeypatch: pytest.MonkeyPatch, point: str, work: Callable[[], object]) -> None:
    """Do some work until a named point is reached, and stop there as a kill would."""

    def reach(name: str) -> None:
        if name == point:
            raise KeyboardInterrupt(name)

    with monkeypatch.context() as patch:
        for module in ("pipelines.storage.workdir", "pipelines.stages.ingest.histories"):
            patch.setattr(f"{module}.reach", reach)
        with pytest.raises(KeyboardInterrupt, match=point):
            work()


def test_intervals_may_overlap_contain_each_other_and_be_parts_of_days(spark: SparkSession, tmp_path: Path) -> None:
    folder = Folder(spark, tmp_path)
    folder.ingest(span(1, 3.5), events(1, 3.5))
    asked = folder.contents(*EVALUATION)
    there, overlapping = len(events(1, 3.5)), len(events(3, 5))
    summary = folder.ingest(span(3, 5), events(3, 5))
    both = len(events(3, 3.5))
    assert (summary.kept, summary.reasons) == (overlapping - both, {"redelivered": both})
    there += overlapping - both
    containing = len(events(0.5, 5.25))
    summary = folder.ingest(span(0.5, 5.25), events(0.5, 5.25))
    assert (summary.kept, summary.reasons) == (containing - there, {"redelivered": there})
    interactions = folder.workdir.read(spark, "interactions")
    assert folder.num_events() == containing
    assert interactions.select("user", "item_id", "event_time").distinct().count() == containing
    assert folder.contents(*EVALUATION) == asked
    folder.assert_histories_are_of_all_events()


def test_a_whole_log_is_the_first_whatever_its_days(spark: SparkSession, tmp_path: Path) -> None:
    """Its ledger row says so, also in a folder whose ledger was written before rows said which was first."""
    folder = Folder(spark, tmp_path)
    folder.ingest(None, events(0, 3))
    before = folder.contents()
    with pytest.raises(ConfigError, match="none is left to train on"):
        folder.ingest(None, events(0, 2), SplitConfig(num_test=10, num_validation=2, min_events=2))
    assert folder.contents() == before
    without = folder.workdir.read(spark, "intervals").drop("is_first")
    without.write.format("delta").mode("overwrite").option("overwriteSchema", "true").save(
        folder.workdir.table("intervals")
    )
    assert folder.ingest(span(-1, 0), events(-1, 0)).kept == 60
    assert folder.contents(*EVALUATION) == {name: before[name] for name in EVALUATION}
    folder.assert_histories_are_of_all_events()


def test_a_split_that_cannot_be_drawn_writes_no_event(spark: SparkSession, tmp_path: Path) -> None:
    folder = Folder(spark, tmp_path)
    with pytest.raises(ConfigError, match="only 12 users"):
        folder.ingest(None, events(0, 3), SplitConfig(num_test=20, num_validation=2, min_events=2))
    assert not folder.workdir.exists("tables", "interactions")
    assert not folder.workdir.exists("tables", "items")
