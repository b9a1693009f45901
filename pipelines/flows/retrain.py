"""When the next full run is due."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from pyspark.sql import SparkSession

from pipelines.config.run import RunConfig
from pipelines.report.releases_page import write_releases_page
from pipelines.storage.releases import Release, ancestry, list_releases
from pipelines.storage.workdir import Workdir

NEW_ITEMS_DUE = 0.25
"""Share of items that came after the last full run, above which the next one is due."""
LOSING_RELEASES = 3
"""Releases in a row whose recall fell against the one before, after which a full run is due."""


def draw_releases(spark: SparkSession, workdir: Workdir, config: RunConfig) -> None:
    """Draw ``report/releases.html`` again from the ``releases`` table, with whether a full run is due."""
    releases = list_releases(workdir)
    if releases:
        write_releases_page(workdir, releases, retrain_due(releases, config))


def retrain_due(releases: Sequence[Release], config: RunConfig) -> str | None:
    """Return why a full run is due, or None.

    Due when the live release's first ancestor is older than ``refresh.full_retrain_days`` of events, when a quarter of
    the items came after it, or when three releases in a row lost recall against the one before them.
    """
    live = next((row for row in releases if row.status == "live"), None)
    if live is None:
        return None
    line = ancestry(list(releases), live)
    first = line[-1]
    if live.interval_end and first.interval_end:
        age = datetime.fromisoformat(live.interval_end) - datetime.fromisoformat(first.interval_end)
        if age.total_seconds() / 86400 > config.refresh.full_retrain_days:
            return f"the last full run is {age.days} days of events old (refresh.full_retrain_days)"
    added = 1 - first.num_items / live.num_items
    if added > NEW_ITEMS_DUE:
        return f"{added:.0%} of the items came after the last full run"
    newest = line[:LOSING_RELEASES]
    if len(newest) == LOSING_RELEASES and all(_lost_recall(row) for row in newest):
        return f"the last {LOSING_RELEASES} releases each lost recall against the one before"
    return None


def _lost_recall(release: Release) -> bool:
    """Return whether the whole interval of a release's difference in recall lies below 0."""
    quality = json.loads(release.gates).get("quality") or {}
    high = quality.get("high")
    return high is not None and high < 0
