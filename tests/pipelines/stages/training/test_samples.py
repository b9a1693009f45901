"""Samples look only forward, come out the same however the work is cut, and share out evenly."""

import glob
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from dr_core.errors import GateRefused, InputError
from dr_core.learning.samples import SamplesConfig
from pipelines.stages.ingest.split import user_hash
from pipelines.stages.training.petastorm import read_rows
from pipelines.stages.training.samples import _spread, sample_rows, samples
from pipelines.storage.workdir import Workdir

CONFIG = SamplesConfig(max_rows=4, positions=3, targets=4, num_blocks=3, rows_per_group=5)
LENGTH = 10
LENGTHS = {f"u{n}": n for n in (1, 2, 3, 4, 10, 11, 12, 20, 21, 22, 35, 41, 42, 100)}
HISTORY_SCHEMA = "user string, items array<int>, weights array<float>, first_target int"


def event_weight(event: int) -> float:
    return 1.0 + event / 2


def histories(spark: SparkSession, first_target: int = 1) -> DataFrame:
    """Item k of every user is 100 + k, so that a sample's items tell which events they are."""
    rows = [
        (user, [100 + k for k in range(n)], [event_weight(k) for k in range(n)], first_target)
        for user, n in LENGTHS.items()
    ]
    return spark.createDataFrame(rows, HISTORY_SCHEMA)


def by_user(frame: DataFrame) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in frame.orderBy("user", "row").collect():
        found.setdefault(row.user, []).append(row)
    return found


def states_and_targets(row: Row, config: SamplesConfig) -> Iterator[tuple[int, list[int]]]:
    """Yield each state's event and the events that are its targets; check padding and weights on the way."""
    width = config.targets
    for slot, position in enumerate(row.positions):
        items = row.targets[slot * width : (slot + 1) * width]
        weights = row.weights[slot * width : (slot + 1) * width]
        events = [item - 100 for item in items if item >= 0]
        assert items == [100 + event for event in events] + [-1] * (width - len(events))
        assert weights == [event_weight(event) for event in events] + [0.0] * (width - len(events))
        if position < 0:
            assert not events
        else:
            yield row.history[position] - 100, events


@pytest.mark.parametrize("first_target", [1, 3, 11, 25])
def test_rows_are_the_windows_that_the_docstring_names(spark: SparkSession, first_target: int) -> None:
    found = by_user(sample_rows(histories(spark, first_target), CONFIG, history_length=LENGTH, seed=1))
    for user, n in LENGTHS.items():
        learnable = n - first_target
        num_rows = min(4, -(-learnable // 10)) if learnable > 0 else 0
        rows = found.get(user, [])
        assert [row.row for row in rows] == list(range(num_rows))
        states_before = first_target - 1
        for row in rows:
            end = first_target - 1 + learnable * (row.row + 1) // num_rows
            begin = max(0, end - 10)
            assert row.length == end - begin
            assert row.history == [100 + k for k in range(begin, end)] + [-1] * (10 - row.length)
            states = [state for state, _ in states_and_targets(row, CONFIG)]
            free = end - max(states_before, begin)
            assert len(states) == min(3, free)
            assert states == sorted(set(states))
            assert all(max(states_before, begin) <= state < end for state in states)
            states_before = end
        if rows:
            assert states_before == n - 1


@pytest.mark.parametrize("first_target", [1, 11])
def test_targets_are_strictly_later_events(spark: SparkSession, first_target: int) -> None:
    for user, rows in by_user(
        sample_rows(histories(spark, first_target), CONFIG, history_length=LENGTH, seed=1)
    ).items():
        for row in rows:
            for state, events in states_and_targets(row, CONFIG):
                later = LENGTHS[user] - 1 - state
                assert len(events) == min(4, later)
                assert events == sorted(set(events))
                assert state < events[0]
                assert events[0] >= first_target
                assert events[-1] < LENGTHS[user]


def test_next_mode_takes_the_next_events(spark: SparkSession) -> None:
    config = CONFIG.model_copy(update={"target_mode": "next"})
    for user, rows in by_user(sample_rows(histories(spark), config, history_length=LENGTH, seed=1)).items():
        for row in rows:
            for state, events in states_and_targets(row, config):
                assert events == list(range(state + 1, min(state + 5, LENGTHS[user])))


@pytest.mark.parametrize(("available", "wanted"), [(4, 4), (5, 4), (7, 3), (30, 8), (3, 8), (1, 1)])
def test_each_later_event_is_as_likely_as_any_other(spark: SparkSession, available: int, wanted: int) -> None:
    drawn = spark.range(-available, available).select(_spread(F.lit(available), wanted, F.col("id")).alias("offsets"))
    offsets = [row.offsets for row in drawn.collect()]
    num_drawn = min(available, wanted)
    assert all(len(set(row)) == num_drawn and set(row) <= set(range(available)) for row in offsets)
    counts = [sum(offset in row for row in offsets) for offset in range(available)]
    assert set(counts) == {2 * num_drawn}


def test_rows_do_not_depend_on_partitions_but_on_the_seed(spark: SparkSession) -> None:
    frame = histories(spark)
    one, many = (
        sample_rows(frame.repartition(n), CONFIG, history_length=LENGTH, seed=1).orderBy("user", "row").collect()
        for n in (1, 5)
    )
    assert one == many
    other = sample_rows(frame, CONFIG, history_length=LENGTH, seed=2).orderBy("user", "row").collect()
    assert [row.history for row in other] == [row.history for row in one]
    assert [row.targets for row in other] != [row.targets for row in one]


# ---------------------------------------------------------------- written

T0 = datetime(2024, 1, 1, tzinfo=UTC)
HELD_OUT = {"u22": "test", "u35": "validation", "u41": "unused"}


def brought_by(event: int) -> str:
    """Label of the interval that brought event k."""
    return "early" if 2 <= event < 12 else "late" if 95 <= event < 98 else "all"


@pytest.fixture(scope="module")
def workdir(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    """A preprocessed work folder: event k of every user happens k hours after T0."""
    found = Workdir(str(tmp_path_factory.mktemp("work")))
    events = [
        (user, 100 + k, T0 + timedelta(hours=k), k, event_weight(k), brought_by(k), (T0 + timedelta(hours=k)).date())
        for user, n in LENGTHS.items()
        for k in range(n)
    ]
    names = "user string, item_id int, event_time timestamp, event_order long, weight float, source_interval string"
    found.write(spark.createDataFrame(events[::-1], names + ", event_date date"), "interactions")
    found.write(spark.createDataFrame(list(HELD_OUT.items()), "user string, role string"), "evaluation_users")
    kept = [
        (user, [100 + k for k in range(max(0, n - 12), n)], [T0 + timedelta(hours=k) for k in range(max(0, n - 12), n)])
        for user, n in LENGTHS.items()
    ]
    found.write(
        spark.createDataFrame(kept, "user string, item_ids array<int>, event_times array<timestamp>"), "user_histories"
    )
    return found


def test_written_rows_are_the_rows_of_training_users(spark: SparkSession, workdir: Workdir) -> None:
    summary = samples(spark, workdir, CONFIG, history_length=LENGTH, seed=1)
    frame = spark.read.parquet(workdir.table("samples"))
    expected = sample_rows(histories(spark), CONFIG, history_length=LENGTH, seed=1).where(
        ~F.col("user").isin(list(HELD_OUT))
    )
    assert frame.columns == expected.columns
    assert frame.orderBy("user", "row").collect() == expected.orderBy("user", "row").collect()
    rows = expected.collect()
    assert summary.rows == len(rows)
    assert summary.users == len({row.user for row in rows}) == len(LENGTHS) - len(HELD_OUT) - 1
    assert summary.positions == sum(position >= 0 for row in rows for position in row.positions)
    assert summary.targets == sum(target >= 0 for row in rows for target in row.targets)


def test_row_groups_are_equal_and_in_order(spark: SparkSession, workdir: Workdir) -> None:
    summary = samples(spark, workdir, CONFIG, history_length=LENGTH, seed=1, name="ordered")
    files = sorted(glob.glob(f"{workdir.table('ordered')}/*.parquet"))
    footers = [pq.ParquetFile(file).metadata for file in files]
    assert [footer.num_row_groups for footer in footers] == [1] * summary.num_row_groups
    sizes = [footer.num_rows for footer in footers]
    assert len(sizes) % 4 == 0
    assert (min(sizes), max(sizes)) == (summary.min_group_rows, summary.max_group_rows)
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= CONFIG.rows_per_group
    order = [(row["block"], row["user"], row["row"]) for file in files for row in pq.read_table(file).to_pylist()]
    users = spark.createDataFrame([(user,) for user in LENGTHS], "user string")
    hashes = {row.user: row.hash for row in users.select("user", user_hash(1).alias("hash")).collect()}
    assert order == sorted(order, key=lambda key: (key[0], hashes[key[1]], key[2]))


@pytest.mark.parametrize("num_shards", [1, 2, 4])
def test_petastorm_shards_read_every_row_once(spark: SparkSession, workdir: Workdir, num_shards: int) -> None:
    if not workdir.exists("tables", "shared"):
        samples(spark, workdir, CONFIG, history_length=LENGTH, seed=1, name="shared")
    folder = workdir.table("shared")
    columns = ("history", "positions", "targets", "weights", "context_categorical", "context_numeric")
    counts, total = [], 0.0
    for shard in range(num_shards):
        groups = list(
            read_rows(workdir.filesystem, folder, shard=shard, num_shards=num_shards, seed=0, columns=columns)
        )
        counts.append(len(groups))
        for group in groups:
            assert [group[name].shape[1] for name in columns] == [10, 3, 12, 12, 1, 1]
            total += float(group["weights"].sum())
    assert len(set(counts)) == 1
    written = spark.read.parquet(folder).select(F.explode("weights").alias("weight")).agg(F.sum("weight")).first()
    assert total == written[0]  # type: ignore[index]


def test_interval_is_learnt_with_what_came_before_as_context(spark: SparkSession, workdir: Workdir) -> None:
    with pytest.raises(GateRefused, match="only 1 training rows"):
        samples(spark, workdir, CONFIG, history_length=LENGTH, seed=1, labels=["late"], name="late")
    samples(spark, workdir, CONFIG, history_length=LENGTH, seed=1, labels=["early"], name="early")
    found = by_user(spark.read.parquet(workdir.table("early")))
    kept_before = {user: [k for k in range(max(0, n - 12), n) if k < 2] for user, n in LENGTHS.items()}
    assert set(found) == {user for user, n in LENGTHS.items() if n > 2 and user not in HELD_OUT}
    for user, rows in found.items():
        sequence = [*kept_before[user], *range(2, min(12, LENGTHS[user]))]
        for row in rows:
            history = [item - 100 for item in row.history if item >= 0]
            start = sequence.index(history[0])
            assert history == sequence[start : start + len(history)]
            for state, events in states_and_targets(row, CONFIG):
                assert events
                assert all(max(2, state + 1) <= event < 12 for event in events)


def test_replayed_users_are_others_and_are_marked(spark: SparkSession, workdir: Workdir) -> None:
    """Only u100 has an event of the interval; the others are drawn by hash, about as many as were asked for."""
    samples(spark, workdir, CONFIG, history_length=LENGTH, seed=1, labels=["late"], replay_share=8.0, name="replayed")
    rows = spark.read.parquet(workdir.table("replayed")).collect()
    learnt, replayed = ({row.user for row in rows if row.is_replay is flag} for flag in (False, True))
    assert learnt == {"u100"}
    assert 2 <= len(replayed) <= len(LENGTHS) - len(HELD_OUT) - 2
    assert not replayed & (learnt | set(HELD_OUT))
    for row in rows:
        if row.is_replay:
            length = LENGTHS[row.user]
            assert {item - 100 for item in row.history if item >= 0} <= set(range(max(0, length - 12), length))
            assert set(row.weights) <= {0.0, 1.0}


def test_heavy_users_are_capped(spark: SparkSession, workdir: Workdir) -> None:
    config = CONFIG.model_copy(update={"max_events": 5})
    samples(spark, workdir, config, history_length=LENGTH, seed=1, name="capped")
    rows = by_user(spark.read.parquet(workdir.table("capped")))["u100"]
    assert [row.history[: row.length] for row in rows] == [[195, 196, 197, 198]]
    assert {event for _, events in states_and_targets(rows[0], config) for event in events} <= {96, 97, 98, 99}


def test_unprepared_folder_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="evaluation_users"):
        samples(spark, Workdir(str(tmp_path)), CONFIG, history_length=LENGTH, seed=0)
