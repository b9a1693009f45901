"""From raw logs to tables: nothing disappears, nothing changes twice, ids never move."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from dr_core.errors import ConfigError, GateRefused, InputError
from pipelines.datasets.interactions import DatasetConfig
from pipelines.stages.ingest.catalogue import number_densely, update_items
from pipelines.stages.ingest.histories import last_events
from pipelines.stages.ingest.interval import Interval
from pipelines.stages.ingest.preprocess import SETTLED, preprocess
from pipelines.stages.ingest.row_rules import PreprocessConfig, event_weight, own_status
from pipelines.stages.ingest.split import (
    SplitConfig,
    draw_roles,
    evaluation_histories,
    extend_roles,
    training_interactions,
    user_hash,
)
from pipelines.stages.ingest.summary import PreprocessSummary
from pipelines.storage.schemas import SCHEMAS
from pipelines.storage.workdir import Workdir

TABLES = ("items", "interactions", "user_histories", "quarantine", "evaluation_users", "evaluation_histories")
FEW = SplitConfig(num_test=1, num_validation=1, min_events=2)
T0 = datetime(2024, 1, 1, tzinfo=UTC)


def contents(spark: SparkSession, workdir: Workdir, names: tuple[str, ...] = TABLES) -> dict[str, list[str]]:
    return {name: sorted(map(str, workdir.read(spark, name).collect())) for name in names}


def write_log(path: Path, rows: list[tuple[object, ...]], names: tuple[str, ...]) -> str:
    columns = list(zip(*rows, strict=True))
    pq.write_table(pa.table({name: list(column) for name, column in zip(names, columns, strict=True)}), path)
    return str(path)


# ---------------------------------------------------------------- one dirty log

HEADER = "user,item,time,stars,watch\n"
BAD_LINES = {
    "malformed_row": ["u1,i1,100,5,1,more", "u1"],
    "null_user": [",i1,100,5,1", '" ",i1,100,5,1'],
    "null_item": ["u1,,100,5,1"],
    "oversized_id": [f"{'x' * 41},i1,100,5,1", f"u1,{'x' * 41},100,5,1"],
    "null_time": ["u1,i1,,5,1"],
    "unparsable_time": ["u1,i1,yesterday,5,1"],
    "negative_time": ["u1,i1,-5,5,1"],
    "future_time": ["u1,i1,99999999999,5,1", "u1,i1,5000,5,1"],
    "early_time": ["u1,i1,5,5,1"],
    "invalid_rating": ["u1,i1,100,good,1", "u1,i1,100,NaN,1", "u1,i1,100,,1"],
    "invalid_weight": ["u1,i1,100,5,", "u1,i1,100,5,Infinity"],
    "negative_weight": ["u1,i1,100,5,-1"],
    "duplicate_row": ["u1,i0,100,5,9", "u1,i0,100,5,9"],
}
UNWANTED_LINES = {
    "not_positive": ["u1,i1,100,3.5,1", "u2,i1,100,1,1"],
    "repeated_pair": ["u1,i0,150,5,9", "u2,i0,151,5,9"],
    "too_few_events": ["u9,i1,100,5,1"],
}


@dataclass
class Ingested:
    workdir: Workdir
    summary: PreprocessSummary
    log: str


@pytest.fixture(scope="module")
def dirty(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Ingested:
    folder = tmp_path_factory.mktemp("dirty")
    good = [f"u{user},i{item},{100 + item},5,{10 * item + 9}" for user in range(1, 5) for item in range(4)]
    extra = [line for lines in (*BAD_LINES.values(), *UNWANTED_LINES.values()) for line in lines]
    (folder / "log.csv").write_text(HEADER + "\n".join(good + extra) + "\n")
    (folder / "items.csv").write_text(
        "item,title,on\ni2,Two,true\nz9,Cold,true\ni3,Three,false\n,Nameless,true\ni2,Again,true\n"
    )
    dataset = DatasetConfig(
        path=str(folder / "log.csv"),
        catalogue=str(folder / "items.csv"),
        columns={"time": "time", "rating": "stars", "weight": "watch"},
        catalogue_columns={"title": "title", "active": "on"},
    )
    config = PreprocessConfig(
        positive={"kind": "threshold", "column": "rating", "at_least": 4},
        weight={"kind": "column", "maximum": 30},
        min_events=2,
        repeated_pairs="first",
        max_quarantine_share=1,
        max_id_length=40,
        min_time=datetime.fromtimestamp(50, UTC),
        max_time=datetime.fromtimestamp(5000, UTC),
    )
    workdir = Workdir(str(folder / "work"))
    summary = preprocess(spark, workdir, dataset, config, FEW, history_length=69, run_id="run")
    return Ingested(workdir, summary, str(folder / "log.csv"))


def test_every_row_has_one_fate(dirty: Ingested) -> None:
    summary = dirty.summary
    expected = {reason: len(lines) for reason, lines in {**BAD_LINES, **UNWANTED_LINES}.items()}
    assert summary.reasons == expected
    assert summary.kept == 16
    assert summary.quarantined == sum(len(lines) for lines in BAD_LINES.values())
    assert summary.filtered == sum(len(lines) for lines in UNWANTED_LINES.values())
    assert summary.rows_in == summary.kept + summary.quarantined + summary.filtered
    assert not dirty.workdir.exists(*SETTLED)


def test_quarantine_keeps_the_row_its_file_and_the_reason(spark: SparkSession, dirty: Ingested) -> None:
    rows = dirty.workdir.read(spark, "quarantine").collect()
    catalogue_rows = [row for row in rows if row.reason.startswith("catalogue_")]
    assert Counter(row.reason for row in rows if row not in catalogue_rows) == {
        reason: len(lines) for reason, lines in BAD_LINES.items()
    }
    assert dirty.summary.catalogue_reasons == {"catalogue_duplicate_item": 1, "catalogue_null_item": 1}
    assert Counter(row.reason for row in catalogue_rows) == dirty.summary.catalogue_reasons
    assert {row.source_file.rsplit("/", 1)[-1] for row in rows} == {"log.csv", "items.csv"}
    assert {row.source_interval for row in rows} == {"all"}
    (unparsable,) = (json.loads(row.row) for row in rows if row.reason == "unparsable_time")
    assert unparsable["time"] == "yesterday"
    malformed = {json.loads(row.row)["_corrupt_record"] for row in rows if row.reason == "malformed_row"}
    assert malformed == set(BAD_LINES["malformed_row"])
    assert all(json.loads(row.row)["item"] == "i0" for row in rows if row.reason == "duplicate_row")


def test_tables_have_the_promised_columns(spark: SparkSession, dirty: Ingested) -> None:
    for name in TABLES:
        frame = dirty.workdir.read(spark, name)
        assert {field.name: field.dataType.simpleString() for field in frame.schema} == SCHEMAS[name]


def test_items_are_dense_sorted_and_carry_the_catalogue(spark: SparkSession, dirty: Ingested) -> None:
    items = dirty.workdir.read(spark, "items").orderBy("item_id").collect()
    assert [(item.item_id, item.item_key) for item in items] == list(enumerate(["i0", "i1", "i2", "i3", "z9"]))
    assert [item.title for item in items] == [None, None, "Two", "Three", "Cold"]
    assert [item.active for item in items] == [True, True, True, False, True]
    assert items[0].first_seen.timestamp() == 100
    assert items[4].first_seen is None


def test_interactions_are_in_order_and_weighted(spark: SparkSession, dirty: Ingested) -> None:
    interactions = dirty.workdir.read(spark, "interactions")
    rows = interactions.where("user = 'u3'").orderBy("event_order").collect()
    assert [(row.event_order, row.item_id, row.weight) for row in rows] == [
        (0, 0, 9),
        (1, 1, 19),
        (2, 2, 29),
        (3, 3, 30),
    ]
    assert {str(row.event_date) for row in rows} == {"1970-01-01"}
    assert dirty.summary.users == 4
    assert (dirty.summary.items, dirty.summary.catalogue_items) == (4, 5)
    assert dirty.summary.interval_start == "1970-01-01T00:01:40Z"
    assert dirty.summary.interval_end == "1970-01-01T00:01:44Z"


def test_held_out_users_are_in_no_training_event(spark: SparkSession, dirty: Ingested) -> None:
    roles = {row.user: row.role for row in dirty.workdir.read(spark, "evaluation_users").collect()}
    assert sorted(roles.values()) == ["test", "validation"]
    trained = {row.user for row in training_interactions(spark, dirty.workdir).select("user").distinct().collect()}
    assert trained == {"u1", "u2", "u3", "u4"} - set(roles)
    assert (dirty.summary.train_users, dirty.summary.test_users, dirty.summary.validation_users) == (2, 1, 1)
    for row in dirty.workdir.read(spark, "evaluation_histories").collect():
        assert (row.role, row.history, row.truth) == (roles[row.user], [0, 1], [2, 3])


def test_too_many_bad_rows_are_refused_and_can_be_seen(spark: SparkSession, dirty: Ingested, tmp_path: Path) -> None:
    workdir = Workdir(str(tmp_path))
    dataset = DatasetConfig(path=dirty.log, columns={"time": "time"})
    with pytest.raises(GateRefused, match=r"of 44 rows are bad.*malformed_row 2.*max_quarantine_share|quarantine"):
        preprocess(spark, workdir, dataset, PreprocessConfig(), FEW, history_length=69, run_id="run")
    assert workdir.read(spark, "quarantine").count() > 0
    assert not workdir.has_table(spark, "interactions")
    assert not workdir.exists(*SETTLED)


# ---------------------------------------------------------------- rules, without tables


def test_positive_and_weight_rules(spark: SparkSession) -> None:
    rows = spark.createDataFrame(
        [(5.0, 1.0, 2.0), (3.0, 0.0, 900.0), (4.0, 0.5, 0.1)], "rating double, label double, weight double"
    ).selectExpr(
        "*", "'u' user", "'i' item", "false is_inexact", "false is_malformed", "false is_undecodable", "timestamp'2024-01-01' event_time", "'x' raw_time",
        "1L event_order",
    )  # fmt: skip

    def fates(**fields: object) -> list[str | None]:
        status = own_status(PreprocessConfig(**fields), has_time=True, has_order=False, interval=None, is_first=True)
        return [row[0] for row in rows.select(status).collect()]

    def weights(**rule: object) -> list[float]:
        return [row[0] for row in rows.select(event_weight(PreprocessConfig(weight=rule))).collect()]

    assert fates() == [None, None, None]
    assert fates(positive={"kind": "threshold", "at_least": 4}) == [None, "not_positive", None]
    assert fates(positive={"kind": "flag"}) == [None, "not_positive", "invalid_label"]
    assert fates(positive={"kind": "flag", "column": "rating"}) == ["invalid_rating"] * 3
    assert fates(max_time=T0) == ["future_time"] * 3
    assert weights(kind="constant", value=2) == [2, 2, 2]
    assert weights(kind="column", column="weight", minimum=1, maximum=50) == [2, 50, 1]


# ---------------------------------------------------------------- items


def test_ids_stay_while_the_catalogue_changes(spark: SparkSession, tmp_path: Path) -> None:
    workdir = Workdir(str(tmp_path))
    kept_schema = "item string, event_time timestamp"
    schema = "item string, title string, category string, creator string, active boolean, first_seen timestamp"

    def update(kept: list[tuple[object, ...]], catalogue: list[tuple[object, ...]] | None) -> dict[str, Row]:
        listed = None if catalogue is None else spark.createDataFrame(catalogue, schema)
        update_items(spark, workdir, spark.createDataFrame(kept, kept_schema), listed)
        return {row.item_key: row for row in workdir.read(spark, "items").collect()}

    first = update([("b", T0), ("d", T0), ("b", T0 - timedelta(1))], [("b", "B", "x", "me", None, None)])
    assert {key: row.item_id for key, row in first.items()} == {"b": 0, "d": 1}
    assert first["b"].first_seen.astimezone(UTC) == T0 - timedelta(1)
    assert first["b"].active
    second = update([("a", T0), ("d", T0)], [("b", None, "y", None, False, None), ("c", "C", None, None, True, T0)])
    assert {key: row.item_id for key, row in second.items()} == {"b": 0, "d": 1, "a": 2, "c": 3}
    assert (second["b"].title, second["b"].category, second["b"].active) == ("B", "y", False)
    assert second["d"] == first["d"]
    assert update([("a", T0), ("b", T0)], None) == second


def test_dense_numbers_follow_the_key_over_any_partitions(spark: SparkSession) -> None:
    frame = spark.range(2000).select((F.col("id") * 7919 % 2003).alias("key")).repartition(7)
    old = spark.conf.get("spark.sql.shuffle.partitions")
    spark.conf.set("spark.sql.shuffle.partitions", "7")
    spark.conf.set("spark.sql.adaptive.enabled", "false")
    try:
        with number_densely(frame, "key", "number", first_id=5) as numbered:
            rows = numbered.rows.collect()
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", str(old))
        spark.conf.unset("spark.sql.adaptive.enabled")
    assert [row.number for row in sorted(rows)] == list(range(5, 2005))
    assert numbered.end == 2005


# ---------------------------------------------------------------- logs with an order only


def test_order_log_breaks_ties_by_file_order(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    names = ("user", "item", "order", "ge4_known")
    users = ["5", "-7", str(10**30)]
    write_log(folder / "a.parquet", [(u, f"i{k}", k // 3, k != 4) for u in users for k in range(6)], names)
    write_log(folder / "b.parquet", [(u, f"j{k}", k, True) for u in users for k in range(2)], names)
    dataset = DatasetConfig(path=str(folder), columns={"order": "order", "label": "ge4_known"})
    config = PreprocessConfig(positive={"kind": "flag"})
    workdir = Workdir(str(tmp_path / "work"))
    summary = preprocess(spark, workdir, dataset, config, FEW, history_length=69, run_id="run")
    assert summary.reasons == {"not_positive": 3}
    assert summary.interval_start is None
    keys = {row.item_id: row.item_key for row in workdir.read(spark, "items").collect()}
    histories = {row.user: row for row in workdir.read(spark, "user_histories").collect()}
    assert set(histories) == set(users)
    for row in histories.values():
        assert [keys[item] for item in row.item_ids] == ["i0", "i1", "i2", "j0", "i3", "i5", "j1"]
        assert row.event_times == [None] * 7
    dates = workdir.read(spark, "interactions").select("event_date", "source_interval").distinct().collect()
    assert [(str(row.event_date), row.source_interval) for row in dates] == [("1970-01-01", "all")]
    with pytest.raises(InputError, match="order only, no time"):
        preprocess(
            spark,
            workdir,
            dataset,
            config,
            FEW,
            history_length=69,
            run_id="run",
            interval=Interval.parse("2024-01-01", "2024-01-02"),
        )


# ---------------------------------------------------------------- days

DAYS = [Interval(T0 + timedelta(days=d), T0 + timedelta(days=d + 1)) for d in range(3)]
SPLIT = SplitConfig(num_test=3, num_validation=3, min_events=2)
DAY_CONFIG = PreprocessConfig(min_events=2)
LENGTH = 4


def day_rows(day: int) -> list[tuple[object, ...]]:
    """Users 0-19 every day, ten new ones a day (some with one event), and one new item that sorts before old ones."""
    start = int(DAYS[day].start.timestamp())
    users = [*range(20), *range(100 * (day + 1), 100 * (day + 1) + 10)]
    rows: list[tuple[object, ...]] = []
    for user in users:
        for event in range(1 if user % 5 == 4 and user >= 20 else 3):
            item = f"h{9 - day}" if event == 1 else f"i{(user * 7 + event + day) % 12:02d}"
            rows.append((f"u{user}", item, start + 600 * event + user))
    return rows


@pytest.fixture(scope="module")
def days(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workdir, Callable[..., PreprocessSummary]]:
    folder = tmp_path_factory.mktemp("days")
    workdir = Workdir(str(folder / "work"))
    names = ("user", "item", "time")
    logs = [write_log(folder / f"day{day}.parquet", day_rows(day), names) for day in range(3)]
    dataset = DatasetConfig(columns={"time": "time"})

    def ingest(day: int, **options: object) -> PreprocessSummary:
        return preprocess(
            spark,
            workdir,
            dataset,
            DAY_CONFIG,
            SPLIT,
            history_length=LENGTH,
            run_id="run",
            interval=DAYS[day],
            logs=logs[day],
            seed=5,
            **options,
        )  # type: ignore[arg-type]

    return workdir, ingest


def test_days_add_up_and_repeat_without_effect(
    spark: SparkSession, days: tuple[Workdir, Callable[..., PreprocessSummary]]
) -> None:
    workdir, ingest = days
    first = ingest(0)
    assert first.reasons == {"too_few_events": 2}
    ids_of_day_0 = {row.item_key: row.item_id for row in workdir.read(spark, "items").collect()}
    assert sorted(ids_of_day_0, key=lambda key: ids_of_day_0[key]) == sorted(ids_of_day_0)
    roles_of_day_0 = set(map(tuple, workdir.read(spark, "evaluation_users").collect()))
    assert Counter(role for _, role in roles_of_day_0) == {"test": 3, "validation": 3}

    second = ingest(1)
    assert second.reasons == {}  # a day is too short to judge a user by
    items = {row.item_key: row.item_id for row in workdir.read(spark, "items").collect()}
    assert ids_of_day_0.items() <= items.items()
    assert {key: items[key] for key in items.keys() - ids_of_day_0.keys()} == {"h8": len(ids_of_day_0)}
    assert sorted(items.values()) == list(range(len(items)))
    roles = set(map(tuple, workdir.read(spark, "evaluation_users").collect()))
    assert roles_of_day_0 <= roles

    interactions = workdir.read(spark, "interactions")
    assert interactions.count() == first.kept + second.kept
    rebuilt = last_events(interactions, LENGTH)
    assert sorted(map(str, rebuilt.collect())) == contents(spark, workdir)["user_histories"]

    before = contents(spark, workdir)
    assert ingest(1) == second
    assert contents(spark, workdir) == before
    assert replace(ingest(0), catalogue_items=first.catalogue_items) == first  # a back-fill of the first day
    assert contents(spark, workdir) == before


def test_new_users_join_below_the_first_thresholds(
    spark: SparkSession, days: tuple[Workdir, Callable[..., PreprocessSummary]]
) -> None:
    workdir, _ = days
    roles = {row.user: row.role for row in workdir.read(spark, "evaluation_users").collect()}
    first_users = [f"u{user}" for user in [*range(20), *(u for u in range(100, 110) if u % 5 != 4)]]
    hashes = hash_users(spark, [*first_users, *(f"u{user}" for user in range(200, 210))], seed=5)
    ranked = sorted(first_users, key=lambda user: (hashes[user], user))
    test_bound, bound = hashes[ranked[2]], hashes[ranked[5]]
    expected = {
        user: "test" if value <= test_bound else "validation" for user, value in hashes.items() if value <= bound
    }
    assert roles == expected


def test_a_cumulative_log_brings_an_interval_alone(
    spark: SparkSession, days: tuple[Workdir, Callable[..., PreprocessSummary]]
) -> None:
    """Later days of a log are past the interval's end unless it is cumulative; earlier ones were delivered before."""
    workdir, _ = days
    rows = [row for day in range(3) for row in day_rows(day)]
    log = write_log(Path(workdir.uri).parent / "all.parquet", rows, ("user", "item", "time"))
    dataset = DatasetConfig(path=log, columns={"time": "time"})
    with pytest.raises(GateRefused, match="after_interval 86"):
        preprocess(
            spark, workdir, dataset, DAY_CONFIG, SPLIT, history_length=LENGTH, run_id="run", interval=DAYS[1], seed=5
        )
    before = contents(spark, workdir, ("interactions", "user_histories", "evaluation_users"))
    config = DAY_CONFIG.model_copy(update={"cumulative": True, "late_days": 0.0})
    summary = preprocess(
        spark, workdir, dataset, config, SPLIT, history_length=LENGTH, run_id="run", interval=DAYS[1], seed=5
    )
    assert summary.reasons == {"outside_interval": len(day_rows(0)) + len(day_rows(2))}
    assert contents(spark, workdir, ("interactions", "user_histories", "evaluation_users")) == before


def test_late_events_are_taken_once_and_redeliveries_are_not(spark: SparkSession, tmp_path: Path) -> None:
    """Day 1 brings an event of day 0 that was never seen, one that was, and one far too old."""
    workdir = Workdir(str(tmp_path / "work"))
    start = [int(day.start.timestamp()) for day in DAYS]
    late = ("u1", "late", start[0] + 700)
    seen = next(row for row in day_rows(0) if row[0] == "u1" and row[1] != "h9")
    extra = [seen, late, ("u2", "old", start[0] - 40 * 86_400)]
    names = ("user", "item", "time")
    logs = [
        write_log(tmp_path / "day0.parquet", day_rows(0), names),
        write_log(tmp_path / "day1.parquet", [*day_rows(1), *extra], names),
    ]
    dataset = DatasetConfig(columns={"time": "time"})

    def ingest(day: int) -> PreprocessSummary:
        options = {"run_id": "run", "interval": DAYS[day], "logs": logs[day], "seed": 5}
        return preprocess(spark, workdir, dataset, DAY_CONFIG, SPLIT, history_length=LENGTH, **options)  # type: ignore[arg-type]

    first, second = ingest(0), ingest(1)
    assert second.reasons == {"redelivered": 1, "too_late": 1}
    assert (second.late, second.kept) == (1, len(day_rows(1)) + 1)
    interactions = workdir.read(spark, "interactions")
    assert interactions.count() == first.kept + second.kept
    rebuilt = sorted(map(str, last_events(interactions, LENGTH).collect()))
    assert rebuilt == contents(spark, workdir)["user_histories"], "a late event takes its place in time"
    ledger = {row.source_interval: row for row in workdir.read(spark, "intervals").collect()}
    assert set(ledger) == {DAYS[0].label, DAYS[1].label}
    row = ledger[DAYS[1].label]
    assert (row.rows_in, row.kept, row.quarantined, row.filtered) == (len(day_rows(1)) + 3, second.kept, 1, 1)
    assert (row.late, row.redelivered) == (1, 1)
    before = contents(spark, workdir)
    assert ingest(1) == second
    assert contents(spark, workdir) == before


def test_intervals_are_checked() -> None:
    assert (
        Interval.parse("2024-01-01", "2024-01-02T00:00:00+00:00").label == "2024-01-01T00:00:00Z/2024-01-02T00:00:00Z"
    )
    for start, end in (("2024-01-02", "2024-01-02"), ("2024-01-01", "tomorrow")):
        with pytest.raises(ConfigError):
            Interval.parse(start, end)


# ---------------------------------------------------------------- the split


def hash_users(spark: SparkSession, users: list[str], seed: int) -> dict[str, int]:
    frame = spark.createDataFrame([(user,) for user in users], "user string")
    return {row.user: row.hash for row in frame.select("user", user_hash(seed).alias("hash")).collect()}


@pytest.mark.parametrize("users_from", ["hash", "column"])
def test_split_is_the_smallest_hashes_and_disjoint(spark: SparkSession, users_from: str) -> None:
    people = [(f"u{k}", k % 9, k % 3 == 0) for k in range(120)]
    frame = spark.createDataFrame(people, "user string, num_events long, is_later boolean")
    config = SplitConfig(users=users_from, num_test=7, num_validation=4, min_events=5)
    draws = {}
    for seed in (0, 1):
        hashes = hash_users(spark, [user for user, _, _ in people], seed)
        eligible = [u for u, n, is_later in people if n >= 5 and (is_later or users_from == "hash")]
        ranked = sorted(eligible, key=lambda user: (hashes[user], user))
        expected = dict.fromkeys(ranked[:7], "test") | dict.fromkeys(ranked[7:11], "validation")
        if users_from == "column":
            expected = dict.fromkeys((u for u, _, is_later in people if is_later), "unused") | expected
        drawn = draw_roles(frame.repartition(3), config, seed=seed).collect()
        assert len(drawn) == len({row.user for row in drawn})
        draws[seed] = {row.user: row.role for row in drawn}
        assert draws[seed] == expected
    assert draws[0] != draws[1]


def test_split_that_cannot_be_drawn_is_refused(spark: SparkSession) -> None:
    frame = spark.createDataFrame([("a", 9, False), ("b", 9, False)], "user string, num_events long, is_later boolean")
    with pytest.raises(ConfigError, match="only 2 users have at least 5"):
        draw_roles(frame, SplitConfig(num_test=2, num_validation=1, min_events=5), seed=0)
    with pytest.raises(InputError, match="split column is 1"):
        draw_roles(frame, SplitConfig(num_test=1, num_validation=0, users="column"), seed=0)


def test_roles_of_new_users_follow_the_column(spark: SparkSession) -> None:
    roles = spark.createDataFrame([("a", "test"), ("b", "unused")], "user string, role string")
    users = spark.createDataFrame([("c", True), ("d", False)], "user string, is_later boolean")
    config = SplitConfig(users="column", num_test=1, num_validation=0)
    hashes = hash_users(spark, ["a", "c"], seed=0)
    expected = "test" if hashes["c"] <= hashes["a"] else "unused"
    assert [tuple(row) for row in extend_roles(users, roles, config, seed=0).collect()] == [("c", expected)]


@pytest.mark.parametrize("kind", ["halves", "leave_last_out"])
def test_histories_are_cut_like_the_protocol_says(spark: SparkSession, kind: str) -> None:
    lengths = {"a": 2, "b": 5, "c": 8, "d": 1, "e": 6}
    events = [(user, 10 * k + len(user), None, k) for user, n in lengths.items() for k in reversed(range(n))]
    interactions = spark.createDataFrame(events, "user string, item_id int, event_time timestamp, event_order long")
    roles = [("a", "test"), ("b", "test"), ("c", "validation"), ("d", "test"), ("e", "unused")]
    frame = spark.createDataFrame(roles, "user string, role string")
    cut = evaluation_histories(interactions, frame, SplitConfig(kind=kind)).collect()
    expected = {}
    for user, role in roles[:3]:
        items = [10 * k + 1 for k in range(lengths[user])]
        first = len(items) // 2 if kind == "halves" else len(items) - 1
        expected[user] = (role, items[:first], items[first:])
    assert {row.user: (row.role, row.history, row.truth) for row in cut} == expected
