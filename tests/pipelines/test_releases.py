"""Releases: one commit says what is live, and publishing never overwrites."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from delta.tables import DeltaTable
from pyspark.sql import SparkSession

from dr_core.errors import InputError
from pipelines.releases import Release, find_release, list_releases, live_release, publish
from pipelines.tables import Workdir

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

    newer = replace(RELEASE, release_id="r-2", created_at=datetime(2024, 2, 1), parent_release="r-1")
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


def test_a_release_as_json_has_its_gates_as_objects() -> None:
    document = RELEASE.as_dict()
    assert document["gates"] == {"health": {"gini": 0.25}}
    assert document["created_at"] == "2024-01-02T03:04:05"
