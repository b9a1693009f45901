"""Logs of any shape (Parquet, CSV, Delta, MovieLens, Amazon, synthetic) as one raw frame, and catalogues likewise."""

from __future__ import annotations

from typing import Literal

import fsspec
from pydantic import field_validator
from pyspark.sql import DataFrame, SparkSession

from dr_core.config import Config
from dr_core.errors import InputError
from pipelines.datasets import amazon, movielens
from pipelines.datasets.keys import MISSING_IDS
from pipelines.datasets.rawframe import (
    CatalogueColumns,
    LogColumns,
    list_columns,
    permissive_reader,
    raw_catalogue,
    raw_logs,
    read_source,
)
from pipelines.datasets.synthetic import CATALOGUE_FILE, LOGS_FILE, SyntheticConfig
from pipelines.datasets.synthetic import write as write_synthetic
from pipelines.datasets.times import TimeRule, TimeUnit, zone_of

Format = Literal["auto", "parquet", "csv", "delta", "movielens", "amazon", "synthetic"]
SYNTHETIC_LOG_COLUMNS = LogColumns(
    user="user_id", item="item_id", time="timestamp", weight="watch_seconds", label="watch_ratio"
)
SYNTHETIC_CATALOGUE_COLUMNS = CatalogueColumns(
    item="item_id", title="title", category="category", creator="creator", active="active", first_seen="first_seen"
)


class DatasetConfig(Config):
    """Where the logs are and what their columns mean."""

    format: Format = "auto"
    """File format. ``auto`` tells it from the file's name; ``movielens`` and ``amazon`` read the original files and
    know their columns; ``synthetic`` generates logs when no path is given."""
    path: str | None = None
    """URI of the log (a file or folder); ``--logs`` overrides it."""
    catalogue: str | None = None
    """URI of the catalogue, optional; ``--catalogue`` overrides it."""
    columns: LogColumns = LogColumns()
    """Column names of the log (formats parquet, csv, delta)."""
    catalogue_columns: CatalogueColumns = CatalogueColumns()
    """Column names of the catalogue (formats parquet, csv, delta)."""
    time_unit: TimeUnit = "seconds"
    """Unit of numeric times; ``timestamp`` for ISO text. Never guessed: a wrong guess would move every event."""
    time_format: str | None = None
    """Pattern of times that are no ISO text, also of numbers such as 20240131, as Spark writes it: ``yyyyMMdd``,
    ``dd.MM.yyyy HH:mm``, ``EEE MMM dd HH:mm:ss Z yyyy``. It goes before ``time_unit``."""
    time_zone: str = "UTC"
    """Zone of times that name none (``Europe/Berlin``, ``-05:00``), and of ``--start`` and ``--end`` without an offset."""
    missing_ids: tuple[str, ...] = MISSING_IDS
    """Texts in a column of ids that mean "none"; such rows are quarantined as ``null_user`` or ``null_item``."""
    unordered: Literal["refuse", "file_order"] = "refuse"
    """What to do with a log that has neither time nor order: refuse it, or take the rows' order in the files as the
    order."""
    delimiter: str = ","
    """Field separator of CSV logs and catalogues, which must have a header."""
    synthetic: SyntheticConfig = SyntheticConfig()
    """What the ``synthetic`` format generates."""

    @field_validator("time_zone")
    @classmethod
    def _check_zone(cls, name: str) -> str:
        zone_of(name)
        return name

    @property
    def times(self) -> TimeRule:
        """How times are read."""
        return TimeRule(self.time_unit, self.time_format, self.time_zone)

    @property
    def has_time(self) -> bool:
        """Tell whether events of this (resolved) log have a time."""
        return self.columns.time is not None


def resolve(
    config: DatasetConfig, *, logs: str | None = None, catalogue: str | None = None, scratch: str | None = None
) -> DatasetConfig:
    """Return the configuration with paths, a concrete format and its columns filled in.

    Args:
        config: as loaded.
        logs: overrides ``config.path``.
        catalogue: overrides ``config.catalogue``.
        scratch: folder into which synthetic logs are generated when the format is ``synthetic`` and no path is given.

    Raises:
        InputError: no path, a path that does not exist, a format that cannot be told, or a log without time and order.
    """
    path, catalogue_path = logs or config.path, catalogue or config.catalogue
    if config.format == "synthetic" and path is None:
        if scratch is None:
            raise InputError("dataset.format synthetic without a path needs a folder to generate into")
        path, generated_catalogue = write_synthetic(config.synthetic, scratch)
        catalogue_path = catalogue_path or generated_catalogue
    if path is None:
        raise InputError("no log was named: give --logs PATH or set dataset.path")
    kind = _detect_format(path) if config.format == "auto" else config.format
    update: dict[str, object] = {"format": kind, "path": path, "catalogue": catalogue_path}
    if kind == "movielens":
        path = _pick_file(path, ("ratings.csv", "ratings.dat"))
        movies = path.replace("ratings.", "movies.")
        update |= {"path": path, "columns": movielens.LOG_COLUMNS, "time_unit": "seconds"}
        update["catalogue"] = catalogue_path or (movies if movies != path and _exists(movies) else None)
    elif kind == "amazon":
        update |= {"columns": amazon.log_columns(path), "time_unit": "seconds"}
    elif kind == "synthetic":
        path = _pick_file(path, (LOGS_FILE,))
        items = path.replace(LOGS_FILE, CATALOGUE_FILE)
        update |= {"path": path, "columns": SYNTHETIC_LOG_COLUMNS, "time_unit": "seconds"}
        update["catalogue_columns"] = SYNTHETIC_CATALOGUE_COLUMNS
        update["catalogue"] = catalogue_path or (items if items != path and _exists(items) else None)
    return config.model_copy(update=update)


def read_logs(spark: SparkSession, config: DatasetConfig) -> DataFrame:
    """Read a resolved log as the raw frame of :data:`pipelines.datasets.rawframe.RAW_LOG_COLUMNS`.

    All columns are nullable and un-cleaned. A log without time and order has no order but that of its files; it is
    refused unless ``unordered: file_order``.

    Raises:
        InputError: missing file, missing column, unknown format, no rows, or a log without order.
    """
    if config.path is None or config.format == "auto":
        config = resolve(config)
    path = str(config.path)
    if config.format == "movielens":
        return movielens.read_logs(spark, path)
    if config.format == "amazon":
        return amazon.read_logs(spark, path)
    source = _read_table(spark, path, "log", config)
    logs = raw_logs(source, path, config.columns, config.times, config.missing_ids)
    if config.columns.time is None and config.columns.order is None and config.unordered == "refuse":
        raise InputError(
            f"the log {path} has neither a time nor an order column (columns found: {list_columns(source)}); set"
            " dataset.columns.time or dataset.columns.order, or dataset.unordered=file_order to take rows as they stand"
        )
    return logs


def read_catalogue(spark: SparkSession, config: DatasetConfig) -> DataFrame | None:
    """Read a resolved catalogue as a raw frame of RAW_CATALOGUE_COLUMNS; None when there is none. Raises InputError."""
    if config.catalogue is None:
        return None
    if config.format == "movielens":
        return movielens.read_catalogue(spark, config.catalogue)
    if config.format == "amazon":
        return amazon.read_catalogue(spark, config.catalogue)
    source = _read_table(spark, config.catalogue, "catalogue", config)
    return raw_catalogue(source, config.catalogue, config.catalogue_columns, config.times, config.missing_ids)


def _read_table(spark: SparkSession, path: str, what: str, config: DatasetConfig) -> DataFrame:
    """Read Parquet, Delta or CSV (with a header, all fields text); a catalogue may be of another of these formats
    than its log."""
    kind = _detect_format(path) if what == "catalogue" else config.format
    if kind == "delta":
        return read_source(path, what, lambda: spark.read.format("delta").load(path))
    if kind == "csv":
        header = read_source(path, what, lambda: spark.read.csv(path, header=True, sep=config.delimiter))
        reader = permissive_reader(spark, ", ".join(f"`{name}` string" for name in header.columns[:-3]))
        return read_source(path, what, lambda: reader.csv(path, header=True, sep=config.delimiter, escape='"'))
    if kind in ("parquet", "synthetic"):
        return read_source(path, what, lambda: spark.read.parquet(path))
    raise InputError(f"the {what} {path} has format {kind}; a {what} may be parquet, csv or delta")


def _detect_format(path: str) -> Format:
    """Tell the format from names; the folder's contents where the path is a folder."""
    filesystem, root = fsspec.core.url_to_fs(path)
    if not filesystem.exists(root):
        raise InputError(f"{path} does not exist")
    name = root.rstrip("/").rsplit("/", 1)[-1]
    names = [name]
    if filesystem.isdir(root):
        names = [entry.rstrip("/").rsplit("/", 1)[-1] for entry in filesystem.ls(root, detail=False)]
        if "_delta_log" in names:
            return "delta"
    if {"ratings.dat", "ratings.csv"} & set(names):
        return "movielens"
    stems = {entry.removesuffix(".gz") for entry in names if not entry.startswith(("_", "."))}
    if not stems:
        raise InputError(f"the folder {path} is empty")
    if any(stem.startswith("ratings_") and stem.endswith(".csv") for stem in stems) or all(
        stem.endswith((".json", ".jsonl")) for stem in stems
    ):
        return "amazon"
    if all(stem.endswith(".csv") for stem in stems):
        return "csv"
    if all(stem.endswith(".parquet") or "=" in stem for stem in stems):
        return "parquet"
    raise InputError(
        f"the format of {path} cannot be told from its name (.parquet, .csv, .json, ratings.dat): set dataset.format"
    )


def _pick_file(path: str, names: tuple[str, ...]) -> str:
    """Return the path itself, or the first of the named files in it when it is a folder."""
    filesystem, root = fsspec.core.url_to_fs(path)
    if not filesystem.exists(root):
        raise InputError(f"{path} does not exist")
    if not filesystem.isdir(root):
        return path
    for name in names:
        if filesystem.exists(f"{root.rstrip('/')}/{name}"):
            return f"{path.rstrip('/')}/{name}"
    raise InputError(f"the folder {path} holds none of {', '.join(names)}")


def _exists(path: str) -> bool:
    filesystem, root = fsspec.core.url_to_fs(path)
    return bool(filesystem.exists(root))
