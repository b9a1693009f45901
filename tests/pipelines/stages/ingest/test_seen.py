"""What users have seen beside their kept events: every filtered row counts, day by day, and quarantined ones do not."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from pipelines.datasets.interactions import DatasetConfig
from pipelines.stages.ingest.interval import Interval
from pipelines.stages.ingest.preprocess import preprocess
from pipelines.stages.ingest.row_rules import PreprocessConfig
from pipelines.stages.ingest.seen import seen_by_user, write_seen_items
from pipelines.stages.ingest.split import SplitConfig
from pipelines.storage.delta_reader import read_rows
from pipelines.storage.workdir import Workdir, small_frame

T0 = 1_704_067_200
DAYS = [Interval.parse(f"2024-01-0{day}", f"2024-01-0{day + 1}") for day in (1, 2)]
Row = tuple[str, str, int, float]


def rows_of(day: int, stars: float, *pairs: tuple[str, str]) -> list[Row]:
    return [(user, item, T0 + 86_400 * day + place, stars) for place, (user, item) in enumerate(pairs)]


KEPT = rows_of(0, 5, *((f"u{user}", f"i{item}") for user in range(5) for item in range(3)))


def ingest(
    spark: SparkSession, workdir: Workdir, rows: list[Row], interval: Interval | None, **config: object
) -> dict[str, int]:
    path = Path(workdir.uri).with_suffix(".parquet")
    pq.write_table(
        pa.table(dict(zip(("user", "item", "time", "stars"), map(list, zip(*rows, strict=True)), strict=True))), path
    )
    dataset = DatasetConfig(path=str(path), columns={"time": "time", "rating": "stars"})
    rules = PreprocessConfig.model_validate(
        {"positive": {"kind": "threshold", "at_least": 4}, "min_events": 2, "repeated_pairs": "first"}
        | {"max_quarantine_share": 0.5}
        | config
    )
    split = SplitConfig(num_test=1, num_validation=1, min_events=2)
    return preprocess(
        spark, workdir, dataset, rules, split, history_length=2, run_id="r", interval=interval
    ).reasons  # fmt: skip


def pairs_of(spark: SparkSession, workdir: Workdir) -> set[tuple[str, str, str]]:
    rows = [tuple(row) for row in workdir.read(spark, "seen_items").collect()]
    assert len(rows) == len(set(rows)), "a pair stands once an interval"
    return set(rows)


def test_every_filtered_row_tells_what_was_seen_day_by_day(spark: SparkSession, tmp_path: Path) -> None:
    """Disliked, repeated or too few: seen. Bad, or of another day: not known."""
    workdir = Workdir(str(tmp_path / "W"))
    disliked = rows_of(0, 1, ("u0", "i9"), ("u0", "i9"), ("u1", "never"), ("u2", "i0"), ("lurker", "i1"))
    few = rows_of(0, 5, ("u9", "i2"))
    again = [(user, item, time + 3600, stars) for user, item, time, stars in KEPT[:1]]
    bad = [*KEPT[1:2], ("u3", "i7", T0 + 50, float("nan")), ("", "i6", T0 + 51, 1.0)]
    elsewhere = rows_of(-1, 1, ("u0", "before")) + rows_of(1, 5, ("u0", "after"))
    reasons = ingest(
        spark,
        workdir,
        KEPT + disliked + few + again + bad + elsewhere,
        DAYS[0],
        cumulative=True,
        max_quarantine_share=0.5,
    )
    assert reasons == {
        "not_positive": 5, "too_few_events": 1, "repeated_pair": 1, "outside_interval": 2,
        "duplicate_row": 1, "invalid_rating": 1, "null_user": 1,
    }  # fmt: skip
    first = {("u0", "i9"), ("u1", "never"), ("u2", "i0"), ("lurker", "i1"), ("u9", "i2"), ("u0", "i0")}
    first_day = {(*pair, DAYS[0].label) for pair in first}
    assert pairs_of(spark, workdir) == first_day

    events = rows_of(1, 5, ("u0", "i1"), ("u1", "i9"), ("u1", "i2"))
    ingest(spark, workdir, [*events, *rows_of(1, 1, ("u1", "i1"), ("u3", "i2"))], DAYS[1])
    assert pairs_of(spark, workdir) == first_day | {("u1", "i1", DAYS[1].label), ("u3", "i2", DAYS[1].label)}
    items = {row.item_id: row.item_key for row in workdir.read(spark, "items").collect()}
    seen = {row.user: sorted(items[item] for item in row.seen) for row in seen_by_user(spark, workdir).collect()}
    assert seen["u0"] == ["i0", "i1", "i2", "i9"], (
        "however long ago: the history holds two; i9 had its first event later"
    )
    assert seen["u1"] == ["i0", "i1", "i2", "i9"], "never has no id: nobody kept it"
    assert (seen["lurker"], seen["u9"], seen["u4"]) == (["i1"], ["i2"], ["i0", "i1", "i2"])


def test_an_interval_replaces_its_own_pairs_and_a_whole_log_all(spark: SparkSession, tmp_path: Path) -> None:
    workdir = Workdir(str(tmp_path / "W"))

    def write(label: str, *users: str, is_whole: bool = False) -> set[tuple[str, str]]:
        rows = [(user, "i", "not_positive") for user in users for _ in range(2)] + [("kept", "i", None)] * bool(users)
        columns = dict.fromkeys(("user", "item", "status"), "string")
        frames = [small_frame(spark, rows, columns)] if rows else []
        write_seen_items(spark, workdir, frames, label, is_whole=is_whole)
        table = read_rows(workdir.table("seen_items"))
        assert all(set(row) == {"user", "item_key", "source_interval"} for row in table)
        return {(row["user"], row["source_interval"]) for row in table} if table else set()

    assert write("day 1") == set(), "nothing was filtered"
    assert write("day 1", "a", "b") == {("a", "day 1"), ("b", "day 1")}
    assert write("day 2", "a") == {("a", "day 1"), ("b", "day 1"), ("a", "day 2")}
    assert write("day 1", "c") == {("c", "day 1"), ("a", "day 2")}
    assert write("day 1") == {("a", "day 2")}
    assert write("all", "d", is_whole=True) == {("d", "all")}
    assert write("all", is_whole=True) == set()
