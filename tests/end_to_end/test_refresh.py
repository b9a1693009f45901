"""Days after day one on a tiny world: what each leaves, and that a killed, repeated or refused one loses nothing."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from dr_core.errors import ConfigError, GateRefused, InputError
from dr_core.item_lists import ItemLists
from dr_core.learning.checkpoint import load_model
from dr_core.retrieval.from_model import model_retriever
from dr_core.retrieval.retriever import Retriever
from pipelines.flows.day_one import run_day_one
from pipelines.flows.delete_user import USER_TABLES, delete_user
from pipelines.flows.evaluate_release import evaluate_release
from pipelines.flows.refresh import run_refresh
from pipelines.flows.retention import maintain
from pipelines.stages.ingest.interval import Interval
from pipelines.stages.structure.index import load_index
from pipelines.storage.faults import VARIABLE
from pipelines.storage.publish import promote, rollback
from pipelines.storage.releases import list_releases, live_release
from pipelines.storage.workdir import Workdir
from tests.end_to_end.world import AGAIN, FIRST, LATE, RETIRED, SCRIPT, TinyWorld, day, tiny_config

RunAttached = Callable[..., tuple[int, str]]
KILLED_AT = (
    "write:interactions:after",
    "write:user_histories:after",
    "e_step:after",
    "write:path_scores:after",
    "write:item_paths:after",
    "publish:before",
    "publish:after",
)
RELEASE_TABLES = ("item_paths", "path_scores", "item_stats", "path_items", "recommendations")


def run_day(run_attached: RunAttached, workdir: Path, log: str, interval: Interval, *, crash_at: str = "") -> int:
    """Run a day in a process of its own; return its exit code, -9 when it was killed."""
    moments = (interval.start.isoformat(), interval.end.isoformat())
    return run_attached(SCRIPT, str(workdir), log, *moments, **{VARIABLE: crash_at})[0]


@pytest.fixture(scope="module")
def logs(tiny_world: TinyWorld) -> dict[str | int, str]:
    """The log of every day."""
    return tiny_world.logs


@pytest.fixture(scope="module")
def first(tiny_world: TinyWorld) -> Path:
    """The shared work folder after day one: not to be changed."""
    return tiny_world.workdir


def copy_of(folder: Path, target: Path) -> Workdir:
    shutil.copytree(folder, target)
    return Workdir(str(target))


@pytest.fixture(scope="module")
def two_days(
    spark: SparkSession, first: Path, logs: dict[str | int, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workdir, list[dict[str, Any]]]:
    workdir = copy_of(first, tmp_path_factory.mktemp("days") / "W")
    done = [run_refresh(tiny_config(), workdir.uri, day(number), logs=logs[number]) for number in (9, 10)]
    return workdir, done


def contents(spark: SparkSession, workdir: Workdir, table: str, release_id: str | None = None) -> pd.DataFrame:
    frame = workdir.read(spark, table)
    if release_id is not None:
        frame = frame.where(frame.release_id == release_id)
    rows = frame.drop("created_at", "model_uri", "gates", "facts").toPandas()
    for column in rows.columns:
        if rows[column].map(lambda value: isinstance(value, list | np.ndarray)).any():
            rows[column] = rows[column].map(tuple)
    return rows.sort_values(list(rows.columns)).reset_index(drop=True)


def assert_sound(spark: SparkSession, workdir: Workdir) -> None:
    """One live release; every active item it knows on J distinct paths; index = inverse; answers any history."""
    rows = list_releases(workdir)
    assert [row.status for row in rows].count("live") == 1
    live = live_release(workdir)
    assert live is not None
    items = workdir.read(spark, "items").toPandas()
    assert sorted(items["item_id"]) == list(range(len(items)))
    active = set(items.loc[items["active"] & (items["item_id"] < live.num_items), "item_id"])
    paths = contents(spark, workdir, "item_paths", live.release_id)
    placed = paths[paths["item_id"].isin(active)]
    assert set(placed["item_id"]) == active
    assert (placed.groupby("item_id")["path_id"].nunique() == live.J).all()
    index = contents(spark, workdir, "path_items", live.release_id)
    inverse = {(item, row.path_id) for row in index.itertuples() for item in row.item_ids}
    assert inverse == set(zip(placed["item_id"], placed["path_id"], strict=True))
    retriever = retriever_of(workdir, live.release_id)
    histories = workdir.read(spark, "user_histories").limit(50).toPandas()["item_ids"]
    known = ItemLists.from_rows(histories).known(live.num_items)
    found = retriever.retrieve(retriever.encode(known), 5)
    assert (found.item_Uk[:, 0] >= 0).all()
    assert set(found.item_Uk[found.item_Uk >= 0]) <= active


def retriever_of(workdir: Workdir, release_id: str, beam: int = 8) -> Retriever:
    model = load_model(workdir.filesystem, workdir.path("models", release_id))
    return model_retriever(model, load_index(workdir, release_id), width=beam, max_length=20)


def test_days_follow_each_other(
    spark: SparkSession, first: Path, logs: dict[str | int, str], two_days: tuple[Workdir, list[dict[str, Any]]]
) -> None:
    workdir, done = two_days
    start = Workdir(str(first))
    rows = list_releases(workdir)
    assert [row.status for row in rows] == ["live", "retired", "retired"]
    assert [row.parent_release for row in rows] == [done[0]["release_id"], done[0]["parent_release"], None]
    assert_sound(spark, workdir)

    assert done[0]["learned"] == [day(9).label]
    assert done[0]["data"]["late"] == LATE
    assert done[0]["data"]["reasons"]["redelivered"] == AGAIN
    before = contents(spark, start, "interactions")
    after = contents(spark, workdir, "interactions")
    assert len(after) == len(before) + sum(each["data"]["kept"] for each in done)
    keys = ["user", "item_id", "event_time"]
    assert not after.duplicated(keys).any()

    ids, grown = (contents(spark, place, "items").set_index("item_key")["item_id"] for place in (start, workdir))
    assert (grown[ids.index] == ids).all(), "ids never change"
    assert done[0]["items_placed"] > 0, "the day brought new items"

    retired = contents(spark, workdir, "items").query("not active")["item_id"]
    assert len(retired) >= RETIRED
    live = done[1]["release_id"]
    assert not contents(spark, workdir, "item_paths", live)["item_id"].isin(retired).any()

    old, new = (contents(spark, workdir, "item_stats", rows[n].release_id) for n in (2, 1))
    assert new["num_events"].sum() > old["num_events"].sum() * 2 ** (-1 / 30)


def test_a_refreshed_release_is_measured_and_has_a_report_of_its_own(
    two_days: tuple[Workdir, list[dict[str, Any]]], tmp_path: Path
) -> None:
    source, done = two_days
    workdir = copy_of(Path(source.uri), tmp_path / "W")
    first_report = workdir.read_text("report", "summary.json")
    for release_id in (None, done[0]["release_id"]):
        summary = evaluate_release(workdir.uri, release_id)
        assert summary["release_id"] == (release_id or done[1]["release_id"])
        results = {row["method"]: row for row in summary["results"] if row["k"] == 5 and row["filtered"]}
        assert {"deep_retrieval", "brute_force", "popularity", "popular_candidates"} <= set(results)
        assert results["brute_force"]["overlap"] == 1.0
        assert 0 < results["deep_retrieval"]["overlap"] <= 1
        assert results["brute_force"]["users"] == 40
        page = workdir.read_text("report", summary["release_id"], "index.html")
        assert "Deep Retrieval" in page
    assert workdir.read_text("report", "summary.json") == first_report, "day one's report stays"


def test_a_cold_item_is_found_by_a_wide_beam(
    spark: SparkSession, two_days: tuple[Workdir, list[dict[str, Any]]]
) -> None:
    """An item of the catalogue without any event has its place among the others and comes out of an exhaustive beam."""
    workdir, done = two_days
    seen = workdir.read(spark, "interactions").select("item_id").distinct()
    cold = workdir.read(spark, "items").where("active").join(seen, "item_id", "left_anti").toPandas()["item_id"]
    assert len(cold)
    retriever = retriever_of(workdir, done[1]["release_id"], beam=400)
    found = retriever.candidates(retriever.search(retriever.encode([[1, 2, 3]])))
    assert set(cold) <= set(found.item_ids)


def test_the_same_interval_again_changes_nothing(
    spark: SparkSession, logs: dict[str | int, str], two_days: tuple[Workdir, list[dict[str, Any]]]
) -> None:
    workdir, done = two_days
    before = contents(spark, workdir, "releases")
    assert run_refresh(tiny_config(), workdir.uri, day(10), logs=logs[10]) == done[1]
    assert run_refresh(tiny_config(), workdir.uri, day(9), logs=logs[9])["release_id"] == done[0]["release_id"]
    pd.testing.assert_frame_equal(contents(spark, workdir, "releases"), before)


def test_a_corrected_day_takes_the_place_of_the_published_one(
    spark: SparkSession, logs: dict[str | int, str], two_days: tuple[Workdir, list[dict[str, Any]]], tmp_path: Path
) -> None:
    """The day's rows are replaced, ids stay, and what is live is a new release of the same day."""
    source, done = two_days
    workdir = copy_of(Path(source.uri), tmp_path / "W")
    log = Path(shutil.copytree(Path(logs[10]).parent, tmp_path / "log")) / "logs.parquet"
    again = partial(run_refresh, tiny_config(), workdir.uri, day(10), logs=str(log), run_id=done[1]["run_id"])
    assert again() == done[1], "the same file changes nothing"

    rows = pq.read_table(log)
    pq.write_table(rows.take(np.flatnonzero(np.arange(len(rows)) % 4)), log)
    ids = contents(spark, workdir, "items").set_index("item_key")["item_id"]
    before = contents(spark, workdir, "interactions")
    corrected = again()
    assert corrected["run_id"] == f"{done[1]['run_id']}.try2"
    assert corrected["parent_release"] == done[1]["release_id"]
    assert corrected["learned"] == [day(10).label]
    counted = {
        row.release_id: contents(spark, workdir, "item_stats", row.release_id)["num_events"].sum()
        for row in list_releases(workdir)
    }
    (earlier, published, again_counted) = (counted[each["release_id"]] for each in (*done, corrected))
    assert earlier * 2 ** (-1 / 30) < again_counted < published, "the day counts once, as it is now"
    live = live_release(workdir)
    assert live is not None
    assert (live.release_id, live.interval_end) == (corrected["release_id"], day(10).label.split("/")[1])
    after = contents(spark, workdir, "interactions")
    kept = after["source_interval"] == day(10).label
    assert kept.sum() == corrected["data"]["kept"] < done[1]["data"]["kept"]
    pd.testing.assert_frame_equal(
        after[~kept].reset_index(drop=True),
        before[before["source_interval"] != day(10).label].reset_index(drop=True),
    )
    pd.testing.assert_series_equal(contents(spark, workdir, "items").set_index("item_key")["item_id"], ids)
    assert_sound(spark, workdir)
    assert again() == corrected, "the corrected file again changes nothing"


def test_a_day_killed_anywhere_ends_with_the_same_tables(
    spark: SparkSession,
    run_attached: RunAttached,
    first: Path,
    logs: dict[str | int, str],
    two_days: tuple[Workdir, list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    """Killed at one point after the other; the live release answers after every kill."""
    undisturbed, done = two_days
    workdir = copy_of(first, tmp_path / "W")
    for point in KILLED_AT:
        assert run_day(run_attached, tmp_path / "W", logs[9], day(9), crash_at=point) == -signal.SIGKILL, point
        live = live_release(workdir)
        assert live is not None
        assert (
            retriever_of(workdir, live.release_id).retrieve(torch_state(workdir, live.release_id), 3).item_Uk[0, 0] >= 0
        )
    assert run_day(run_attached, tmp_path / "W", logs[9], day(9)) == 0
    release_id = done[0]["release_id"]
    for table in RELEASE_TABLES:
        pd.testing.assert_frame_equal(
            contents(spark, workdir, table, release_id), contents(spark, undisturbed, table, release_id)
        )
    there = contents(spark, undisturbed, "interactions")
    there = there[there["source_interval"] != day(10).label].reset_index(drop=True)
    pd.testing.assert_frame_equal(contents(spark, workdir, "interactions"), there)


def torch_state(workdir: Workdir, release_id: str) -> Any:
    return retriever_of(workdir, release_id).encode([[1, 2, 3]])


def test_a_refused_day_is_learned_with_the_next(
    spark: SparkSession, first: Path, logs: dict[str | int, str], tmp_path: Path
) -> None:
    workdir = copy_of(first, tmp_path / "W")
    before = live_release(workdir)
    assert before is not None
    with pytest.raises(GateRefused, match="min_rows_share"):
        run_refresh(tiny_config(), workdir.uri, day(9), logs=logs["thin"])
    refused = list_releases(workdir)[0]
    assert refused.status == "refused"
    assert any(
        "rows" in verdict["gate"] and verdict["passed"] is False for verdict in json.loads(refused.gates)["verdicts"]
    )
    assert live_release(workdir) == before
    assert_sound(spark, workdir)

    done = run_refresh(tiny_config(), workdir.uri, day(10), logs=logs[10])
    assert done["learned"] == [day(9).label, day(10).label]
    assert done["parent_release"] == before.release_id
    assert_sound(spark, workdir)

    back = rollback(spark, workdir)
    assert back.release_id == before.release_id
    again = run_refresh(tiny_config(), workdir.uri, day(11), logs=logs[11])
    assert again["learned"] == [day(9).label, day(10).label, day(11).label], "what was rolled back is learned anew"
    assert again["parent_release"] == before.release_id
    assert_sound(spark, workdir)


def test_paths_that_were_refined_stay_and_new_items_get_theirs(
    spark: SparkSession, logs: dict[str | int, str], tmp_path: Path
) -> None:
    """With one path an item nothing is scored on day one, and there is nothing that a refresh could carry on."""
    config = tiny_config(
        "paths.paths_per_item=1",
        "assignment={m_step: auto, refine_states: 500}",
        "evaluation.controls=false",
        "em.rounds=1",
        "gates.max_recall_loss=1.0",
    )
    workdir = Workdir(str(tmp_path / "W"))
    first = run_day_one(config, workdir.uri, logs=logs["first"], interval=FIRST)["release_id"]
    assert not workdir.has_table(spark, "path_scores")
    second = run_refresh(config, workdir.uri, day(9), logs=logs[9])["release_id"]
    before, after = (
        {row.item_id: row.path_id for row in workdir.read_release(spark, "item_paths", name).collect()}
        for name in (first, second)
    )
    assert before.items() <= after.items()
    assert len(after) > len(before)


def test_retention_and_removal_of_a_user(
    spark: SparkSession, two_days: tuple[Workdir, list[dict[str, Any]]], tmp_path: Path
) -> None:
    source, done = two_days
    workdir = copy_of(Path(source.uri), tmp_path / "W")
    config = tiny_config()
    config = config.model_copy(update={"refresh": config.refresh.model_copy(update={"keep_releases": 0})}, deep=True)
    oldest = list_releases(workdir)[-1].release_id
    kept = {table: contents(spark, workdir, table, done[1]["release_id"]) for table in RELEASE_TABLES}
    report = maintain(spark, workdir, config, vacuum_hours=0.0)
    assert report["deleted"] == [oldest]
    assert report["kept"] == sorted(each["release_id"] for each in done)
    for table, rows in kept.items():
        pd.testing.assert_frame_equal(contents(spark, workdir, table, done[1]["release_id"]), rows)
        names = {row.release_id for row in workdir.read(spark, table).select("release_id").distinct().collect()}
        assert names <= set(report["kept"])
    with pytest.raises(InputError, match="deleted by maintenance"):
        promote(spark, workdir, oldest)
    assert_sound(spark, workdir)
    assert maintain(spark, workdir, config, vacuum_hours=0.0)["deleted"] == []

    user = workdir.read(spark, "recommendations").groupBy("user").count().orderBy(F.desc("count"), "user").first()
    assert user is not None
    removed = delete_user(spark, workdir, user["user"], vacuum_now=True)
    assert removed["interactions"] > 0
    assert removed["user_histories"] == 1
    assert removed["recommendations"] > 0
    for table in USER_TABLES:
        assert workdir.read(spark, table).where(F.col("user") == user["user"]).isEmpty()
    for table in ("samples", "refresh_samples"):
        assert spark.read.parquet(workdir.table(table)).where(F.col("user") == user["user"]).isEmpty()
    assert_sound(spark, workdir)


def test_nothing_to_start_from_is_refused(spark: SparkSession, logs: dict[str | int, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no live release"):
        run_refresh(tiny_config(), str(tmp_path / "empty"), day(9), logs=logs[9])
