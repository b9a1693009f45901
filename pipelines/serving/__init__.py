"""Serving a release: in this process without a JVM, or by Spark in batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.serving.service import Service


def open_release(workdir: str, release: str | None = None) -> Service:
    """Open a published release, by default the live one, for ``recommend`` and ``explain``.

    Args:
        workdir: W, a path or URI.
        release: id of a release.

    Raises:
        InputError: there is no such release, or it has no bundle.
        ReleaseMismatch: a file is not the one that was published.
    """
    from pipelines.serving.service import Service

    return Service(workdir, release)
