"""What a file is, is told from its contents, on the driver."""

import bz2
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from dr_core.errors import InputError
from pipelines.datasets.look import look

HEADER = "user,item,rating,timestamp"
LINES = ["u1,i1,5,1704070940", "u2,i2,3,1704071182"]
TABLE = "\n".join([HEADER, *LINES, ""])


@pytest.mark.parametrize(
    "name", ["log.csv", "LOG.CSV", "log.txt", "000000_0", "part-00000", "ratings.csv", "log.parquet"]
)
def test_text_is_text_whatever_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(TABLE)
    found = look(str(tmp_path / name))
    assert (found.format, found.delimiter, found.encoding, found.has_header) == ("csv", ",", "utf-8", True)
    assert found.names == ("user", "item", "rating", "timestamp")
    assert found.columns[1].values == ("i1", "i2")
    assert (found.num_files, found.num_bytes) == (1, len(TABLE))


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|", "::", "\x01"])
def test_delimiter_is_told_from_the_records(tmp_path: Path, delimiter: str) -> None:
    (tmp_path / "log").write_text(TABLE.replace(",", delimiter))
    found = look(str(tmp_path / "log"))
    assert (found.delimiter, found.names) == (delimiter, ("user", "item", "rating", "timestamp"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_byte_order_marks_and_line_ends_are_no_part_of_names(tmp_path: Path, encoding: str, ending: str) -> None:
    (tmp_path / "log.csv").write_bytes(TABLE.replace("\n", ending).encode(encoding))
    found = look(str(tmp_path / "log.csv"))
    assert found.names == ("user", "item", "rating", "timestamp")
    assert found.encoding == ("utf-16" if encoding == "utf-16" else "utf-8")


def test_a_mark_of_another_encoding_than_configured_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(TABLE.encode("utf-8-sig"))
    with pytest.raises(InputError, match=r"byte order mark of utf-8, but dataset.encoding is iso8859-1: leave it out"):
        look(str(tmp_path / "log.csv"), encoding="iso8859-1")


@pytest.mark.parametrize(
    ("text", "has_header"),
    [
        (TABLE, True),
        ("user,item\nalice,film\nbob,show\n", True),
        ("alice,film\nbob,show\nalice,book\n", False),
        ("\n".join(LINES), False),
        (",user,item\n0,u1,i1\n", True),
        ("2024-01-01,u,i\n2024-01-02,v,j\n", False),
        ("\n\n" + TABLE, True),
    ],
)
def test_headers_are_told_from_data(tmp_path: Path, text: str, has_header: bool) -> None:
    (tmp_path / "log.csv").write_text(text)
    found = look(str(tmp_path / "log.csv"))
    assert found.has_header is has_header
    if not has_header:
        assert found.names[:2] == ("_1", "_2")


def test_packed_text_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(TABLE.encode()))
    (tmp_path / "b.csv.bz2").write_bytes(bz2.compress(TABLE.encode()))
    for name in ("a.csv.gz", "b.csv.bz2"):
        assert look(str(tmp_path / name)).columns[0].values == ("u1", "u2")


def test_parquet_delta_and_json_show_their_columns(tmp_path: Path) -> None:
    table = pa.table({"user": [7, None], "event": [{"item": "a"}, {"item": "b"}]})
    pq.write_table(table, tmp_path / "log.txt")
    found = look(str(tmp_path / "log.txt"))
    assert (found.format, found.columns[0].type, found.columns[0].values) == ("parquet", "int64", ("7", None))
    write_deltalake(str(tmp_path / "delta"), pa.table({"user": [7], "item": ["a"]}))
    found = look(str(tmp_path / "delta"))
    assert (found.format, found.names, found.columns[0].values) == ("delta", ("user", "item"), ("7",))
    (tmp_path / "log.ndjson").write_text('{"user": {"id": 1}, "tags": ["x"]}\n\nnoise\n{"user": {"id": 2}, "n": 1.5}\n')
    found = look(str(tmp_path / "log.ndjson"))
    assert found.format == "json"
    values = {column.name: column.values for column in found.columns}
    assert values["user.id"] == ("1", "2")
    assert values["tags"] == ('["x"]', None)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.zip", b"PK\x03\x04....", "is a ZIP archive .*: unpack it"),
        ("a.csv", b"\x28\xb5\x2f\xfd....", "compressed with zstd, which is not read"),
        ("a.orc", b"ORC....", "is ORC, .*: write it as Parquet"),
        ("a.avro", b"Obj\x01...", "is Avro"),
        ("a.json", b'[{"user": 1}]', "one JSON array: write one object a line"),
        ("a.json", b'{\n "user": 1\n}', "one object a line"),
        ("a.csv", gzip.compress(b"user,item\n"), "compressed, but its name does not end in .gz: rename it"),
        ("a.csv.gz", b"user,item\n1,2\n", "is not compressed, though its name ends in .gz"),
        ("a.parquet.gz", gzip.compress(b"PAR1...."), "a Parquet file inside .gz"),
        ("a.parquet", b"PAR1 torn", "cannot be read: it is torn"),
        ("a.csv", b"", "holds no rows: it is empty"),
        ("a.csv", b"\n \n", "holds no rows"),
        ("a.csv", b"us\0er,item\n", "holds zero bytes: .*dataset.encoding=utf-16-le"),
        ("a:b.csv", b"user,item\n", "a colon: rename it"),
    ],
)
def test_what_is_not_read_is_named_with_a_remedy(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        look(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def write_files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(TABLE)
    return folder


def test_paths_are_literal_unless_a_star_is_meant(tmp_path: Path) -> None:
    write_files(
        tmp_path, "r[1].csv", "r1.csv", "r{a,b}.csv", "r?.csv", "r*.csv", "x*.txt", "xy.txt", "2024-01/part-0.csv",
        "2024-02/part-0.csv", "2024-02/_SUCCESS", "[d]/a1.csv", "[d]/a2.csv", "[d]/.a.crc",
    )  # fmt: skip
    for name in ("r[1].csv", "r{a,b}.csv", "r?.csv", "r*.csv"):
        found = look(f"{tmp_path}/{name}")
        assert found.num_files == 1, name
    numbers = {"2024-*/part-*.csv": 2, "[d]/a*.csv": 2, "2024-*": 2, "[d]": 2, "x*.txt": 1, "*/part-0.csv": 2}
    assert {pattern: look(f"{tmp_path}/{pattern}").num_files for pattern in numbers} == numbers
    with pytest.raises(InputError, match="matches no file"):
        look(f"{tmp_path}/nothing-*.csv")


def test_links_are_followed(tmp_path: Path) -> None:
    write_files(tmp_path, "real/a.csv", "real/deep/b.csv", "mixed/c.csv")
    (tmp_path / "latest").symlink_to("real")
    (tmp_path / "mixed" / "all").symlink_to(tmp_path / "real")
    (tmp_path / "mixed" / "one.csv").symlink_to(tmp_path / "real" / "a.csv")
    numbers = {"latest": 2, "lat*": 2, "mixed": 4, "mixed/*": 4}
    assert {path: look(f"{tmp_path}/{path}").num_files for path in numbers} == numbers
    (tmp_path / "real" / "round").symlink_to(tmp_path)
    with pytest.raises(InputError, match="round is a link to a folder that it lies in"):
        look(str(tmp_path))
    (tmp_path / "real" / "round").unlink()
    (tmp_path / "mixed" / "gone.csv").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"gone.csv is a link to nothing: remove it"):
        look(f"{tmp_path}/mixed")


def test_addresses_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    write_files(tmp_path, "hidden/_a.csv", "hidden/.b.csv")
    (tmp_path / "empty").mkdir()
    for path, message in {
        "https://example.org/log.csv": "is a web address: download it first",
        "nowhere://log.csv": "cannot be opened",
        f"{tmp_path}/absent.csv": "does not exist",
        f"{tmp_path}/hidden": "holds hidden files only",
        f"{tmp_path}/empty": "is empty",
    }.items():
        with pytest.raises(InputError, match=message):
            look(path)


def test_tables_are_never_read_as_their_files(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path / "delta"), pa.table({"user": ["u"], "day": ["x"]}), partition_by=["day"])
    write_files(tmp_path, "iceberg/data/a.csv", "iceberg/metadata/v1.metadata.json", "hudi/a.csv", "hudi/.hoodie/x")
    data = next((tmp_path / "delta").rglob("*.parquet"))
    for path, message in {
        tmp_path / "delta" / "day=x": "part of the Delta table .*delta: name the table itself",
        data: "part of the Delta table",
        tmp_path / "delta" / "*" / "*.parquet": "part of the Delta table",
        tmp_path: "holds a Delta table, .*delta: name that folder",
        tmp_path / "iceberg": "is an Iceberg table",
        tmp_path / "hudi": "is a Hudi table",
        tmp_path / "hudi" / "a.csv": "part of the Hudi table",
    }.items():
        with pytest.raises(InputError, match=message):
            look(str(path))
    assert look(str(tmp_path / "delta")).format == "delta"


def test_several_formats_in_one_folder_are_refused(tmp_path: Path) -> None:
    write_files(tmp_path, "a.csv")
    (tmp_path / "b.json").write_text('{"user": 1}\n')
    with pytest.raises(InputError, match=r"several formats: a.csv \(csv\), b.json \(json\)"):
        look(str(tmp_path))


REVIEW_2023 = {
    "user_id": "AE1",
    "parent_asin": "B000000001",
    "asin": "B000000009",
    "rating": 5.0,
    "timestamp": 1704070940000,
}
REVIEW_2014 = {"reviewerID": "A1", "asin": "B000000001", "overall": 5.0, "unixReviewTime": 1704070940}


@pytest.mark.parametrize(
    ("text", "user", "item", "unit"),
    [
        ("A2IIIDRK3PRRZY,0000000116,4.0,1395619200\nAH2L9G3DQHHAJ,B00004SPLX,1.0,1395619200\n", "1", "2", "seconds"),
        ("000000011X,A2IIIDRK3PRRZY,4.0,1395619200\nB00004SPLX,AH2L9G3DQHHAJ,1.0,1395619200\n", "2", "1", "seconds"),
        ("user_id,parent_asin,rating,timestamp\nAE1,B000000001,5.0,1704070940000\n", "user_id", "parent_asin", "milliseconds"),
        (json.dumps(REVIEW_2023) + "\n", "user_id", "parent_asin", "milliseconds"),
        (json.dumps(REVIEW_2014) + "\n", "reviewerID", "asin", "seconds"),
    ],
)  # fmt: skip
def test_amazon_is_told_from_contents(tmp_path: Path, text: str, user: str, item: str, unit: str) -> None:
    (tmp_path / "reviews").write_text(text)
    preset = look(str(tmp_path / "reviews")).preset
    assert preset is not None
    assert (preset.format, preset.time_unit) == ("amazon", unit)
    places = {name: f"{at + 1}" for at, name in enumerate(preset.column_names)}
    columns = preset.columns
    assert (places.get(columns.user, columns.user), places.get(columns.item, columns.item)) == (user, item)


@pytest.mark.parametrize(
    ("name", "text", "is_movielens"),
    [
        ("mine.csv", "userId,movieId,rating,timestamp\n1,2,3.5,4\n", True),
        ("ratings.csv", TABLE, False),
        ("ratings_2024.csv", TABLE, False),
        ("ratings.csv", "movieId,userId,rating,timestamp\n1,2,3.5,4\n", False),
        ("ratings.dat", "1::2::5::978300760\n", True),
        ("ratings.dat", "a::b::c\n", False),
        ("ratings_x.csv", "u1,i1,5,1704070940\n", False),
    ],
)
def test_movielens_is_told_from_contents(tmp_path: Path, name: str, text: str, is_movielens: bool) -> None:
    (tmp_path / name).write_text(text)
    preset = look(str(tmp_path / name)).preset
    assert (preset is not None and preset.format == "movielens") is is_movielens
    assert preset is None or is_movielens
