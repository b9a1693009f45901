"""Any log becomes the same raw frame, in file order, and nothing that is wrong passes in silence."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession

from dr_core.errors import InputError
from pipelines.datasets.interactions import DatasetConfig, read_catalogue, read_logs, resolve
from pipelines.datasets.rawframe import FILE_ORDER, RAW_CATALOGUE_COLUMNS, RAW_LOG_COLUMNS
from pipelines.stages.ingest.catalogue import clean_catalogue

MOMENT = datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC)  # 1,000,000,000 s


def write_parquet(folder: Path, **columns: object) -> str:
    path = folder / "log.parquet"
    pq.write_table(pa.table(columns), path)
    return str(path)


def times(frame: DataFrame) -> list[datetime | None]:
    rows = frame.orderBy(*FILE_ORDER).select("event_time").collect()
    return [row[0] and row[0].astimezone(UTC) for row in rows]


def read_with_time(spark: SparkSession, path: str, unit: str) -> DataFrame:
    return read_logs(spark, resolve(DatasetConfig(path=path, columns={"time": "time"}, time_unit=unit)))


def test_parquet_log_becomes_a_raw_frame(spark: SparkSession, tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path, user=[7, 2**62], item=["a", None], time=[1_000_000_000, -5], stars=[4.5, None], clicked=[True, False]
    )
    columns = {"time": "time", "rating": "stars", "label": "clicked"}
    logs = read_logs(spark, resolve(DatasetConfig(path=path, columns=columns)))
    assert tuple(logs.columns) == RAW_LOG_COLUMNS
    first, second = logs.orderBy(*FILE_ORDER).collect()
    assert (first.user, first.item, first.raw_time, first.rating, first.label) == ("7", "a", "1000000000", 4.5, 1.0)
    assert (second.user, second.item, second.rating, second.label) == (str(2**62), None, None, 0.0)
    assert first.weight is first.split is first.event_order is None
    assert first.raw_row.asDict() == {"user": 7, "item": "a", "time": 1_000_000_000, "stars": 4.5, "clicked": True}


@pytest.mark.parametrize(
    ("unit", "value"),
    [
        ("seconds", 1_000_000_000),
        ("milliseconds", 1_000_000_000_000),
        ("microseconds", 1_000_000_000_000_000),
        ("seconds", 1e9),
        ("seconds", "1000000000"),
        ("timestamp", "2001-09-09T01:46:40Z"),
        ("timestamp", "2001-09-09 01:46:40"),
        ("seconds", MOMENT),
    ],
)
def test_time_is_read_in_the_unit_that_is_named(spark: SparkSession, tmp_path: Path, unit: str, value: object) -> None:
    path = write_parquet(tmp_path, user=["u"], item=["i"], time=[value])
    assert times(read_with_time(spark, path, unit)) == [MOMENT]


def test_what_is_no_time_is_null_and_keeps_its_text(spark: SparkSession, tmp_path: Path) -> None:
    values = ["yesterday", "", "99999999999999999999", None, "1000000000"]
    path = write_parquet(tmp_path, user=["u"] * 5, item=["i"] * 5, time=values)
    logs = read_with_time(spark, path, "seconds")
    assert times(logs) == [None, None, None, None, MOMENT]
    assert [row.raw_time for row in logs.orderBy(*FILE_ORDER).collect()] == values


def test_flags_are_numbers_or_words(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    flags = {"True": 1, " yes ": 1, "T": 1, "1": 1, "0.5": 0.5, "FALSE": 0, "No": 0, "0": 0, "sold": None, "": None}
    path.write_text("user,item,n,liked\n" + "".join(f"u,i,1,{flag}\n" for flag in flags))
    logs = read_logs(spark, resolve(DatasetConfig(path=str(path), columns={"order": "n", "label": "liked"})))
    assert [row.label for row in logs.orderBy(*FILE_ORDER).collect()] == list(flags.values())


ACTIVE = {
    "true": True, "TRUE ": True, "y": True, "1": True, "1.0": True, "active": True, "Available": True, "in stock": True,
    "false": False, "N": False, "0": False, "inactive": False, "Sold out": False, "SOLD_OUT": False,
    "discontinued": False, "retired": False, "unavailable": False, "out-of-stock": False,
    "": None, "nan": None, "NULL": None, "n/a": None, "perhaps": None, "2": None, "-1": None, "soon": None,
}  # fmt: skip


def test_words_for_inactive_are_understood_or_told_apart(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("item,on\n" + "".join(f"i{number},{word}\n" for number, word in enumerate(ACTIVE)))
    config = DatasetConfig(catalogue=str(path), catalogue_columns={"active": "on"})
    raw = read_catalogue(spark, config)
    assert raw is not None
    assert [row.active for row in raw.orderBy(*FILE_ORDER).collect()] == list(ACTIVE.values())
    items, bad = clean_catalogue(raw)
    assert {row.reason for row in bad.collect()} == {"catalogue_unknown_active"}
    assert {json.loads(row.row)["on"] for row in bad.collect()} == {"n/a", "perhaps", "2", "-1", "soon"}
    assert items.count() == len(ACTIVE) - 5


def test_log_and_catalogue_of_other_types_have_the_same_keys(spark: SparkSession, tmp_path: Path) -> None:
    """What pandas makes of a column of whole numbers with a hole in it."""
    (tmp_path / "log.csv").write_text("user,item,n\n51.0,101.0,1\n52,101,2\nNone,102.0,3\n53,,4\n53,1e+16,5\n")
    pq.write_table(pa.table({"item": [101.0, 102.0, float("nan"), 2.0**60]}), tmp_path / "items.parquet")
    config = resolve(DatasetConfig(path=str(tmp_path / "log.csv"), columns={"order": "n"}))
    config = config.model_copy(update={"catalogue": str(tmp_path / "items.parquet")})
    rows = read_logs(spark, config).orderBy(*FILE_ORDER).collect()
    assert [(row.user, row.item, row.is_inexact) for row in rows] == [
        ("51", "101", False), ("52", "101", False), (None, "102", False), ("53", None, False), ("53", "1e+16", True),
    ]  # fmt: skip
    raw = read_catalogue(spark, config)
    assert raw is not None
    items, bad = clean_catalogue(raw)
    assert sorted(row.item for row in items.collect()) == ["101", "102"]
    assert sorted(row.reason for row in bad.collect()) == ["catalogue_inexact_id", "catalogue_null_item"]


def test_rows_keep_file_order_over_splits_and_files(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    for name, first, count in (("b.csv", 1000, 10), ("a.csv", 0, 1000)):
        lines = "".join(f"u,{item}\n" for item in range(first, first + count))
        (folder / name).write_text("user,item\n" + lines)
    config = resolve(DatasetConfig(path=str(folder), unordered="file_order"))
    old = spark.conf.get("spark.sql.files.maxPartitionBytes")
    spark.conf.set("spark.sql.files.maxPartitionBytes", "1000")
    try:
        rows = read_logs(spark, config).orderBy(*FILE_ORDER).select("item", "block_start").collect()
    finally:
        spark.conf.set("spark.sql.files.maxPartitionBytes", str(old))
    assert len({row.block_start for row in rows}) > 2
    assert [int(row.item) for row in rows] == list(range(1010))


def test_csv_marks_rows_of_the_wrong_width(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text('user;item;when\nu;"a;b";1\nu\nu;c;2;3\n')
    logs = read_logs(spark, resolve(DatasetConfig(path=str(path), delimiter=";", columns={"order": "when"})))
    rows = logs.orderBy(*FILE_ORDER).collect()
    assert [row.is_malformed for row in rows] == [False, True, True]
    assert (rows[0].item, rows[0].event_order) == ("a;b", 1)
    assert rows[2].raw_row["_corrupt_record"] == "u;c;2;3"


def test_delta_log_is_recognised(spark: SparkSession, tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    spark.createDataFrame([("u", "i", 1)], "user string, item string, order int").write.format("delta").save(path)
    config = resolve(DatasetConfig(path=path, columns={"order": "order"}))
    assert config.format == "delta"
    assert read_logs(spark, config).first().item == "i"  # type: ignore[union-attr]


def test_catalogue_is_read(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("id,name,on\n5,Five,false\n6,Six,1\n7,,\n")
    config = DatasetConfig(catalogue=str(path), catalogue_columns={"item": "id", "title": "name", "active": "on"})
    catalogue = read_catalogue(spark, config)
    assert catalogue is not None
    assert tuple(catalogue.columns) == RAW_CATALOGUE_COLUMNS
    rows = catalogue.orderBy(*FILE_ORDER).select("item", "title", "active").collect()
    assert [tuple(row) for row in rows] == [("5", "Five", False), ("6", "Six", True), ("7", None, None)]
    assert read_catalogue(spark, DatasetConfig()) is None


def test_log_without_order_is_refused_unless_told_otherwise(spark: SparkSession, tmp_path: Path) -> None:
    path = write_parquet(tmp_path, user=["u"], item=["i"])
    with pytest.raises(InputError, match=r"neither a time nor an order column.*user, item.*file_order"):
        read_logs(spark, resolve(DatasetConfig(path=path)))
    assert read_logs(spark, resolve(DatasetConfig(path=path, unordered="file_order"))).count() == 1


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"order": "position"}, r"no column 'position' \(dataset.columns.order\).*found: user, item, order"),
        ({"item": "Item", "order": "order"}, r"no column 'Item' \(dataset.columns.item\)"),
    ],
)
def test_missing_column_is_named(spark: SparkSession, tmp_path: Path, columns: dict[str, str], message: str) -> None:
    path = write_parquet(tmp_path, user=["u"], item=["i"], order=[1])
    with pytest.raises(InputError, match=message) as caught:
        read_logs(spark, resolve(DatasetConfig(path=path, columns=columns)))
    assert "\n" not in str(caught.value)


def test_bad_inputs_are_refused(spark: SparkSession, tmp_path: Path) -> None:
    def read(**fields: object) -> None:
        read_logs(spark, resolve(DatasetConfig(**fields)))

    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 torn")
    (tmp_path / "folder").mkdir()
    empty = write_parquet(tmp_path, user=pa.array([], pa.string()), item=pa.array([], pa.string()))
    nested = tmp_path / "nested.parquet"
    pq.write_table(pa.table({"user": [["u"]], "item": ["i"], "order": [1]}), nested)
    for message, fields in (
        ("no log was named", {}),
        ("absent.parquet does not exist", {"path": str(tmp_path / "absent.parquet")}),
        ("absent.parquet does not exist", {"path": str(tmp_path / "absent.parquet"), "format": "parquet"}),
        ("notes.txt has no column 'user' .*, no column 'item' .*found: hello", {"path": str(tmp_path / "notes.txt")}),
        ("torn.parquet cannot be read", {"path": str(tmp_path / "torn.parquet")}),
        ("folder is empty", {"path": str(tmp_path / "folder")}),
        ("log.parquet holds no rows", {"path": empty}),
        ("'user' of .* is array<string>", {"path": str(nested), "columns": {"order": "order"}}),
    ):
        with pytest.raises(InputError, match=message) as caught:
            read(**fields)
        assert "\n" not in str(caught.value)
