"""Releases: one row says what is live. Reading them takes no JVM; :mod:`pipelines.storage.publish` writes them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from dr_core.errors import InputError
from dr_core.paths.space import PathSpace
from pipelines.storage import delta_reader
from pipelines.storage.files import Files


@dataclass(frozen=True)
class Release:
    """A row of ``releases``; ``status`` is live, candidate, refused, retired or deleted."""

    release_id: str
    status: str
    interval_start: str | None
    interval_end: str | None
    parent_release: str | None
    model_uri: str
    model_sha256: str
    K: int
    """Nodes of the first layer."""
    D: int
    J: int
    num_items: int
    config_hash: str
    gates: str
    """JSON: health, quality and the gates' verdicts."""
    created_at: datetime
    """UTC, without a zone."""
    bundle_sha256: str | None = None
    """Of the manifest of what serves the release; none in releases that are older than bundles."""
    alpha: float | None = None
    """Weight of the penalty that its paths were found with; none where no descent ran."""
    learned: list[str] = field(default_factory=list)
    """Intervals whose events it learned, ``all`` for a whole log; its ancestors' not among them."""
    facts: str = "{}"
    """JSON: what else its run counted (seconds, items moved and placed, late events)."""
    nodes: list[int] | None = None
    """Of each layer; none in releases that are older than layers of different sizes: all of theirs have K."""

    @property
    def space(self) -> PathSpace:
        """The space of its paths."""
        return PathSpace(tuple(self.nodes)) if self.nodes else PathSpace.even(self.K, self.D)

    def as_dict(self) -> dict[str, Any]:
        """Return the row with its gates and facts as objects, ready for JSON."""
        return {
            **vars(self),
            "nodes": list(self.space.nodes),
            "gates": json.loads(self.gates),
            "facts": json.loads(self.facts),
            "created_at": self.created_at.isoformat(),
        }


def list_releases(folder: Files) -> list[Release]:
    """Return all releases, newest first; none where nothing was published yet."""
    rows = delta_reader.read_rows(folder.path("tables", "releases"), "ORDER BY created_at DESC, release_id")
    return [_release(row) for row in rows]


def _release(row: dict[str, Any]) -> Release:
    values = {part.name: row[part.name] for part in fields(Release) if part.name in row}
    if values.get("facts") is None:  # published when all that a release knows stood under gates
        known = json.loads(values["gates"])
        values |= {"alpha": known.pop("alpha", None), "learned": known.pop("learned", []), "facts": json.dumps(known)}
    return Release(**values)


def live_release(folder: Files) -> Release | None:
    """Return the live release, or None before the first."""
    return next((release for release in list_releases(folder) if release.status == "live"), None)


def has_release(folder: Files, run_id: str) -> bool:
    """Tell whether a run has made a release that was not refused and is still there."""
    return any(
        row.release_id.rpartition("-")[0] == run_id and row.status not in ("refused", "deleted")
        for row in list_releases(folder)
    )


def find_release(folder: Files, release_id: str | None) -> Release:
    """Return a release by id, or the live one.

    Raises:
        InputError: there is none.
    """
    for release in list_releases(folder):
        if release.release_id == release_id or (release_id is None and release.status == "live"):
            return release
    wanted = f"release {release_id}" if release_id else "no live release"
    raise InputError(
        f"{folder.uri}: {wanted} {'is not here' if release_id else 'yet'}: see `dr releases list --workdir {folder.uri}`"
    )


def ancestry(rows: list[Release], release: Release) -> list[Release]:
    """Return a release, its parent, and so on to the first."""
    by_id = {row.release_id: row for row in rows}
    line = [release]
    while line[-1].parent_release in by_id:
        line.append(by_id[line[-1].parent_release])
    return line


def lineage(rows: list[Release], release: Release) -> list[Release]:
    """Return a release, the one it was learned on (its parent, unless it corrected a day), and so on to the first."""
    by_id = {row.release_id: row for row in rows}
    line = [release]
    while (base := json.loads(line[-1].facts).get("base", line[-1].parent_release)) in by_id:
        line.append(by_id[base])
    return line


def learned_intervals(rows: list[Release], release: Release) -> set[str]:
    """Return the labels of all intervals whose events a release has learned, itself or through those it was learned on."""
    return {label for row in lineage(rows, release) for label in row.learned}
