"""Releases: one row, written in one commit, says what is live."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from dr_core.errors import InputError
from pipelines.tables import SCHEMAS, Workdir


@dataclass(frozen=True)
class Release:
    """A row of ``releases``; ``status`` is live, candidate, refused or retired."""

    release_id: str
    status: str
    interval_start: str | None
    interval_end: str | None
    parent_release: str | None
    model_uri: str
    model_sha256: str
    K: int
    D: int
    J: int
    num_items: int
    config_hash: str
    gates: str
    created_at: datetime

    def as_dict(self) -> dict[str, Any]:
        """Return the row with its gates as objects, ready for JSON."""
        return {**vars(self), "gates": json.loads(self.gates), "created_at": self.created_at.isoformat()}


def list_releases(spark: SparkSession, workdir: Workdir) -> list[Release]:
    """Return all releases, newest first."""
    if not workdir.has_table(spark, "releases"):
        return []
    rows = workdir.read(spark, "releases").orderBy(F.desc("created_at"), "release_id").collect()
    return [Release(**row.asDict()) for row in rows]


def live_release(spark: SparkSession, workdir: Workdir) -> Release | None:
    """Return the live release, or None before the first."""
    return next((release for release in list_releases(spark, workdir) if release.status == "live"), None)


def find_release(spark: SparkSession, workdir: Workdir, release_id: str | None) -> Release:
    """Return a release by id, or the live one.

    Raises:
        InputError: there is none.
    """
    for release in list_releases(spark, workdir):
        if release.release_id == release_id or (release_id is None and release.status == "live"):
            return release
    wanted = f"release {release_id}" if release_id else "no live release"
    raise InputError(
        f"{workdir.uri}: {wanted} {'is not here' if release_id else 'yet'}: see `dr releases list --workdir {workdir.uri}`"
    )


def publish(spark: SparkSession, workdir: Workdir, release: Release) -> Release:
    """Write a release in one commit; publishing the same release again changes nothing.

    A release asked to go live while another one is live becomes a candidate: it never overwrites.
    """
    others = [row for row in list_releases(spark, workdir) if row.release_id != release.release_id]
    existing = [row for row in list_releases(spark, workdir) if row.release_id == release.release_id]
    if existing:
        return existing[0]
    if release.status == "live" and any(row.status == "live" for row in others):
        release = Release(**{**vars(release), "status": "candidate"})
    columns = list(SCHEMAS["releases"])
    schema = ", ".join(f"{name} {kind}" for name, kind in SCHEMAS["releases"].items())
    frame = spark.createDataFrame([tuple(vars(release)[name] for name in columns)], schema)
    workdir.append(frame, "releases")
    return release
