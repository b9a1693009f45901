"""Releases: one commit says what is live, and publishing never overwrites."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from threading import Event

import pytest
from delta.tables import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from dr_core.errors import InputError, PublishConflict
from dr_core.paths.space import PathSpace
from pipelines.storage.publish import promote, publish, rollback
from pipelines.storage.releases import Release, ancestry, find_release, learned_intervals, list_releases, live_release
from pipelines.storage.schemas import SCHEMAS
from pipelines.storage.workdir import Workdir, small_frame

RELEASE = Release(
    release_id="r-1",
    status="live",
    interval_start="2024-01-01",
    interval_end=None,
    parent_release=None,
    model_uri="models/r-1",
    model_sha256="ab",
    K=10,
    D=2,
    J=3,
    num_items=2**33,
    config_hash="cd",
    gates='{"health": {"gini": 0.25}}',
    created_at=datetime(2024, 1, 2, 3, 4, 5),
    bundle_sha256="ef",
    alpha=0.5,
    learned=["all"],
    facts='{"seconds": 1.5}',
    nodes=[10, 10],
)


def test_publishing(spark: SparkSession, tmp_path: Path) -> None:
    """One folder, step by step: Delta commits are what this test spends its time on."""
    workdir = Workdir(str(tmp_path))
    assert list_releases(workdir) == []
    assert live_release(workdir) is None
    with pytest.raises(InputError, match="no live release yet"):
        find_release(workdir, None)

    published = publish(spark, workdir, RELEASE)
    assert published == RELEASE == live_release(workdir), "every value comes back as it was"
    assert find_release(workdir, None) == RELEASE

    again = publish(spark, workdir, replace(RELEASE, status="candidate", num_items=1))
    assert again == RELEASE, "publishing the same release again changes nothing"
    assert len(DeltaTable.forPath(spark, workdir.table("releases")).history().collect()) == 1

    newer = replace(RELEASE, release_id="r-2", created_at=datetime(2024, 2, 1))
    assert publish(spark, workdir, newer).status == "candidate", "a live release is never overwritten"
    assert live_release(workdir) == RELEASE
    assert publish(spark, workdir, newer).status == "candidate"

    refused = replace(RELEASE, release_id="r-3", status="refused", created_at=datetime(2024, 1, 15))
    assert publish(spark, workdir, refused).status == "refused"
    assert [row.release_id for row in list_releases(workdir)] == ["r-2", "r-3", "r-1"], "newest first"
    assert len(DeltaTable.forPath(spark, workdir.table("releases")).history().collect()) == 3, "one commit each"

    assert find_release(workdir, "r-3").status == "refused"
    with pytest.raises(InputError, match="release r-9 is not here"):
        find_release(workdir, "r-9")


def test_a_day_takes_the_place_of_its_parent(spark: SparkSession, tmp_path: Path) -> None:
    """Exactly one live release after every step, each step one commit, and a loser loses nothing."""
    workdir = Workdir(str(tmp_path))
    publish(spark, workdir, RELEASE)

    def day(number: int, parent: int, status: str = "live") -> Release:
        return replace(
            RELEASE,
            release_id=f"r-{number}",
            parent_release=f"r-{parent}",
            status=status,
            created_at=datetime(2024, 1, 2 + number),
            learned=[f"day {number}"],
        )

    def statuses() -> dict[str, str]:
        return {row.release_id: row.status for row in list_releases(workdir)}

    assert publish(spark, workdir, day(2, 1)).status == "live"
    assert statuses() == {"r-1": "retired", "r-2": "live"}
    assert publish(spark, workdir, day(2, 1)) == day(2, 1), "again changes nothing"

    before = len(DeltaTable.forPath(spark, workdir.table("releases")).history().collect())
    with pytest.raises(PublishConflict, match="another release than r-1 is live"):
        publish(spark, workdir, day(3, 1))
    assert statuses() == {"r-1": "retired", "r-2": "live"}
    assert len(DeltaTable.forPath(spark, workdir.table("releases")).history().collect()) == before

    publish(spark, workdir, day(3, 2, "refused"))
    publish(spark, workdir, day(3, 2))
    assert statuses() == {"r-1": "retired", "r-2": "retired", "r-3": "live"}, "a refused day that was done anew"
    rows = list_releases(workdir)
    assert [row.release_id for row in ancestry(rows, rows[0])] == ["r-3", "r-2", "r-1"]
    assert learned_intervals(rows, rows[0]) == {"all", "day 2", "day 3"}

    assert rollback(spark, workdir).release_id == "r-2"
    assert statuses() == {"r-1": "retired", "r-2": "live", "r-3": "retired"}
    assert learned_intervals(rows, rows[1]) == {"all", "day 2"}
    assert promote(spark, workdir, "r-1").release_id == "r-1"
    assert promote(spark, workdir, "r-1").release_id == "r-1"
    with pytest.raises(InputError, match="the first release"):
        rollback(spark, workdir)
    with pytest.raises(InputError, match="r-9 is not here"):
        promote(spark, workdir, "r-9")
    assert statuses() == {"r-1": "live", "r-2": "retired", "r-3": "retired"}


def test_of_two_publishers_one_wins(spark: SparkSession, tmp_path: Path) -> None:
    workdir = Workdir(str(tmp_path))
    publish(spark, workdir, RELEASE)
    rivals = [replace(RELEASE, release_id=f"r-{number}", parent_release="r-1") for number in (2, 3)]

    def attempt(release: Release) -> str:
        try:
            return publish(spark, workdir, release).status
        except PublishConflict:
            return "conflict"

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(attempt, rivals))
    assert sorted(outcomes) == ["conflict", "live"]
    live = [row.release_id for row in list_releases(workdir) if row.status == "live"]
    assert live == [rivals[outcomes.index("live")].release_id]


def test_a_reader_sees_one_live_release_while_others_are_published(spark: SparkSession, tmp_path: Path) -> None:
    workdir = Workdir(str(tmp_path))
    publish(spark, workdir, RELEASE)
    is_over, seen = Event(), []

    def read() -> None:
        while not is_over.is_set():
            seen.append([row.release_id for row in list_releases(workdir) if row.status == "live"])

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        for number in (2, 3, 4):
            publish(spark, workdir, replace(RELEASE, release_id=f"r-{number}", parent_release=f"r-{number - 1}"))
        is_over.set()
        reader.result()
    assert {len(names) for names in seen} == {1}
    order = [name for (name,) in seen]
    assert order == sorted(order), "and never an older one again"
    assert len(set(order)) > 1


def test_a_release_as_json_has_its_gates_as_objects() -> None:
    document = RELEASE.as_dict()
    assert document["gates"] == {"health": {"gini": 0.25}}
    assert document["facts"] == {"seconds": 1.5}
    assert document["created_at"] == "2024-01-02T03:04:05"


def in_spark(spark: SparkSession, workdir: Workdir) -> list[Release]:
    rows = workdir.read(spark, "releases").orderBy(F.desc("created_at"), "release_id").collect()
    return [Release(**row.asDict()) for row in rows]


@pytest.mark.parametrize("deletion_vectors", [False, True])
def test_reading_without_a_jvm_equals_sparks(spark: SparkSession, tmp_path: Path, deletion_vectors: bool) -> None:
    """Over a dozen commits, with a checkpoint among them, and whatever the way in which rows are deleted."""
    workdir = Workdir(str(tmp_path))
    publish(spark, workdir, RELEASE)
    value = str(deletion_vectors).lower()
    spark.sql(
        f"ALTER TABLE delta.`{workdir.table('releases')}` SET TBLPROPERTIES"
        f" ('delta.enableDeletionVectors' = {value}, 'delta.checkpointInterval' = 3)"
    )
    for number in range(2, 7):
        moment = RELEASE.created_at.replace(day=number, microsecond=678)
        release = replace(RELEASE, release_id=f"r-{number}", created_at=moment, parent_release=f"r-{number - 1}")
        publish(spark, workdir, release)
    DeltaTable.forPath(spark, workdir.table("releases")).delete("release_id = 'r-2'")
    rollback(spark, workdir)
    assert list((tmp_path / "tables/releases/_delta_log").glob("*.checkpoint*.parquet"))
    if deletion_vectors:
        assert list((tmp_path / "tables/releases").glob("deletion_vector*"))
    found = list_releases(workdir)
    assert found == in_spark(spark, workdir)
    assert {row.release_id: row.status for row in found} == {
        "r-1": "retired", "r-3": "retired", "r-4": "retired", "r-5": "live", "r-6": "retired",
    }  # fmt: skip


def test_a_table_older_than_its_columns_is_read_and_written(spark: SparkSession, tmp_path: Path) -> None:
    """What a release knows stood under gates once, and nothing said what serves it."""
    workdir = Workdir(str(tmp_path))
    younger = ("bundle_sha256", "alpha", "learned", "facts", "nodes")
    older = {name: kind for name, kind in SCHEMAS["releases"].items() if name not in younger}
    gates = {"health": {"gini": 0.25}, "alpha": 0.5, "learned": ["all"], "seconds": 1.5}
    row = tuple((vars(RELEASE) | {"gates": json.dumps(gates)})[name] for name in older)
    workdir.append(small_frame(spark, [row], older), "releases")
    found = live_release(workdir)
    assert found is not None
    assert (found.bundle_sha256, found.alpha, found.learned) == (None, 0.5, ["all"])
    assert found.space == PathSpace.even(10, 2)
    assert found.as_dict()["nodes"] == [10, 10]
    assert json.loads(found.facts)["seconds"] == 1.5
    newer = replace(RELEASE, release_id="r-2", parent_release="r-1", bundle_sha256="12", nodes=[10, 4, 3], D=3)
    publish(spark, workdir, newer)
    nodes = {row.release_id: row.space.nodes for row in list_releases(workdir)}
    assert nodes == {"r-1": (10, 10), "r-2": (10, 4, 3)}
    assert {row.release_id: (row.status, row.bundle_sha256) for row in list_releases(workdir)} == {
        "r-1": ("retired", None), "r-2": ("live", "12"),
    }  # fmt: skip


def test_a_table_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    log = tmp_path / "tables/releases/_delta_log"
    log.mkdir(parents=True)
    (log / f"{0:020}.json").write_text("not a commit")
    with pytest.raises(InputError, match="tables/releases cannot be read"):
        list_releases(Workdir(str(tmp_path)))
