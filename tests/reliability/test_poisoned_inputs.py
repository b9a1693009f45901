"""What becomes of bad input: each kind gets a quarantine row, or a refusal that says what, where and what to do.

The table of docs/reliability.md is what these tests saw; ``DR_WRITE_DOCS=1 pytest tests/reliability -n 0`` writes it.
"""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession

from dr_core.errors import DeepRetrievalError, typed
from dr_core.learning.checkpoint import load_model, save_model
from dr_core.learning.trainer import Phase
from pipelines.cli.console import explain
from pipelines.cli.key_lists import keys_of
from pipelines.config.load import load_config, validate_config
from pipelines.datasets.interactions import DatasetConfig
from pipelines.evaluation.learned_run import LearnedRun
from pipelines.flows.day_one import Source, begin_anew_where_changed, run_day_one, seed_run
from pipelines.flows.refresh import run_refresh
from pipelines.flows.sources import Sources
from pipelines.serving.request import Request
from pipelines.stages.ingest.interval import Interval
from pipelines.stages.ingest.preprocess import preprocess
from pipelines.stages.ingest.row_rules import PreprocessConfig
from pipelines.stages.ingest.split import SplitConfig
from pipelines.stages.structure.index import load_index
from pipelines.stages.training.train import TrainJob, train_model
from pipelines.storage.delta_reader import read_rows
from pipelines.storage.files import Files
from pipelines.storage.lease import lease
from pipelines.storage.publish import publish
from pipelines.storage.releases import Release, find_release
from pipelines.storage.run_record import Run
from pipelines.storage.workdir import Workdir
from tests.pipelines.serving.conftest import KEYS, NUM_ITEMS, write_items
from tests.pipelines.serving.conftest import publish as publish_release

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- kinds: begin -->", "<!-- kinds: end -->"
FEW = SplitConfig(num_test=1, num_validation=1, min_events=2)
DAY = 86_400
T0 = 1_704_067_200
COLUMNS = {"time": "time", "rating": "stars", "weight": "watch"}
BIG = "9" * 30
NAMES = "user,item,time,stars,watch"

QUARANTINED = {
    "no user": (f",i1,{T0},5,1", "null_user"),
    "a user of blanks": (f'"  ",i1,{T0},5,1', "null_user"),
    "no item": (f"u1,,{T0},5,1", "null_item"),
    "a user that a tool wrote for none": (f"NaN,i1,{T0},5,1", "null_user"),
    "an item that a tool wrote for none": (f"u1,NULL,{T0},5,1", "null_item"),
    "an item id that lost its digits in a float": (f"u1,1.23457E+11,{T0},5,1", "inexact_id"),
    "an item id beyond a float's digits": (f"u1,12345678901234567.0,{T0},5,1", "inexact_id"),
    "a user id of 300 characters": (f"{'x' * 300},i1,{T0},5,1", "oversized_id"),
    "an item id of 300 characters": (f"u1,{'x' * 300},{T0},5,1", "oversized_id"),
    "no time": ("u1,i1,,5,1", "null_time"),
    "a time that is a word": ("u1,i1,yesterday,5,1", "unparsable_time"),
    "a time of NaN": ("u1,i1,NaN,5,1", "unparsable_time"),
    "a time before 1970": ("u1,i1,-5,5,1", "negative_time"),
    "a time of 0": ("u1,i1,0,5,1", "early_time"),
    "a time of the day after the interval": (f"u1,i1,{T0 + DAY + 60},5,1", "after_interval"),
    "a time in the future": (f"u1,i1,{T0 + 90 * DAY},5,1", "future_time"),
    "one time in milliseconds among seconds": (f"u1,i1,{T0}000,5,1", "future_time"),
    "one time in microseconds among seconds": (f"u1,i1,{T0}000000,5,1", "unparsable_time"),
    "an event older than `late_days`": (f"u1,i1,{T0 - 30 * DAY},5,1", "too_late"),
    "a rating of NaN": (f"u1,i1,{T0},NaN,1", "invalid_rating"),
    "a rating that is a word": (f"u1,i1,{T0},good,1", "invalid_rating"),
    "an infinite weight": (f"u1,i1,{T0},5,Infinity", "invalid_weight"),
    "a negative weight": (f"u1,i1,{T0},5,-1", "negative_weight"),
    "a row with a field too many": (f"u1,i1,{T0},5,1,6", "malformed_row"),
    "a row with fields missing": ("u1", "malformed_row"),
    "a quote that is never closed": (f'"u1,i1,{T0},5,1', "malformed_row"),
    "the header again among the rows": (NAMES, "malformed_row"),
    "an id in another encoding than the log": (f"caf\udce9,i1,{T0},5,1", "undecodable_text"),
    "the same row twice": (f"u2,i9,{T0},5,9", "duplicate_row"),
}
KEPT = {
    "ids in any script": f"ユーザー,商品🎬,{T0},5,1",
    "a negative number as id": f"-7,-8,{T0},5,1",
    "a number of 30 digits as id": f"{BIG},{BIG},{T0},5,1",
    "an id with zeros in front": f"007,0108775000,{T0},5,1",
    "an id that looks like a path": f"../../etc,../../passwd,{T0},5,1",
    "an id that looks like SQL": f"' OR 1=1 --,'; DROP TABLE items; --,{T0},5,1",
    "one user with 2,000 events": "\n".join(f"bot,i{n},{T0 + n},5,1" for n in range(2000)),
}


@dataclass(frozen=True)
class Seen:
    """A line of the table."""

    kind: str
    fate: str
    words: str


SEEN: list[Seen] = []


def write_csv(path: Path, lines: list[str]) -> str:
    path.write_text(f"{NAMES}\n" + "\n".join(lines) + "\n", errors="surrogateescape")
    return str(path)


def good_lines(day: int = 0) -> list[str]:
    return [f"u{user},i{item},{T0 + day * DAY + 60 * item},5,{item + 9}" for user in range(6) for item in range(6)]


def ingest(spark: SparkSession, workdir: Workdir, log: str, day: int = 0, **options: Any) -> Any:
    dataset = DatasetConfig(path=log, columns=options.pop("columns", COLUMNS))
    config = PreprocessConfig(
        positive={"kind": "threshold", "column": "rating", "at_least": 4},
        weight={"kind": "column"},
        **{"max_quarantine_share": 0.9} | options,
    )
    starts = [datetime.fromtimestamp(T0 + n * DAY, UTC) for n in (day, day + 1)]
    return preprocess(spark, workdir, dataset, config, FEW, history_length=69, run_id="run", interval=Interval(*starts))


@pytest.fixture(scope="module")
def second_day(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workdir, Any]:
    """A clean first day, and a second one with every bad row."""
    folder = tmp_path_factory.mktemp("poisoned")
    workdir = Workdir(str(folder / "W"))
    ingest(spark, workdir, write_csv(folder / "first.csv", good_lines(-1)), day=-1)
    bad = [line for line, _ in QUARANTINED.values()] + [QUARANTINED["the same row twice"][0]]
    log = write_csv(folder / "second.csv", [*good_lines(), *bad, *KEPT.values()])
    return workdir, ingest(spark, workdir, log)


def test_bad_rows_are_quarantined_each_with_its_reason(second_day: tuple[Workdir, Any]) -> None:
    workdir, summary = second_day
    found: dict[str, int] = {}
    for row in read_rows(workdir.table("quarantine")):
        found[row["reason"]] = found.get(row["reason"], 0) + 1
    wanted: dict[str, int] = {}
    for kind, (_, reason) in QUARANTINED.items():
        wanted[reason] = wanted.get(reason, 0) + 1
        SEEN.append(Seen(kind, "quarantine", f"`{reason}`"))
    assert found == wanted
    assert summary.rows_in == summary.kept + summary.quarantined + summary.filtered


def test_strange_rows_that_are_right_are_kept(second_day: tuple[Workdir, Any]) -> None:
    workdir, _ = second_day
    keys = {row["item_id"]: row["item_key"] for row in read_rows(workdir.table("items"))}
    pairs = {(row["user"], keys[row["item_id"]]) for row in read_rows(workdir.table("interactions"))}
    for kind, lines in KEPT.items():
        for line in lines.split("\n"):
            assert tuple(line.split(",")[:2]) in pairs, kind
        SEEN.append(Seen(kind, "kept", "as it is"))


def parquet(path: Path, **columns: Any) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


def truncated(path: Path) -> str:
    parquet(path, user=["u"] * 999, item=["i"] * 999, time=[T0] * 999, stars=[5.0] * 999, watch=[1.0] * 999)
    path.write_bytes(path.read_bytes()[:600])
    return str(path)


def written_by_nobody(path: Path) -> str:
    path.write_bytes(b"")
    return str(path)


def a_folder_of(path: Path, files: dict[str, str], named: str = "") -> str:
    path.mkdir()
    for name, text in files.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(text)
    return str(path / named)


LOGS: dict[str, Callable[[Path], str]] = {
    "a log that is not there": lambda path: str(path / "nowhere.parquet"),
    "an empty folder": lambda path: a_folder_of(path / "empty", {}),
    "an empty day": lambda path: write_csv(path / "day.csv", []),
    "a day of which no event is in the interval": lambda path: write_csv(path / "day.csv", good_lines(-40)),
    "a column that is missing": lambda path: parquet(path / "day.parquet", user=["u"], item=["i"], time=[T0]),
    "ids that are lists": lambda path: parquet(
        path / "day.parquet", user=[["u"]], item=["i"], time=[T0], stars=[5.0], watch=[1.0]
    ),
    "ids that are bytes": lambda path: parquet(
        path / "day.parquet", user=[b"u"], item=["i"], time=[T0], stars=[5.0], watch=[1.0]
    ),
    "a Parquet file cut short": lambda path: truncated(path / "day.parquet"),
    "a file of no bytes": lambda path: written_by_nobody(path / "day.parquet"),
    "text named .parquet": lambda path: str(Path(write_csv(path / "day.csv", ["u"])).rename(path / "day.parquet")),
    "a folder with an empty Parquet file": lambda path: a_folder_of(path / "mixed", {"a.parquet": "", "b.csv": NAMES}),
    "files of several formats in one folder": lambda path: a_folder_of(
        path / "mixed", {"a.csv": NAMES, "b.json": "{}"}
    ),
    "a file of a folder with other names": lambda path: a_folder_of(
        path / "logs", {"a.csv": f"{NAMES}\nu,i,{T0},5,1", "b.csv": f"user,thing,time,stars,watch\nu,i,{T0},5,1"}
    ),
    "a log without a header": lambda path: a_folder_of(path / "logs", {"a.csv": f"u1,i1,{T0},5,1"}),
    "one JSON array": lambda path: a_folder_of(path / "logs", {"a.json": '[{"user": "u"}]'}),
    "an archive": lambda path: a_folder_of(path / "logs", {"a.csv": "PK\x03\x04"}),
    "a part of a Delta table": lambda path: a_folder_of(
        path / "table", {"_delta_log/0.json": "", "part=1/a": NAMES}, "part=1"
    ),
    "a web address": lambda path: "https://example.org/day.csv",
    "a whole log in milliseconds": lambda path: write_csv(
        path / "day.csv", [f"u{n},i{n},{(T0 + n) * 1000},5,1" for n in range(50)]
    ),
    "dates written as numbers": lambda path: write_csv(
        path / "day.csv", [f"u{n},i{n},20240103,5,1" for n in range(50)]
    ),
    "times of day without a date": lambda path: write_csv(
        path / "day.csv", [f"u{n},i{n},18:30:{n},5,1" for n in range(10, 60)]
    ),
    "dates whose day and month could be either": lambda path: write_csv(
        path / "day.csv", [f"u{n},i{n},01/02/2024 18:30,5,1" for n in range(50)]
    ),
    "a day cut at midnight of New York": lambda path: write_csv(
        path / "day.csv", [f"u{n},i{n},{T0 + DAY + 3600 * (5 + n % 24)},5,1" for n in range(48)]
    ),
    "ids that lost their digits in a float": lambda path: write_csv(
        path / "day.csv", [f"u{n},1.0000{n}E+11,{T0 + DAY},5,1" for n in range(10, 60)]
    ),
    "a clock that went back a month": lambda path: write_csv(path / "day.csv", good_lines(-30) + good_lines(0)[:3]),
    "more bad rows than are allowed": lambda path: write_csv(path / "day.csv", good_lines() + [",i,1,5,1"] * 30),
    "no row that is a positive": lambda path: write_csv(path / "day.csv", [f"u1,i{n},{T0},1,1" for n in range(9)]),
}


@pytest.mark.parametrize("kind", LOGS)
def test_logs_that_cannot_be_right_are_refused(
    spark: SparkSession, second_day: tuple[Workdir, Any], tmp_path: Path, kind: str
) -> None:
    workdir, _ = second_day
    interactions = DeltaTable(workdir.table("interactions"))
    before = interactions.version()
    log = LOGS[kind](tmp_path)
    refused(kind, lambda: ingest(spark, workdir, log, day=1, max_quarantine_share=0.05), tmp_path)
    interactions.update_incremental()
    assert interactions.version() == before, "nothing was written"


def test_a_log_of_one_user_only_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    lines = [f"u1,i{n},{T0 + n},5,1" for n in range(20)]
    log = write_csv(tmp_path / "day.csv", lines)
    refused("one user with all events", lambda: ingest(spark, Workdir(str(tmp_path / "W")), log), tmp_path)


def test_a_log_without_time_or_order_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    log = write_csv(tmp_path / "day.csv", good_lines())
    workdir = Workdir(str(tmp_path / "W"))
    refused("neither time nor order", lambda: ingest(spark, workdir, log, columns={"rating": "stars"}), tmp_path)


def model_folder(make_model: Any, workdir: Workdir, name: str = "r-1") -> Path:
    model = make_model(num_items=6, num_paths=1)
    save_model(model, workdir.filesystem, workdir.path("models", name))
    return Path(workdir.path("models", name))


def release(workdir: Workdir, name: str = "r-1") -> Release:
    return Release(
        release_id=name, status="live", interval_start="2024-01-01T00:00:00Z", interval_end="2024-01-02T00:00:00Z",
        parent_release=None, model_uri=workdir.path("models", name), model_sha256="ab", K=4, D=2, J=1, num_items=6,
        config_hash="cd", gates="{}", created_at=datetime(2024, 1, 2),
    )  # fmt: skip


def test_models_that_were_changed_are_refused(make_model: Any, tmp_path: Path) -> None:
    workdir = Workdir(str(tmp_path / "W"))
    folder = model_folder(make_model, workdir)

    def load() -> Any:
        return load_model(workdir.filesystem, str(folder))

    tensors = folder / "model.safetensors"
    right = tensors.read_bytes()
    tensors.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    refused("one byte of a model changed", load, tmp_path)
    tensors.write_bytes(right[: len(right) // 2])
    refused("a model cut short", load, tmp_path)
    tensors.unlink()
    refused("a model without its file", load, tmp_path)
    manifest = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(manifest[:40])
    refused("a manifest cut short", load, tmp_path)
    (folder / "manifest.json").unlink()
    refused("a model that was never finished", load, tmp_path)


def test_checkpoints_that_were_changed_are_left_alone(
    make_model: Any, write_samples: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training goes on from the older of the two checkpoints, or from the start."""
    workdir = Workdir(str(tmp_path / "W"))
    write_samples(str(tmp_path / "W" / "tables" / "samples"), num_rows=64, num_files=2)
    config = validate_config({"name": "w", "dataset": {"format": "synthetic"}, "encoder": {"dim": 8},
                              "training": {"batch_rows": 8, "checkpoint_every": 2, "num_processes": 1}}, "w")  # fmt: skip
    workdir.write_array(np.ones(30), "models", "m", "counts.npy")

    def train(crash_at: int | None = None) -> bytes:
        train_model(
            TrainJob(workdir.uri, "tables/samples", "m", (Phase("warm_up", "warm_up", 1),), 0, (4, 4), config.encoder,
                     config.structure, config.reranker, config.training, "models/m/counts.npy", crash_at=crash_at)
        )  # fmt: skip
        return (tmp_path / "W" / "models" / "m" / "model.safetensors").read_bytes()

    undisturbed = train()
    with pytest.raises(BaseException):  # noqa: B017, PT011
        train(crash_at=5)
    for file in (tmp_path / "W" / "models" / "m" / "checkpoints").rglob("model.safetensors"):
        file.write_bytes(file.read_bytes()[:100])
    assert train() == undisturbed
    SEEN.append(
        Seen("checkpoints cut short", "left alone", "training begins that phase anew and ends with the same model")
    )


def test_folders_that_were_tampered_with_are_refused(spark: SparkSession, make_model: Any, tmp_path: Path) -> None:
    workdir = Workdir(str(tmp_path / "W"))
    config = validate_config({"name": "w", "dataset": {"format": "synthetic"}}, "w")
    day = Interval.parse("2024-01-02", "2024-01-03")
    refused("a refresh before day one", lambda: run_refresh(config, workdir.uri, day), tmp_path)
    publish(spark, workdir, release(workdir))
    refused("a release whose model is nowhere", lambda: run_refresh(config, workdir.uri, day), tmp_path)
    refused("a release whose index is nowhere", lambda: load_index(workdir, "r-1"), tmp_path)
    refused("a release that does not exist", lambda: find_release(workdir, "r-9"), tmp_path)
    model_folder(make_model, workdir)
    refused("another K, D or J than the live release's",
            lambda: run_refresh(config.model_copy(update={"seed": 1}), workdir.uri, day), tmp_path)  # fmt: skip
    workdir.write_text("{", "runs", "torn.json")
    refused("a run's record cut short", lambda: Run(workdir, "torn", "cd"), tmp_path)
    leased = Workdir(str(tmp_path / "leased" / "W"))  # a folder that nobody has held before: this is its first lease
    leased.write_text("{", "runs", "run.lease")
    refused("a lease cut short", lambda: lease(leased, "run").__enter__(), tmp_path / "leased")
    elsewhere = {"host": "elsewhere", "pid": 1, "token": "t", "until": 4e9}
    leased.write_text(json.dumps(elsewhere), "runs", "run.lease")
    refused("a folder that another run holds", lambda: lease(leased, "run").__enter__(), tmp_path / "leased")


def test_disks_that_take_nothing_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workdir = Workdir(str(tmp_path / "W"))
    workdir.write_text("{}", "runs", "r.json")
    monkeypatch.setattr("pipelines.storage.files._unfinished", lambda target: f"{target}.tmp")
    Path(workdir.path("runs", "r.json.tmp")).symlink_to("/dev/full")
    refused("a disk that is full", lambda: workdir.write_text("{}" * 99_999, "runs", "r.json"), tmp_path)
    assert workdir.read_text("runs", "r.json") == "{}"
    refused("a folder that may not be written", lambda: Workdir("/sys/W").write_text("{}", "runs", "r.json"), tmp_path)


CONFIGS = {
    "a configuration that is not there": None,
    "a configuration that is not YAML": "name: [",
    "a configuration that would run code": "name: !!python/object/apply:os.system ['true']",
    "a name that is a path": "name: ../../etc/passwd\ndataset: {format: synthetic}",
    "a name with a quote": "name: \"x' OR '1'='1\"\ndataset: {format: synthetic}",
    "an unknown key": "name: w\ndataset: {format: synthetic}\npaths: {layers: 2}",
    "a number out of its range": "name: w\ndataset: {format: synthetic}\npaths: {num_layers: 0}",
    "a number that is a word": "name: w\ndataset: {format: synthetic}\ntraining: {batch_rows: many}",
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_configurations_that_cannot_be_right_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "world.yaml"
    text = CONFIGS[kind]
    if text is not None:
        path.write_text(text)
    refused(kind, lambda: load_config(str(path)), tmp_path)


def test_a_run_id_that_is_a_path_is_refused(tmp_path: Path) -> None:
    workdir = Workdir(str(tmp_path / "W"))
    refused("a run id that is a path", lambda: Run(workdir, "../../etc/passwd", "cd"), tmp_path)
    assert not workdir.exists("runs")


def test_logs_that_changed_are_not_answered_by_old_results(tmp_path: Path) -> None:
    log, workdir = tmp_path / "log.csv", Workdir(str(tmp_path / "W"))
    write_csv(log, good_lines())
    config = validate_config({"name": "w", "dataset": {"path": str(log), "columns": {"time": "time"}}}, "w")

    def run() -> LearnedRun:
        return seed_run(None, config, workdir, Source(), 0)

    def sources() -> Sources:
        return Sources.of(config.dataset, None, None)

    started = run()
    started.run.record["stages"] = [{"name": "preprocess"}]
    sources().note(started.run.record)
    started.run.finish("failed", 1, "killed")
    write_csv(log, good_lines(1))
    begin_anew_where_changed([run()], sources())
    assert run().run.record["stages"] == []
    SEEN.append(Seen("a log that changed under an unfinished run", "begun anew", "a log line says what changed"))

    started = run()
    started.run.finish("done", 0)
    row = vars(
        replace(release(workdir), release_id=f"{started.run.run_id}-1", parent_release="r-0", bundle_sha256="ab")
    )
    write_deltalake(workdir.table("releases"), pa.Table.from_pylist([row]))
    write_csv(log, good_lines(2))
    refused("a log that changed under a finished run", lambda: run_day_one(config, workdir.uri), tmp_path)


USERS = {
    "a user file that is a CSV": "user,history\nu1,318\n",
    "a user file without users": "\n",
    "a history that is one text": '{"user": "u1", "history": "318,1196"}',
    "a history with a hole": '{"user": "u1", "history": ["318", null]}',
    "a history of objects": '{"user": "u1", "history": [{"item": "318"}]}',
    "a user that is null": '{"user": null, "history": ["318"]}',
}


def test_questions_that_cannot_be_understood_are_refused(make_model: Any, tmp_path: Path) -> None:
    folder = Files(str(tmp_path / "W"))
    write_items(folder)
    publish_release(folder, "r-1", make_model(NUM_ITEMS, 4, 2, num_paths=2), "live")
    for name, columns in (("user_histories", {"item_ids": [[1]]}), ("interactions", {"item_id": [1]})):
        write_deltalake(folder.path("tables", name), pa.table({"user": ["u1"]} | columns))
    request = Request(folder.uri)
    for kind, text in USERS.items():
        (tmp_path / "users").write_text(text)
        refused(kind, lambda: request.for_file(str(tmp_path / "users"), str(tmp_path / "out")), tmp_path)
    assert not (tmp_path / "out").exists()
    refused("a history of which no item is known", lambda: request.for_history(["318"]), tmp_path)
    refused("a user whom the log does not know", lambda: request.for_user("o'brien"), tmp_path)
    blocking = replace(request, blocked=[KEYS[1], "no such item"])
    refused("a blocked item that is unknown", lambda: blocking.for_history([KEYS[1]]), tmp_path)
    refused("keys in brackets that are no JSON", lambda: keys_of("--history", ["[DVD] Heat"]), tmp_path)


def refused(kind: str, act: Callable[[], Any], folder: Path) -> None:
    """The act fails as a user's mistake (not a bug), in words that say where and what."""
    with pytest.raises((DeepRetrievalError, OSError)) as caught:
        act()
    code = explain("dr", caught.value)
    assert code in (2, 3, 75), f"{kind}: exit {code}"
    words = re.sub(
        r"sha256 \w+…|says \w+…", lambda found: found[0].split()[0] + " …", " ".join(str(typed(caught.value)).split())
    )
    assert len(words) > 30, words
    plain = re.sub(r"[^ ']*" + re.escape(str(folder)), "…", words)
    plain = re.sub(r"\d{4}-\d\d-\d\dT[\d:]+(Z|\+00:00)|(?<=run w-)\w{10}", "…", plain)
    plain = re.sub(r"(/[\w.-]+)*/pytest-\d+/[\w./-]*?(?=/W\b)", "…", plain)
    SEEN.append(Seen(kind, f"exit {code}", plain.replace("|", "/")))


def test_the_document_says_what_was_seen(request: pytest.FixtureRequest) -> None:
    assert len(SEEN) == len({line.kind for line in SEEN})
    if len(request.session.items) and len(SEEN) < 50:
        pytest.skip("only when all kinds of this file were tried")
    table = ["| what comes in | what becomes of it | in words |", "|---|---|---|"]
    table += [f"| {line.kind} | {line.fate} | {line.words} |" for line in SEEN]
    before, rest = DOCUMENT.read_text().split(BEGIN)
    after = rest.split(END)[1]
    text = f"{before}{BEGIN}\n{len(SEEN)} kinds.\n\n" + "\n".join(table) + f"\n{END}{after}"
    if os.environ.get("DR_WRITE_DOCS"):
        DOCUMENT.write_text(text)
    assert DOCUMENT.read_text() == text, "DR_WRITE_DOCS=1 pytest tests/reliability -n 0 writes it anew"
