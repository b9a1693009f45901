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

from dr_core.errors import InputError, PublishConflict
from pipelines.storage.releases import (
    Release,
    ancestry,
    find_release,
    learned_intervals,
    list_releases,
    live_release,
    promote,
    publish,
    rollback,
)
from pipelines.storage.workdir import Workdir

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
)


def test_publishing(spark: SparkSession, tmp_path: Path) -> None:
    """One folder, step by step: Delta commits are what this test spends its time on."""
    workdir = Workdir(str(tmp_path))
    assert list_releases(spark, workdir) == []
    assert live_release(spark, workdir) is None
    with pytest.raises(InputError, match="no live release yet"):
        find_release(spark, workdir, None)

    published = publish(spark, workdir, RELEASE)
    assert published == RELEASE == live_release(spark, workdir), "every value comes back as it was"
    assert find_release(spark, workdir, None) == RELEASE

    again = publish(spark, workdir, replace(RELEASE, status="candidate", num_items=1))
    assert again == RELEASE, "publishing the same release again changes nothing"
    assert len(DeltaTable.forPath(spark, workdir.table("releases")).history().collect()) == 1

    newer = replace(RELEASE, release_id="r-2", created_at=datetime(2024, 2, 1))
    assert publish(spark, workdir, newer).status == "candidate", "a live release is never overwritten"
    assert live_release(spark, workdir) == RELEASE
    assert publish(spark, workdir, newer).status == "candidate"

    refused = replace(RELEASE, release_id="r-3", status="refused", created_at=datetime(2024, 1, 15))
    assert publish(spark, workdir, refused).status == "refused"
    assert [row.release_id for row in list_releases(spark, workdir)] == ["r-2", "r-3", "r-1"], "newest first"
    assert len(DeltaTable.forPath(spark, workdir.table("releases")).history().collect()) == 3, "one commit each"

    assert find_release(spark, workdir, "r-3").status == "refused"
    with pytest.raises(InputError, match="release r-9 is not here"):
        find_release(spark, workdir, "r-9")


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
            gates=json.dumps({"learned": [f"day {number}"]}),
        )

    def statuses() -> dict[str, str]:
        return {row.release_id: row.status for row in list_releases(spark, workdir)}

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
    rows = list_releases(spark, workdir)
    assert [row.release_id for row in ancestry(rows, rows[0])] == ["r-3", "r-2", "r-1"]
    assert learned_intervals(rows, rows[0]) == {"day 2", "day 3"}

    assert rollback(spark, workdir).release_id == "r-2"
    assert statuses() == {"r-1": "retired", "r-2": "live", "r-3": "retired"}
    assert learned_intervals(rows, rows[1]) == {"day 2"}
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
    live = [row.release_id for row in list_releases(spark, workdir) if row.status == "live"]
    assert live == [rivals[outcomes.index("live")].release_id]


def test_a_reader_sees_one_live_release_while_others_are_published(spark: SparkSession, tmp_path: Path) -> None:
    workdir = Workdir(str(tmp_path))
    publish(spark, workdir, RELEASE)
    is_over, seen = Event(), []

    def read() -> None:
        while not is_over.is_set():
            seen.append([row.release_id for row in list_releases(spark, workdir) if row.status == "live"])

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
    assert document["created_at"] == "2024-01-02T03:04:05"
