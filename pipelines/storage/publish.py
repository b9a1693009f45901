"""Publishing: a release is written, or changes places with another, in one commit."""

from __future__ import annotations

from dataclasses import replace

from delta.tables import DeltaTable
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from dr_core.errors import InputError, PublishConflict
from pipelines.storage.faults import reach
from pipelines.storage.releases import Release, find_release, list_releases, live_release
from pipelines.storage.schemas import SCHEMAS
from pipelines.storage.workdir import Workdir, small_frame

CONFLICT = "another release is live"


def publish(spark: SparkSession, workdir: Workdir, release: Release) -> Release:
    """Write a release in one commit; publishing the same release again changes nothing but what it is served from.

    A release asked to go live takes the place of its parent, which is retired in the same commit. One without a parent
    (day one) that finds another live release becomes a candidate: it never overwrites.

    Raises:
        PublishConflict: the live release is not the parent; nothing was changed.
    """
    rows = list_releases(workdir)
    existing = next((row for row in rows if row.release_id == release.release_id), None)
    if existing is not None and (existing.status == release.status or release.parent_release is None):
        if existing.bundle_sha256 == release.bundle_sha256:
            return existing
        served_anew = replace(existing, bundle_sha256=release.bundle_sha256)
        live = next((row.release_id for row in rows if row.status == "live"), None)
        _commit(spark, workdir, served_anew, expected_live=live)
        return served_anew
    if release.status == "live" and release.parent_release is None and any(row.status == "live" for row in rows):
        release = replace(release, status="candidate")
    if not rows:
        reach("publish:before")
        workdir.append(_frame(spark, [release]), "releases")
    else:
        _commit(spark, workdir, release, expected_live=release.parent_release)
    reach("publish:after")
    return release


def promote(spark: SparkSession, workdir: Workdir, release_id: str) -> Release:
    """Make a release live and retire the one that is; nothing is built again.

    Raises:
        InputError: there is no such release, or its data were deleted.
        PublishConflict: another release went live meanwhile.
    """
    release = find_release(workdir, release_id)
    if release.status == "deleted":
        raise InputError(f"{release_id}: its tables and model were deleted by maintenance; choose another release")
    live = live_release(workdir)
    if live is not None and live.release_id == release_id:
        return live
    chosen = replace(release, status="live")
    _commit(spark, workdir, chosen, expected_live=live.release_id if live else None)
    return chosen


def rollback(spark: SparkSession, workdir: Workdir) -> Release:
    """Make the live release's parent live again.

    Raises:
        InputError: nothing is live, or the live release has no parent.
    """
    live = find_release(workdir, None)
    if live.parent_release is None:
        raise InputError(f"{live.release_id} is the first release: there is none to go back to")
    return promote(spark, workdir, live.parent_release)


def _commit(spark: SparkSession, workdir: Workdir, release: Release, *, expected_live: str | None) -> None:
    """Insert or update a release and, when it goes live, retire the live one: one Delta commit.

    The commit itself fails if another release than ``expected_live`` is live in the snapshot it changes; of two commits
    at once Delta lets one through.
    """
    goes_live = release.status == "live"
    source = _frame(spark, [release]).withColumn("retires", F.lit(False))
    if goes_live:
        source = source.unionByName(source.withColumn("retires", F.lit(True)))
    is_expected = F.lit(False) if expected_live is None else F.col("old.release_id") == expected_live
    other = F.raise_error(F.concat(F.lit(f"{CONFLICT}: live is "), F.col("old.release_id"))).cast("string")
    matched = (
        "(new.retires AND old.status = 'live' AND old.release_id <> new.release_id)"
        " OR (NOT new.retires AND old.release_id = new.release_id)"
    )
    values: dict[str, str | Column] = {name: F.col(f"new.{name}") for name in SCHEMAS["releases"]}
    reach("publish:before")
    reach("publish:inside", after=0.5)
    try:
        (
            DeltaTable.forPath(spark, workdir.table("releases"))
            .alias("old")
            .merge(source.alias("new"), matched)
            .withSchemaEvolution()  # of a table that lacks a column that releases have got since
            .whenMatchedUpdate("new.retires", {"status": F.when(is_expected, F.lit("retired")).otherwise(other)})
            .whenMatchedUpdate(set=values)
            .whenNotMatchedInsert("NOT new.retires", values)
            .execute()
        )
    except Exception as error:
        if CONFLICT not in str(error) and "DELTA_CONCURRENT" not in str(error):
            raise
        raise PublishConflict(
            f"{release.release_id} was not published: another release than {expected_live} is live or was being published;"
            " it is kept, and the same command takes it up again"
        ) from error


def _frame(spark: SparkSession, releases: list[Release]) -> DataFrame:
    schema = SCHEMAS["releases"]
    return small_frame(spark, [tuple(vars(release)[name] for name in schema) for release in releases], schema)
