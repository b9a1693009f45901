"""Whatever shape a log comes in, every row that was written is read, once, and means what it meant."""

import bz2
import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from dr_core.errors import GateRefused, InputError
from pipelines.datasets.interactions import DatasetConfig, read_catalogue, read_logs, resolve
from pipelines.datasets.look import look
from pipelines.datasets.rawframe import FILE_ORDER
from pipelines.stages.ingest.preprocess import preprocess
from pipelines.stages.ingest.row_rules import PreprocessConfig
from pipelines.stages.ingest.split import SplitConfig
from pipelines.storage.workdir import Workdir

T0 = 1_704_067_200
EVENTS = [(f"ü{n % 5}", f"i{n % 7}", T0 + 61 * n) for n in range(30)]
ASCII = [(user.replace("ü", "u"), item, time) for user, item, time in EVENTS]
HEADER = "user,item,time"
TIME = {"columns": {"time": "time"}}


def lines(events: list[tuple[str, str, int]], mark: str = ",", order: tuple[int, ...] = (0, 1, 2)) -> str:
    return "".join(mark.join(str(event[at]) for at in order) + "\n" for event in events)


def read(spark: SparkSession, path: Path | str, **options: Any) -> list[Row]:
    logs = read_logs(spark, resolve(DatasetConfig.model_validate({"path": str(path)} | TIME | options)))
    names = ("user", "item", "event_time", "is_malformed", "is_undecodable", "raw_row", "row_hash")
    rows = logs.withColumn("row_hash", F.xxhash64("raw_row")).orderBy(*FILE_ORDER).select(*names).collect()
    return list(rows)


def events_of(rows: list[Row]) -> list[tuple[str, str, int]]:
    return sorted((row.user, row.item, int(row.event_time.astimezone(UTC).timestamp())) for row in rows)


Writer = Callable[[Path], dict[str, Any]]
SHAPES: dict[str, Writer] = {}


def shape(write: Writer) -> Writer:
    SHAPES[write.__name__] = write
    return write


@shape
def parts_with_other_columns_and_without_a_header(folder: Path) -> dict[str, Any]:
    (folder / "a.csv").write_text(f"{HEADER}\n" + lines(EVENTS[:9]))
    (folder / "b.csv").write_text("time,x,item,user\n" + "".join(f"{t},9,{i},{u}\n" for u, i, t in EVENTS[9:15]))
    (folder / "c.csv").write_text(lines(EVENTS[15:20]))
    (folder / "d.csv").write_text(f"\ufeff{HEADER}\r\n" + lines(EVENTS[20:]).replace("\n", "\r\n"))
    (folder / "deep").mkdir()
    (folder / "deep" / "e.csv").write_text(f"{HEADER}\n")
    return {"path": folder}


@shape
def names_that_are_patterns(folder: Path) -> dict[str, Any]:
    for name in ("[1]", "{a,b}", "a b"):
        (folder / name).mkdir()
    (folder / "[1]" / "1.csv").write_text(f"{HEADER}\nother,other,5\n")
    (folder / "[1]" / "[1].csv").write_text(f"{HEADER}\n" + lines(EVENTS))
    return {"path": folder / "[1]" / "[1].csv"}


@shape
def a_pattern(folder: Path) -> dict[str, Any]:
    for at, name in enumerate(("2024-01/part-0.csv", "2024-02/part-0.csv", "2024-02/part-[1].csv")):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"{HEADER}\n" + lines(EVENTS[at::3]))
    (folder / "2024-02" / "notes.txt").write_text("no part\n")
    return {"path": folder / "2024-*" / "part-*.csv"}


@shape
def folders_that_hold_a_column(folder: Path) -> dict[str, Any]:
    for item in {event[1] for event in EVENTS}:
        (folder / f"item={item}").mkdir()
        mine = [event for event in EVENTS if event[1] == item]
        (folder / f"item={item}" / "part-0").write_text("user,time\n" + lines(mine, order=(0, 2)))
    return {"path": folder}


@shape
def windows_1252_packed(folder: Path) -> dict[str, Any]:
    text = "time;user;item\n" + lines(EVENTS, ";", (2, 0, 1))
    (folder / "log.txt.bz2").write_bytes(bz2.compress(text.encode("windows-1252")))
    return {"path": folder / "log.txt.bz2", "encoding": "windows-1252"}


@shape
def utf_16_with_line_breaks(folder: Path) -> dict[str, Any]:
    text = "user\titem\ttime\tsaid\n" + "".join(f'{u}\t{i}\t{t}\t"a\tb\nc"\n' for u, i, t in EVENTS)
    (folder / "log.tsv").write_bytes(text.encode("utf-16"))
    return {"path": folder / "log.tsv"}


@shape
def without_a_header(folder: Path) -> dict[str, Any]:
    (folder / "000000_0").write_text(lines(EVENTS, "\x01", (1, 0, 2)))
    return {"path": folder, "column_names": ["item", "user", "time"]}


@shape
def double_colons_and_literal_quotes(folder: Path) -> dict[str, Any]:
    rows = "".join(f'{user}::{item}::{time}::"Heroes\n\n' for user, item, time in EVENTS)
    (folder / "log").write_text(f"user::item::time::said\n{rows}")
    return {"path": folder / "log", "quote": "none"}


@shape
def fields_over_several_lines(folder: Path) -> dict[str, Any]:
    trap = 'a ""word""\nmy friend,i999,1704100000,yes\n'
    rows = [f'{u},{i},{t},"{trap if n % 9 == 0 else "fine"}"\n' for n, (u, i, t) in enumerate(EVENTS)]
    (folder / "a.csv.gz").write_bytes(gzip.compress((f"{HEADER},said\n" + "".join(rows[:20])).encode()))
    (folder / "b.csv").write_text(f"{HEADER},said\n" + "".join(rows[20:]).replace(trap, 'a 5" disk'))
    return {"path": folder}


@shape
def headers_again_among_the_rows(folder: Path) -> dict[str, Any]:
    (folder / "log.csv").write_text(f"{HEADER}\n{lines(EVENTS[:9])}{HEADER}\n{lines(EVENTS[9:])}")
    return {"path": folder / "log.csv", "malformed": 1}


@shape
def json_lines(folder: Path) -> dict[str, Any]:
    for at, name in enumerate(("a.jsonl", "b.json.gz")):
        records: list[dict[str, Any]] = [
            {"who": {"id": u}, "item": i, "time": t, "Item": 1, "tags": ["x", {"y": None}]} for u, i, t in EVENTS[at::2]
        ]
        text = "".join(json.dumps(record, ensure_ascii=at > 0) + "\n" for record in records).encode()
        (folder / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    return {"path": folder, "columns": {"user": "who.id", "time": "time"}}


def table(events: list[tuple[str, str, int]], **further: pa.Array) -> pa.Table:
    users, items, times = (list(column) for column in zip(*events, strict=True))
    return pa.table({"user": users, "item": items, "time": times} | further)


@shape
def parquet_of_pandas_with_types_that_spark_does_not_know(folder: Path) -> dict[str, Any]:
    count = len(EVENTS)
    moments = pa.array([time * 10**9 + 123_456_789 for _, _, time in EVENTS], pa.timestamp("ns"))
    odd = {
        "map": pa.array([[("a", 1)]] * count, pa.map_(pa.string(), pa.int32())),
        "clock": pa.array([1] * count, pa.time64("us")),
        "ns": moments,
        "decimal": pa.array([1] * count, pa.decimal256(60, 2)),
        "a.b`c": pa.array([{"x": 1}] * count),
    }
    pq.write_table(table(EVENTS, **odd).set_column(2, "time", moments), folder / "a.parq")
    return {"path": folder / "a.parq"}


@shape
def parquet_files_with_other_types(folder: Path) -> dict[str, Any]:
    ids = [(str(n % 5), str(n % 7), T0 + n) for n in range(30)]
    kinds = [(pa.int32(), pa.int64()), (pa.int64(), pa.int32()), (pa.float64(), pa.string()), (pa.string(), pa.int16())]
    for at, (user, item) in enumerate(kinds):
        part = ids[at::4]
        columns = {
            "item": pa.array([int(i) for _, i, _ in part]).cast(item),
            "user": pa.array([int(u) for u, _, _ in part]).cast(pa.int64()).cast(user),
            "time": pa.array([t for _, _, t in part], pa.int64()),
        }
        pq.write_table(
            pa.table(columns if at != 1 else columns | {"further": pa.nulls(len(part))}), folder / f"{at}.parquet"
        )
    return {"path": folder, "events": ids}


@shape
def structs_in_parquet(folder: Path) -> dict[str, Any]:
    events = pa.array([{"user": user, "item": item} for user, item, _ in EVENTS])
    pq.write_table(pa.table({"event": events, "time": [time for _, _, time in EVENTS]}), folder / "log.parquet")
    return {"path": folder, "columns": {"user": "event.user", "item": "event.item", "time": "time"}}


@shape
def amazon_of_2018(folder: Path) -> dict[str, Any]:
    events = [(f"A{n % 5:012d}", f"B{n % 7:09d}", T0 + n) for n in range(30)]
    (folder / "All_Beauty.csv").write_text("".join(f"{i},{u},5.0,{t}\n" for u, i, t in events))
    return {"path": folder / "All_Beauty.csv", "format": "amazon", "columns": {}, "events": events}


@shape
def amazon_of_2023(folder: Path) -> dict[str, Any]:
    records = [
        {"user_id": u, "parent_asin": i, "asin": "x", "rating": 5.0, "timestamp": t * 1000} for u, i, t in EVENTS
    ]
    (folder / "Beauty.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return {"path": folder / "Beauty.jsonl", "columns": {}}


@pytest.mark.parametrize("name", SHAPES)
def test_every_row_that_was_written_is_read_and_means_the_same(spark: SparkSession, tmp_path: Path, name: str) -> None:
    config = SHAPES[name](tmp_path)
    events, num_malformed = sorted(config.pop("events", EVENTS)), config.pop("malformed", 0)
    rows = read(spark, **config)
    good = [row for row in rows if not row.is_malformed]
    assert events_of(good) == events
    assert len(rows) == len(events) + num_malformed
    assert not any(row.is_undecodable for row in rows)
    assert len({row.row_hash for row in good}) == len(events)


def test_nanoseconds_are_right_to_the_microsecond(spark: SparkSession, tmp_path: Path) -> None:
    values = [1_704_067_200_123_456_789, 1, None]
    columns = {"user": ["u"] * 3, "item": ["i"] * 3, "time": pa.array(values, pa.timestamp("ns", "UTC"))}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    found = [row.event_time and row.event_time.astimezone(UTC) for row in read(spark, tmp_path / "log.parquet")]
    assert found == [datetime(2024, 1, 1, 0, 0, 0, 123_456, UTC), datetime(1970, 1, 1, tzinfo=UTC), None]


def test_a_deleted_user_stays_deleted(spark: SparkSession, tmp_path: Path) -> None:
    path = str(tmp_path / "table")
    rows = [*EVENTS, ("erased", "i0", T0)]
    more = pa.array([[("a", 1)]] * len(rows), pa.map_(pa.string(), pa.int32()))
    write_deltalake(path, table(rows, more=more))
    DeltaTable(path).delete("user = 'erased'")
    path = str(Path(path).rename(tmp_path / "[table]"))
    assert look(path).names == ("user", "item", "time", "more")
    assert events_of(read(spark, path)) == sorted(EVENTS)
    with pytest.raises(
        InputError, match=r"is delta by its contents, but dataset.format is parquet: set dataset.format=delta"
    ):
        read(spark, path, format="parquet")


def test_text_in_another_encoding_merges_no_ids(spark: SparkSession, tmp_path: Path) -> None:
    names = ["Björk", "Bjärk", "Muse"]
    text = "user,item,time,note\n" + "".join(f"u{n % 5},{names[n % 3]},{T0 + n},ü\n" for n in range(30))
    (tmp_path / "log.csv").write_bytes(text.encode("latin-1"))
    found = read(spark, tmp_path / "log.csv")
    assert [row.is_undecodable for row in found] == [n % 3 < 2 for n in range(30)]
    assert {row.item for row in read(spark, tmp_path / "log.csv", encoding="latin-1")} == set(names)
    records = (f'{{"user": "u{n % 5}", "item": "{names[n % 3]}", "time": {T0 + n}}}\r\n' for n in range(30))
    (tmp_path / "log.json").write_bytes("".join(records).encode("latin-1"))
    assert [row.is_undecodable for row in read(spark, tmp_path / "log.json")] == [n % 3 < 2 for n in range(30)]
    assert {row.item for row in read(spark, tmp_path / "log.json", encoding="latin-1")} == set(names)
    config = DatasetConfig(path=str(tmp_path / "log.csv"), **TIME)
    few = SplitConfig(num_test=1, num_validation=1, min_events=2)
    workdir = Workdir(str(tmp_path / "W[1]"))
    with pytest.raises(GateRefused, match=r"undecodable_text 20.*encoding.*set dataset.encoding"):
        preprocess(spark, workdir, config, PreprocessConfig(), few, history_length=5, run_id="r")


def test_a_quote_that_is_never_closed_is_one_malformed_row(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text('user,item,time,said\nu1,"5 inch,5,a\nu2,i2,6,"fine"\nu3,i3,7,5" disk\n')
    assert [(row.user, row.is_malformed) for row in read(spark, path)] == [("u1", True), ("u2", False), ("u3", False)]
    assert read(spark, path, quote="none")[0].item == '"5 inch'
    path.write_text('user,item,time,said\nu0,i0,4,"over\ntwo lines"\nu1,"5 inch,5,a\nu2,i2,6,"fine"\n')
    with pytest.raises(InputError, match=r"the quote that opens a field in line 4 is never closed.*dataset.quote=none"):
        read(spark, path)


def test_columns_that_differ_in_case_or_are_missing_are_named(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,User,time\nu1,i1,U,5\n")
    row = read(spark, tmp_path / "log.csv")[0]
    assert (row.user, sorted(row.raw_row.asDict().values(), key=str)) == ("u1", ["5", None, "U", "i1", "u1"])
    pq.write_table(pa.table({"user": ["u"], "item": ["i"], "User": ["U"], "time": [5]}), tmp_path / "case.parquet")
    folder = tmp_path / "parts"
    folder.mkdir()
    pq.write_table(pa.table({"user": ["u"], "item": ["i"], "time": [5]}), folder / "a.parquet")
    pq.write_table(pa.table({"user": ["u"], "Item": ["i"]}), folder / "b.parquet")
    clock = tmp_path / "clock.parquet"
    pq.write_table(pa.table({"user": ["u"], "item": ["i"], "time": pa.array([5], pa.time64("us"))}), clock)
    write_deltalake(str(tmp_path / "delta"), pa.table({"user": ["u"], "thing": [1]}))
    (tmp_path / "log.json").write_text('{"user": "u", "n": 1}\n')
    for path, message in {
        "case.parquet": "has columns user and User, which differ in case at most: rename one",
        "parts": r"b.parquet has no column 'item' .*, no column 'time' .*found: user, Item, unlike a.parquet; set dataset.columns.item='Item'",
        "clock.parquet": r"column 'time' \(dataset.columns.time\) .* is time64\[us\], which is not read",
        "delta": r"has no column 'item' \(dataset.columns.item\), no column 'time' .*columns found: user, thing",
        "log.json": r"has no column 'item' .*, no column 'time' .*columns found: user, n",
    }.items():
        with pytest.raises(InputError, match=message) as caught:
            read(spark, tmp_path / path)
        assert "\n" not in str(caught.value)


def test_catalogues_are_told_from_contents_too(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(f"{HEADER}\n" + lines(ASCII))
    (tmp_path / "items.tsv").write_text("item\ttitle\tgenre\n" + "".join(f"i{n}\tTitle; {n}\tA|B\n" for n in range(7)))
    (tmp_path / "items.pq").write_bytes(b"")
    pq.write_table(pa.table({"item": ["i0"], "title": ["Title; 0"], "genre": [["A", "B"]]}), tmp_path / "items.pq")
    (tmp_path / "[items].json").write_text('{"item": "i0", "title": "Title; 0", "genre": [["A"], ["B"]]}\n')
    (tmp_path / "u.item").write_bytes("i0|Title; 0|A/B|é\n".encode("latin-1"))
    (tmp_path / "bad.csv").write_bytes("item;title;genre\ni0;é;x\ni\xe9;y;z\n".encode("latin-1"))
    columns = {"title": "title", "category": "genre"}
    headerless = {"column_names": ["item", "title", "genre", "note"], "encoding": "latin-1"}
    found = {}
    for name, options in {
        "items.tsv": {},
        "items.pq": {},
        "[items].json": {},
        "u.item": headerless,
        "bad.csv": {},
    }.items():
        config = DatasetConfig(
            path=str(tmp_path / "log.csv"), catalogue=str(tmp_path / name), catalogue_columns=columns,
            catalogue_file=options, **TIME,
        )  # fmt: skip
        catalogue = read_catalogue(spark, resolve(config))
        assert catalogue is not None
        found[name] = [
            (r.item, r.title, r.category, r.is_undecodable) for r in catalogue.orderBy(*FILE_ORDER).collect()
        ]
    assert found["items.tsv"] == [(f"i{n}", f"Title; {n}", "A|B", False) for n in range(7)]
    assert found["items.pq"] == found["[items].json"] == [("i0", "Title; 0", "A|B", False)]
    assert found["u.item"] == [("i0", "Title; 0", "A/B", False)]
    assert [row[3] for row in found["bad.csv"]] == [False, True]
    config = DatasetConfig(catalogue=str(tmp_path / "u.item"), catalogue_columns=columns)
    with pytest.raises(
        InputError, match=r"catalogue .*u.item has no column 'item' .*dataset.catalogue_file.encoding=…"
    ):
        read_catalogue(spark, config)
