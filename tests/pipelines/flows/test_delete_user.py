"""After a user is removed, no row of any table and no file of the work folder holds that user."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from pyspark.sql import SparkSession

from pipelines.datasets.interactions import DatasetConfig
from pipelines.flows.delete_user import delete_user
from pipelines.stages.ingest.preprocess import SETTLED, preprocess
from pipelines.stages.ingest.row_rules import PreprocessConfig
from pipelines.stages.ingest.split import SplitConfig
from pipelines.storage.delta_reader import read_columns, read_rows
from pipelines.storage.run_record import Run
from pipelines.storage.schemas import SCHEMAS
from pipelines.storage.workdir import Workdir, small_frame

USER, OTHERS = 7319991, (7319992, 73199910, 4, 5, 6)
T0 = 1_700_000_000
EVENTS = [(user, item, T0 + 60 * item) for user in (USER, *OTHERS) for item in range(100, 104)]
BAD = [*EVENTS[:1], (USER, 100, -5), (OTHERS[1], 100, -5)]
"""A row that is there twice, and two with an impossible time, one of them another user's."""
FEW = SplitConfig(num_test=2, num_validation=2, min_events=2)
Log = tuple[DatasetConfig, dict[str, int]]
WriteLog = Callable[[Path], Log]


def text_log(path: Path, line: str, *more: str, header: str = "") -> None:
    rows = [line.format(user=user, item=item, time=time) for user, item, time in EVENTS + BAD]
    path.write_text("\n".join([*([header] if header else []), *rows, *more]) + "\n")


def movielens(folder: Path) -> Log:
    malformed = f"{USER},100,5.0,{T0},more"
    text_log(folder / "ratings.csv", "{user},{item},4.0,{time}", malformed, header="userId,movieId,rating,timestamp")
    return DatasetConfig(format="movielens", path=str(folder)), {"malformed_row": 1}


def amazon_csv(folder: Path) -> Log:
    text_log(folder / "ratings_Books.csv", "{user},{item},4.0,{time}")
    names = ("user", "item", "rating", "timestamp")
    return DatasetConfig(format="amazon", path=str(folder / "ratings_Books.csv"), column_names=names), {}


def amazon_json(folder: Path) -> Log:
    line = '{{"reviewerID": "{user}", "asin": "{item}", "overall": 4.0, "unixReviewTime": {time}}}'
    text_log(folder / "reviews.json", line, f'{{"reviewerID": "{USER}", "asin": ')
    return DatasetConfig(format="amazon", path=str(folder / "reviews.json")), {"malformed_row": 1}


def any_csv(folder: Path) -> Log:
    """Columns named by the configuration; a user of the log who is called as one of the columns elsewhere."""
    malformed = f"x,{USER}"
    text_log(folder / "log.csv", "{item},{user},{time},user", malformed, header="product,member,at,userId")
    columns = {"user": "member", "item": "product", "time": "at"}
    return DatasetConfig(path=str(folder / "log.csv"), columns=columns), {"malformed_row": 1}


def any_parquet(folder: Path) -> Log:
    """Users as numbers with a hole: floats."""
    rows = [*EVENTS, *BAD, (USER, None, T0), (None, 100, T0)]
    columns = dict(zip(("who", "what", "when"), zip(*rows, strict=True), strict=True))
    columns["who"] = [None if user is None else float(user) for user in columns["who"]]
    pq.write_table(pa.table({name: list(values) for name, values in columns.items()}), folder / "log.parquet")
    columns = {"user": "who", "item": "what", "time": "when"}
    return DatasetConfig(path=str(folder / "log.parquet"), columns=columns), {"null_item": 1, "null_user": 1}


def synthetic(folder: Path) -> Log:
    users, items, times = zip(*(EVENTS + BAD), strict=True)
    table = {"user_id": users, "item_id": items, "timestamp": times, "watch_seconds": [1.0] * len(users), "watch_ratio": [1.0] * len(users)}  # fmt: skip
    pq.write_table(pa.table({name: list(values) for name, values in table.items()}), folder / "logs.parquet")
    return DatasetConfig(format="synthetic", path=str(folder)), {}


def ingest(spark: SparkSession, workdir: Workdir, dataset: DatasetConfig) -> dict[str, int]:
    config = PreprocessConfig(max_quarantine_share=1, repeated_pairs="first")
    run = Run(workdir, "r", "hash")
    run.record["config"] = {"dataset": dataset.model_dump(mode="json")}
    run.save()
    return preprocess(spark, workdir, dataset, config, FEW, history_length=8, run_id="r").reasons


@dataclass(frozen=True)
class Ingested:
    """A work folder of the test's own that holds an ingested log."""

    workdir: Workdir
    dataset: DatasetConfig
    more: dict[str, int]
    """Rows that are bad in this format alone, by reason."""
    reasons: dict[str, int]
    """What the ingest counted."""


@pytest.fixture(scope="module")
def ingested(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Callable[[WriteLog, Path], Ingested]:
    """A function that ingests the log of a format, once, and gives every test a copy of the work folder."""
    done: dict[WriteLog, tuple[Workdir, DatasetConfig, dict[str, int], dict[str, int]]] = {}

    def copy(write: WriteLog, folder: Path) -> Ingested:
        if write not in done:
            log = tmp_path_factory.mktemp("log")
            dataset, more = write(log)
            workdir = Workdir(str(tmp_path_factory.mktemp("ingested")))
            done[write] = workdir, dataset, more, ingest(spark, workdir, dataset)
        workdir, *rest = done[write]
        return Ingested(Workdir(str(shutil.copytree(workdir.path(), folder / "W"))), *rest)

    return copy


def rows_of(spark: SparkSession, workdir: Workdir) -> dict[str, list[str]]:
    """All rows of all tables and Parquet files, as text; the files read by Spark, which checks Hadoop's checksums."""
    rows = {}
    for name in workdir.names("tables"):
        if workdir.exists("tables", name, "_delta_log"):
            rows[name] = [str(tuple(row.values())) for row in read_rows(workdir.table(name))]
        else:
            rows[name] = parquet_rows(spark, workdir.table(name))
    if workdir.names("raw"):
        rows["raw"] = parquet_rows(spark, workdir.path("raw"))
    return rows


def parquet_rows(spark: SparkSession, folder: str) -> list[str]:
    return [str(tuple(row)) for row in spark.read.parquet(folder).collect()]


def mentions(rows: dict[str, list[str]], user: int) -> dict[str, int]:
    """Count the rows that hold a user, by table."""
    counts = {name: sum(bool(re.search(rf"(?<!\d){user}(?!\d)", row)) for row in texts) for name, texts in rows.items()}
    return {name: count for name, count in counts.items() if count}


@pytest.mark.parametrize("write", [movielens, amazon_csv, amazon_json, any_csv, any_parquet, synthetic])
def test_no_row_holds_a_user_who_was_removed(
    spark: SparkSession, ingested: Callable[[WriteLog, Path], Ingested], tmp_path: Path, write: WriteLog
) -> None:
    """Whatever the log calls its users: also the rows that were quarantined, the samples, and what a killed ingest left."""
    log = ingested(write, tmp_path)
    workdir, more = log.workdir, log.more
    assert log.reasons == {"duplicate_row": 1, "negative_time": 2} | more
    told = Counter(row["user"] for row in read_rows(workdir.table("quarantine"), "WHERE reason != 'malformed_row'"))
    assert told == Counter({str(USER): 2 + more.get("null_item", 0), str(OTHERS[1]): 1}) + Counter(
        {None: more.get("null_user", 0)}
    )
    rows = [(str(user), row) for user in (USER, *OTHERS) for row in range(2)]
    samples = small_frame(spark, rows, {"user": "string", "row": "int"})
    samples.repartition(2, "row").write.parquet(workdir.table("samples"))
    for copy in (workdir.table("refresh_mixed_samples"), workdir.path(*SETTLED)):
        shutil.copytree(workdir.table("samples"), copy)
    generated = pa.table({"user_id": [user for user, _, _ in EVENTS]})
    pq.write_table(generated, tmp_path / "W" / "raw" / "logs.parquet")

    before = rows_of(spark, workdir)
    of_user = mentions(before, USER)
    assert {"interactions", "user_histories", "quarantine", "samples", "refresh_mixed_samples", "raw"} <= set(of_user)
    removed = delete_user(spark, workdir, str(USER))
    after = rows_of(spark, workdir)
    assert mentions(after, USER) == {}
    assert removed["quarantine"] == of_user["quarantine"] == 2 + more.get("malformed_row", 0) + more.get("null_item", 0)
    assert (removed["interactions"], removed["raw"], removed["samples"]) == (4, 4, 2)
    assert not workdir.exists(*SETTLED)
    for name in ("interactions", "user_histories", "quarantine", "samples"):
        assert len(after[name]) == len(before[name]) - removed[name], "other users' rows stay"
    assert sum(delete_user(spark, workdir, str(USER)).values()) == 0, "the second time nothing is left to do"


@pytest.mark.parametrize("write", [movielens, any_csv, any_parquet])
def test_a_quarantine_without_the_column_is_searched_and_then_extended(
    spark: SparkSession, ingested: Callable[[WriteLog, Path], Ingested], tmp_path: Path, write: WriteLog
) -> None:
    """As an older release of the project wrote it: duplicates under the name `user`, other rows under the log's names."""
    log = ingested(write, tmp_path)
    workdir, more = log.workdir, log.more
    old = read_columns(workdir.table("quarantine"), [name for name in SCHEMAS["quarantine"] if name != "user"])
    write_deltalake(workdir.table("quarantine"), old, mode="overwrite", schema_mode="overwrite")
    Run(workdir, "zz", "a run of another name, later in the alphabet").save()
    removed = delete_user(spark, workdir, str(USER))
    assert removed["quarantine"] == 2 + more.get("malformed_row", 0) + more.get("null_item", 0)
    assert len(read_rows(workdir.table("quarantine"))) == len(old) - removed["quarantine"]
    ingest(spark, workdir, log.dataset)
    assert workdir.read(spark, "quarantine").columns == list(SCHEMAS["quarantine"])
    of_user = read_rows(workdir.table("quarantine"), f"WHERE reason != 'malformed_row' AND user = '{USER}'")
    assert len(of_user) == 2 + more.get("null_item", 0)


Quarantined = tuple[str, str]
"""Reason and row, as a quarantine without the column `user` has them."""
ODD_USERS: dict[str, tuple[str, list[Quarantined], list[Quarantined]]] = {
    "o'brien": (
        "o'brien",
        [("null_item", """{"shopper's id":"o'brien","it":null}"""), ("malformed_row", """{"_corrupt_record":"o'brien,3"}""")],
        [("null_item", """{"shopper's id":"o","it":"brien"}"""), ("malformed_row", """{"_corrupt_record":"o'brienne,3"}""")],
    ),
    'o"neil é': (
        'o"neil é',
        [("malformed_row", json.dumps({"_corrupt_record": '"o""neil é",3,4,5'}, ensure_ascii=False)),
         ("malformed_row", json.dumps({"_corrupt_record": r'{"u": "o\"neil \u00e9", "i": '}, ensure_ascii=False)),
         ("null_item", json.dumps({"user": 'o"neil é', "item": None}, ensure_ascii=False))],
        [("null_item", json.dumps({"user": "neil é", "item": None}, ensure_ascii=False))],
    ),
    "12345678.0": (
        "12345678",
        [("null_item", '{"who":1.2345678E7,"what":null}'), ("duplicate_row", '{"user":"12345678","item":"3"}'),
         ("null_item", '{"customer_id":"12345678.0","item":null}'), ("null_item", '{"kunde":12345678,"artikel":null}')],
        [("null_item", '{"who":1.2345679E7,"what":null}'), ("null_item", '{"user":"9","item":"12345678"}'),
         ("null_item", '{"kunde":"012345678","artikel":null}'), ("catalogue_duplicate_item", '{"id":12345678}')],
    ),
    "5": ("5.0", [("null_item", '{"kunde":"5.0","artikel":null}')], [("null_item", '{"kunde":"15.0","artikel":null}')]),
}  # fmt: skip
"""As removal is asked for: the name in the tables, and quarantined rows, written before the table named users, that are
the user's and that are not."""


def test_a_user_goes_under_every_spelling_and_column_name(spark: SparkSession, tmp_path: Path) -> None:
    workdir = Workdir(str(tmp_path))
    other = workdir.below("previous", "seeds", "1")
    names = [name for name, _, _ in ODD_USERS.values()]
    rows = [row for _, own, others in ODD_USERS.values() for row in (*own, *others)]
    for place in (workdir, other):
        seen = {"user": [*names, "x"], "item_key": ["i"] * 5, "source_interval": ["all"] * 5}
        write_deltalake(place.table("seen_items"), pa.table(seen))
    quarantine = dict(zip(("reason", "row"), map(list, zip(*rows, strict=True)), strict=True))
    write_deltalake(workdir.table("quarantine"), pa.table(quarantine))
    for user, (_, own, _) in ODD_USERS.items():
        assert delete_user(spark, workdir, user) == {"quarantine": len(own), "seen_items": 2}
    left = {(row["reason"], row["row"]) for row in read_rows(workdir.table("quarantine"))}
    assert left == {row for _, _, others in ODD_USERS.values() for row in others}
    for place in (workdir, other):
        assert {row["user"] for row in read_rows(place.table("seen_items"))} == {"x"}


def test_the_removal_of_a_user_who_is_nowhere_is_said(
    spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING"):
        assert delete_user(spark, Workdir(str(tmp_path)), "o'bryan") == {}
    assert caplog.messages == [f'{tmp_path} holds no row of user "o\'bryan"']


def held_out(workdir: Workdir, seed: int) -> None:
    """Held-out users of one work folder, and what was written of them."""
    histories = [
        (name, role, [seed, *range(length)], [length, length + 1])
        for name, role, length in (("a", "test", 3), ("b", "test", 4), ("v", "validation", 5), ("w", "validation", 2))
    ]
    users, roles, items, truths = map(list, zip(*histories, strict=True))
    columns = {"user": pa.array(users), "role": pa.array(roles)}
    write_deltalake(workdir.table("evaluation_users"), pa.table(columns))
    columns |= {"history": pa.array(items, pa.list_(pa.int32())), "truth": pa.array(truths, pa.list_(pa.int32()))}
    write_deltalake(workdir.table("evaluation_histories"), pa.table(columns))
    history, targets = np.full((2, 4), -1, np.int32), np.full((2, 3), -1, np.int32)
    for row, (_, _, items, truth) in enumerate(histories[2:]):
        history[row, : len(items[-4:])] = items[-4:]
        targets[row, : len(truth)] = truth
    arrays = {"history": history, "targets": targets, "length": (history >= 0).sum(1)}
    workdir.write_arrays(arrays, "models", "r-warm", "validation.npz")
    points = {"meta": np.frombuffer(b"{}", np.uint8), "0|candidates": np.array([10.0, 20.0])}
    workdir.write_arrays(points, "runs", "r.points.npz")
    workdir.write_arrays({"item_cf": np.array([[1, 2, 3], [4, 5, 6]])}, "runs", "r.rival-x.lists.npz")


def test_what_was_kept_of_a_held_out_user_goes_in_every_seed_and_report(spark: SparkSession, tmp_path: Path) -> None:
    """The validation batch loses the validation user's row; the report its example, and figures and lists the test user's."""
    workdir = Workdir(str(tmp_path))
    places = [workdir, workdir.below("seeds", "1"), workdir.below("previous"), workdir.below("previous", "seeds", "1")]
    for seed, place in enumerate(places):
        held_out(place, seed)
    reports = (("report",), ("report", "r-1"), ("previous", "report"))
    for folder in reports:
        data = {"dataset": "d", "example_user": {"history": ["A film"]}}
        workdir.write_text(json.dumps(data), *folder, "report_data.json")
        workdir.write_text("<p>A film</p>", *folder, "index.html")
    workdir.write_text("half", "report", "report_data.json.0123.tmp")

    before = [place.read_arrays("models", "r-warm", "validation.npz") for place in places]
    assert delete_user(spark, workdir, "v")["validation"] == 4
    for place, arrays in zip(places, before, strict=True):
        rest = place.read_arrays("models", "r-warm", "validation.npz")
        assert {name: values.tolist() for name, values in rest.items()} == {
            name: values[1:].tolist() for name, values in arrays.items()
        }
        assert len(place.read_arrays("runs", "r.points.npz")["0|candidates"]) == 2
    assert workdir.names("report") == ["index.html", "r-1", "report_data.json"]
    assert json.loads(workdir.read_text("report", "report_data.json"))["example_user"] is not None

    assert delete_user(spark, workdir, "a")["measured"] == 8
    for place in places:
        assert place.read_arrays("runs", "r.points.npz")["0|candidates"].tolist() == [20.0]
        assert place.read_arrays("runs", "r.points.npz")["meta"].tobytes() == b"{}"
        assert place.read_arrays("runs", "r.rival-x.lists.npz")["item_cf"].tolist() == [[4, 5, 6]]
        for name in ("evaluation_histories", "evaluation_users"):
            assert {row["user"] for row in read_rows(place.table(name))} == {"b", "w"}
    for folder in reports:
        assert json.loads(workdir.read_text(*folder, "report_data.json")) == {"dataset": "d", "example_user": None}
        assert not workdir.exists(*folder, "index.html"), "without a summary it cannot be drawn again"
