"""What a run has read is part of what it remembers: a changed log is never answered by an old result."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession

from dr_core.errors import InputError
from pipelines.cli.commands.learn import preview_lines
from pipelines.config.run import RunConfig
from pipelines.evaluation.learned_run import LearnedRun
from pipelines.flows import plan
from pipelines.flows.day_one import (
    Source,
    begin,
    begin_anew_where_changed,
    begin_anew_where_overwritten,
    identities,
    is_finished,
    preview,
    run_day_one,
    run_stages,
    seed_run,
)
from pipelines.flows.refresh import RefreshedRun, _base, newest_try, take_up
from pipelines.flows.sources import KEY, Sources, state_of
from pipelines.flows.stage_job import run_job
from pipelines.stages.ingest.interval import Interval
from pipelines.storage.releases import live_release
from pipelines.storage.run_record import Run
from pipelines.storage.workdir import Workdir
from tests.made_up_release import RELEASE as MADE_UP

RELEASE = replace(MADE_UP, release_id="", bundle_sha256="ef")
DAY = Interval.parse("2024-01-02", "2024-01-03")


class Place:
    """A log, a catalogue, and a work folder with one run of them."""

    def __init__(self, folder: Path) -> None:
        self.log, self.catalogue = folder / "log.csv", folder / "items.csv"
        rows = [f"u{user},i{item},{1_704_067_200 + 60 * item}" for user in range(9) for item in range(8)]
        self.log.write_text("\n".join(["user,item,time", *rows]) + "\n")
        self.catalogue.write_text("item,title\ni0,Nought\n")
        self.workdir = Workdir(str(folder / "W"))
        self.config = RunConfig.model_validate({
            "name": "shop",
            "dataset": {
                "format": "csv",
                "path": str(self.log),
                "catalogue": str(self.catalogue),
                "columns": {"time": "time"},
                "catalogue_columns": {"title": "title"},
            },
            "split": {"num_test": 2, "num_validation": 1, "min_events": 2},
            "em": {"rounds": 1},
        })  # fmt: skip

    def run(self, spark: SparkSession | None = None) -> LearnedRun:
        return seed_run(spark, self.config, self.workdir, Source(), 0)

    def end(self, status: str = "done", stages: int = 99, *, message: str = "") -> LearnedRun:
        """Leave a run that has done its first stages, as such a run leaves its record."""
        run = self.run()
        begin(run)
        Sources.of(self.config.dataset, None, None).note(run.run.record)
        names = list(identities(run).items())[:-1][:stages]
        run.run.record["stages"] = [
            {"name": name, "seconds": 1.0, "rows_in": 1, "rows_out": 1, "result": {}, "identity": identity}
            for name, identity in names
        ]
        run.run.record["seeds"] = 1
        run.run.finish(status, 0, message)
        return run

    def finish(self) -> LearnedRun:
        """Leave a finished run with its report and its release."""
        run = self.end()
        self.workdir.write_text(json.dumps({"run_id": run.run.run_id}), "report", "summary.json")
        self.publish(f"{run.run.run_id}-1")
        return run

    def publish(self, release_id: str, **more: Any) -> None:
        row = vars(replace(RELEASE, release_id=release_id, **more))
        write_deltalake(self.workdir.table("releases"), pa.Table.from_pylist([row]), mode="append")

    def preview(self, **options: Any) -> dict[str, Any]:
        return preview(self.config, self.workdir, Source(), **options)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def said(caplog: pytest.LogCaptureFixture, work: Callable[[], Any]) -> str:
    caplog.clear()
    with caplog.at_level(logging.INFO):
        work()
    return caplog.text


CHANGES: dict[str, Callable[[Place], Any]] = {
    "rows appended": lambda place: place.log.open("a").write("u0,NEW1,1704067300\n"),
    "an item corrected": lambda place: place.log.write_text(place.log.read_text().replace("i7", "j7")),
    "the catalogue alone": lambda place: place.catalogue.write_text("item,title\ni0,Zero..\n"),
    "a folder in its place": lambda place: (
        (place.log.rename(place.log.with_name("x")), place.log.mkdir())
        and place.log.with_name("x").rename(place.log / "part-0.csv")
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_finished_run_refuses_a_changed_log_and_says_the_ways_on(place: Place, change: str) -> None:
    run_id = place.finish().run.run_id
    assert run_stages([place.run()]) == {"run_id": run_id}
    CHANGES[change](place)
    files = {path: path.read_bytes() for path in Path(place.workdir.uri).rglob("*") if path.is_file()}
    pattern = rf"has changed: .* -> .*, since run {run_id} made its release .*--fresh.*dr refresh.*--workdir"
    for options in ({}, {"only": "index"}, {"only": "preprocess"}, {"from_stage": "preprocess"}):
        with pytest.raises(InputError, match=pattern):
            run_stages([place.run()], **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=pattern):
        run_day_one(place.config, place.workdir.uri)
    planned = run_day_one(place.config, place.workdir.uri, dry_run=True)
    assert {row["action"] for row in planned["stages"]} == {"skip"}
    assert {row["reason"] for row in planned["stages"]} == {"the log changed"}
    assert preview_lines(planned)[0].startswith("would be refused: the ")
    now = {
        path: path.read_bytes()
        for path in Path(place.workdir.uri).rglob("*")
        if path.suffix != ".lease" and path.is_file()
    }
    assert now == files
    assert place.preview(fresh=True)["stages"][0]["reason"] == "a fresh start"
    with pytest.raises(InputError, match=pattern):
        run_job("preprocess", place.config, place.workdir.uri, Source())


@pytest.mark.parametrize("status", ["failed", "refused", "running"])
@pytest.mark.parametrize("change", CHANGES)
def test_an_unfinished_run_begins_anew_and_says_why(
    place: Place, change: str, status: str, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = place.end(status, 3, message="why").run.run_id
    place.workdir.write_text("{}", "models", f"{run_id}-warm", "checkpoints", "0", "manifest.json")
    place.workdir.write_text("{}", "models", f"{run_id}0-warm", "checkpoints", "0", "manifest.json")
    sources = Sources.of(place.config.dataset, None, None)
    assert said(caplog, lambda: begin_anew_where_changed([place.run()], sources)) == ""
    assert len(place.run().run.record["stages"]) == 3

    CHANGES[change](place)
    planned = place.preview()
    assert {(row["action"], row["reason"]) for row in planned["stages"]} == {("run", "the log changed")}
    assert preview_lines(planned)[1].endswith("the run begins anew")
    with pytest.raises(InputError, match="leave out --only choose"):
        run_stages([place.run()], only="choose")
    now = Sources.of(place.config.dataset, None, None)
    text = said(caplog, lambda: begin_anew_where_changed([place.run()], now))
    assert " -> " in text
    assert "begins anew" in text
    assert place.run().run.record["stages"] == []
    assert not place.workdir.exists("models", f"{run_id}-warm", "checkpoints")
    assert place.workdir.exists("models", f"{run_id}0-warm", "checkpoints"), "another run's"
    assert said(caplog, lambda: begin_anew_where_changed([place.run()], now)) == ""


def test_the_states_of_a_run_are_told_apart(place: Place) -> None:
    assert state_of(place.run().run).endswith("has not begun")
    assert "has not begun" in preview_lines(place.preview())[0]
    for status, words in {"refused": "was refused", "failed": "has failed", "running": "is unfinished"}.items():
        run_id = place.end(status, 2, message="why").run.run_id
        head, *rows = preview_lines(place.preview())
        assert head.startswith(f"run {run_id} {words} (")
        assert "log of 1 file, " in head
        assert head.endswith(": why")
        assert "skip  preprocess" in rows[0]
        assert "run   count           not done yet" in rows[2]
    place.finish()
    assert "is finished (20" in preview_lines(place.preview())[0]


def test_what_an_old_record_read_is_taken_to_be_unchanged_and_said_once(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    run = place.finish()
    del run.run.record[KEY]
    run.run.save()
    CHANGES["rows appended"](place)
    assert "does not remember what its log was" in said(caplog, lambda: run_stages([place.run()]))
    assert "does not remember" not in said(caplog, lambda: run_stages([place.run()]))
    CHANGES["an item corrected"](place)
    with pytest.raises(InputError, match=r"changed: log\.csv"):
        run_stages([place.run()])


def test_a_log_that_is_gone_and_one_that_is_generated_have_not_changed(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.finish()
    place.log.unlink()
    text = said(caplog, lambda: run_stages([place.run()]))
    assert "no longer there" in text
    assert "is finished" in text
    place.config = RunConfig.model_validate({"name": "made", "dataset": {"format": "synthetic"}, "em": {"rounds": 1}})
    place.finish()
    text = said(caplog, lambda: run_stages([place.run()]))
    assert "is finished" in text
    assert "remember" not in text


def test_another_runs_report_is_not_a_runs_answer(place: Place) -> None:
    place.finish()
    place.workdir.write_text(json.dumps({"run_id": "other"}), "report", "summary.json")
    assert not is_finished([place.run()]), "its own is to be drawn"


def test_rows_that_another_run_has_replaced_are_no_runs_own(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """Not where the other one has ingested the same: another configuration of what is learned, or a copy of the log."""

    def ingested_by(run_id: str, label: str, **preprocess: object) -> None:
        record = json.loads(json.dumps(place.run().run.record)) | {"run_id": run_id}
        record["config"]["preprocess"] |= preprocess
        record["config"]["dataset"]["path"] = "a copy"
        place.workdir.write_text(json.dumps(record), "runs", f"{run_id}.json")
        rows = pa.table({"source_interval": [label], "run_id": [run_id]})
        write_deltalake(place.workdir.table("intervals"), rows, mode="overwrite")

    run_id = place.end("failed", 3).run.run_id
    ingested_by("copy", "all")
    assert said(caplog, lambda: begin_anew_where_overwritten([place.run()])) == ""
    ingested_by("other", "2024-01-01T00:00:00Z/2024-01-02T00:00:00Z", min_events=7)
    assert said(caplog, lambda: begin_anew_where_overwritten([place.run()])) == ""
    ingested_by("other", "all", min_events=7)
    with pytest.raises(InputError, match=r"run other has put what it reads.*leave out --only index"):
        begin_anew_where_overwritten([place.run()], only="index")
    assert f"run {run_id} begins anew" in said(caplog, lambda: begin_anew_where_overwritten([place.run()]))
    assert place.run().run.record["stages"] == []
    place.finish()
    with pytest.raises(InputError, match=r"run other has put what it reads in the place of its rows, since .*--fresh"):
        begin_anew_where_overwritten([place.run()])
    assert place.run().run.finished


def test_a_mended_log_is_ingested_again(place: Place, spark: SparkSession, caplog: pytest.LogCaptureFixture) -> None:
    """A run that failed after its first stage, and one stage as a job of its own."""

    def keys() -> set[str]:
        return {row.item_key for row in place.workdir.read(spark, "items").collect()}

    def again() -> None:
        run_stages([place.run(spark)], only="preprocess")

    again()
    assert keys() == {f"i{number}" for number in range(8)}
    run = place.run()
    run.run.record["stages"].append({"name": "samples", "seconds": 1.0, "result": {}})
    run.run.finish("failed", 1, "broken")
    place.log.write_text(place.log.read_text().replace("i7", "FIXED7"))
    assert "begins anew" in said(caplog, again)
    assert "FIXED7" in keys()
    used = (
        place.workdir.read(spark, "interactions")
        .select("item_id")
        .distinct()
        .join(place.workdir.read(spark, "items"), "item_id")
    )
    assert "i7" not in {row.item_key for row in used.collect()}
    assert [stage["name"] for stage in place.run().run.record["stages"]] == ["preprocess"]


def refreshed(place: Place, run_id: str = "day") -> RefreshedRun:
    run_id = newest_try(place.workdir, run_id)
    return RefreshedRun(
        None,
        place.config,
        place.workdir,
        Run(place.workdir, run_id, "hash"),
        0,
        interval=DAY.label,  # type: ignore[arg-type]
    )


def test_a_corrected_day_is_done_anew_by_the_next_try(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    def ended(run_id: str, status: str = "done") -> None:
        run = take_up(refreshed(place))
        assert run.run.run_id == run_id
        run.run.record["stages"] = [{"name": stage.name} for stage in plan.refresh()]
        run.run.finish(status, 0)

    ended("day")
    place.publish("day-1")
    assert take_up(refreshed(place)).run.finished, "the same interval again"
    CHANGES["an item corrected"](place)
    text = said(caplog, lambda: ended("day.try2", "refused"))
    assert "since run day was published: done anew as run day.try2" in text
    place.publish("day.try2-1", status="refused")
    CHANGES["rows appended"](place)
    assert "run day.try2 begins anew" in said(caplog, lambda: ended("day.try2"))
    place.publish("day.try3-1", status="live")
    assert newest_try(place.workdir, "day") == "day.try2"
    assert take_up(refreshed(place)).run.finished
    place.publish("day.try2-1", status="live")
    place.catalogue.write_text("item,title\ni0,Zero\n")
    assert take_up(refreshed(place)).run.run_id == "day.try3"


def test_a_corrected_day_is_learned_on_the_newest_release_that_had_not_learned_it(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """Not on one that has learned another day as it was before its correction."""
    later = Interval.parse("2024-01-03", "2024-01-04")

    def base(interval: Interval) -> str:
        run = RefreshedRun(None, place.config, place.workdir, Run(place.workdir, "r", "h"), 0, interval=interval.label)  # type: ignore[arg-type]
        live = live_release(place.workdir)
        assert live is not None
        return _base(run, live)

    place.publish("a-1", status="retired", parent_release="none", learned=["all"])
    place.publish("b-1", status="retired", parent_release="a-1", learned=[DAY.label])
    place.publish("c-1", parent_release="b-1", learned=[later.label])
    assert base(Interval.parse("2024-01-05", "2024-01-06")) == "c-1"
    assert "its events count once more" in said(caplog, lambda: base(DAY)), "no model is left to learn on"
    for name in ("a-1", "b-1"):
        place.workdir.write_text("{}", "models", name, "manifest.json")
    assert base(DAY) == "a-1"
    assert base(later) == "b-1"

    DeltaTable(place.workdir.table("releases")).update(new_values={"status": "retired"}, predicate="status = 'live'")
    facts = json.dumps({"base": "a-1"})
    place.publish("d-1", parent_release="c-1", learned=[DAY.label, later.label], facts=facts)
    assert base(later) == "a-1", "b-1 has learned the day before as it was"


def test_a_cumulative_log_that_has_only_grown_has_not_changed(place: Place) -> None:
    rules = place.config.preprocess.model_copy(update={"cumulative": True})
    place.config = place.config.model_copy(update={"preprocess": rules})
    run = take_up(refreshed(place))
    run.run.record["stages"] = [{"name": "ingest"}]
    run.run.finish("done", 0)
    place.publish("day-1")
    CHANGES["rows appended"](place)
    assert take_up(refreshed(place)).run.finished
    CHANGES["an item corrected"](place)
    assert take_up(refreshed(place)).run.run_id == "day.try2"
