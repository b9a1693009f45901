"""Starting anew in a work folder: nothing goes before what takes its place is known to be readable."""

from __future__ import annotations

import logging

from pyspark.sql import SparkSession

from dr_core.errors import ConfigError, InputError
from pipelines.config.run import RunConfig
from pipelines.datasets.interactions import read_catalogue, read_logs, resolve
from pipelines.datasets.rawframe import reading
from pipelines.storage.releases import live_release
from pipelines.storage.workdir import Workdir

logger = logging.getLogger(__name__)
OWNED = ("tables", "models", "runs", "report", "raw", "seeds")
"""Folders below W that a run writes."""
PREVIOUS = "previous"
"""Folder below W of what a fresh run takes the place of, until it is finished."""


def refuse_unreadable(
    spark: SparkSession, config: RunConfig, workdir: Workdir, logs: str | None, catalogue: str | None
) -> None:
    """Check that the log and the catalogue are there, have their columns and hold rows; nothing is written.

    Raises:
        InputError: one of them cannot be read.
        ConfigError: one of them lies in a folder that a fresh start replaces.
    """
    for path in (logs or config.dataset.path, catalogue or config.dataset.catalogue):
        folder = next((name for name in OWNED if path and Workdir(path).uri.startswith(workdir.path(name) + "/")), None)
        if folder:
            raise ConfigError(f"{path} lies in {workdir.path(folder)}, which --fresh replaces: move it elsewhere first")
    if config.dataset.format == "synthetic" and not (logs or config.dataset.path):
        return
    dataset = resolve(config.dataset, logs=logs, catalogue=catalogue)
    with reading(str(dataset.path), "log"):
        if read_logs(spark, dataset).isEmpty():
            raise InputError(f"the log {dataset.path} holds no rows")
    with reading(str(dataset.catalogue), "catalogue"):
        items = read_catalogue(spark, dataset)
        if items is not None:
            items.isEmpty()


def set_aside(spark: SparkSession, workdir: Workdir) -> None:
    """Move what a run wrote to ``previous/`` if a release of it is live, else delete it; the lease stays.

    What an earlier fresh start set aside stays there until a run that has gone live takes its place.
    """
    is_live = live_release(workdir) is not None
    if is_live and workdir.exists(PREVIOUS):
        workdir.filesystem.rm(workdir.path(PREVIOUS), recursive=True)
    for name in OWNED:
        if not workdir.exists(name):
            continue
        paths = [workdir.path(name)]
        if name == "runs":
            listed = workdir.filesystem.ls(workdir.path(name), detail=False)
            paths = [workdir.path(name, path.rsplit("/", 1)[-1]) for path in listed if not path.endswith(".lease")]
        for path in paths:
            if is_live:
                target = workdir.path(PREVIOUS, path.removeprefix(workdir.path("")).lstrip("/"))
                workdir.filesystem.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
                workdir.filesystem.mv(path, target, recursive=True)
            else:
                workdir.filesystem.rm(path, recursive=True)
    if is_live:
        logger.info("what %s held is kept in %s until this run is finished", workdir.uri, workdir.path(PREVIOUS))


def drop_previous(workdir: Workdir) -> None:
    """Delete what a fresh start had set aside."""
    if workdir.exists(PREVIOUS):
        workdir.filesystem.rm(workdir.path(PREVIOUS), recursive=True)
