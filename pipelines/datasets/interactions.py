"""Logs of any shape (Parquet, CSV, JSON lines, Delta, MovieLens, Amazon, synthetic) as one raw frame, and catalogues
likewise."""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession

from dr_core.errors import InputError
from pipelines.datasets import amazon, movielens
from pipelines.datasets.dataset_config import DatasetConfig, FileConfig, Format
from pipelines.datasets.look import Look, look
from pipelines.datasets.paths import open_filesystem
from pipelines.datasets.preset import Preset
from pipelines.datasets.rawframe import CatalogueColumns, LogColumns, raw_catalogue, raw_logs
from pipelines.datasets.source_frames import TextOptions, read_frames
from pipelines.datasets.synthetic import CATALOGUE_FILE, LOGS_FILE
from pipelines.datasets.synthetic import write as write_synthetic

__all__ = ["DatasetConfig", "FileConfig", "Format", "read_catalogue", "read_logs", "resolve"]
SYNTHETIC_LOG_COLUMNS = LogColumns(
    user="user_id", item="item_id", time="timestamp", weight="watch_seconds", label="watch_ratio"
)
SYNTHETIC_CATALOGUE_COLUMNS = CatalogueColumns(
    item="item_id", title="title", category="category", creator="creator", active="active", first_seen="first_seen"
)


def resolve(
    config: DatasetConfig, *, logs: str | None = None, catalogue: str | None = None, scratch: str | None = None
) -> DatasetConfig:
    """Return the configuration with paths, a concrete format and its columns filled in, told from the log's contents.

    Columns that are configured win over what the contents are taken for.

    Args:
        config: as loaded.
        logs: overrides ``config.path``.
        catalogue: overrides ``config.catalogue``.
        scratch: folder into which synthetic logs are generated when the format is ``synthetic`` and no path is given.

    Raises:
        InputError: no path, a path that does not exist, contents of another format than configured, or an option that has
            no effect on this format.
    """
    path, catalogue_path = logs or config.path, catalogue or config.catalogue
    if config.format == "synthetic":
        return _resolve_synthetic(config, path, catalogue_path, scratch)
    if path is None:
        raise InputError("no log was named: give --logs PATH or set dataset.path")
    if config.format in ("auto", "movielens"):
        path = _ratings_file(path, is_needed=config.format == "movielens")
    options = _text_options(config)
    if config.format == "movielens":
        options = _movielens_options(path, movielens.NAMES, options)
    found = look(
        path,
        delimiter=options.delimiter,
        encoding=options.encoding,
        column_names=options.column_names,
        wanted=tuple(config.wanted_columns().values()),
        quoted=options.quoted,
        opens_tables=False,
    )
    preset = _preset(config, found)
    kind: Format = preset.format if preset else found.format
    if config.format not in ("auto", "movielens", "amazon", kind):
        raise InputError(
            f"the log {path} is {found.format} by its contents, but dataset.format is {config.format}: set"
            f" dataset.format={found.format}, or auto"
        )
    update: dict[str, object] = {"format": kind, "path": path, "catalogue": catalogue_path}
    if preset:
        update |= {"columns": preset.columns, "time_unit": preset.time_unit, "column_names": preset.column_names}
    if kind == "movielens":
        movies = path.replace("ratings.", "movies.")
        update["catalogue"] = catalogue_path or (movies if movies != path and _exists(movies) else None)
    config.refuse_idle(found.format, has_catalogue=catalogue_path is not None)
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
    path, columns = str(config.path), config.columns
    options = _text_options(config)
    if config.format == "movielens":
        options = _movielens_options(path, movielens.NAMES, options)
    only = tuple(config.wanted_columns().values()) if config.format == "amazon" else ()
    frames = read_frames(
        spark, path, "log", config.wanted_columns(), (columns.user, columns.item), options, json_keys=only
    )
    if columns.time is None and columns.order is None and config.unordered == "refuse":
        found = ", ".join(name for name in frames[0].columns if not name.startswith("_"))
        raise InputError(
            f"the log {path} has neither a time nor an order column (columns found: {found}); set"
            " dataset.columns.time or dataset.columns.order, or dataset.unordered=file_order to take rows as they stand"
        )
    return raw_logs(frames, path, columns, config.times, config.missing_ids)


def read_catalogue(spark: SparkSession, config: DatasetConfig) -> DataFrame | None:
    """Read a resolved catalogue as a raw frame of RAW_CATALOGUE_COLUMNS; None when there is none.

    It may be of another format than its log. Columns that are configured win over what the contents are taken for.

    Raises:
        InputError: missing file, missing column, unknown format, or no rows.
    """
    path = config.catalogue
    if path is None:
        return None
    columns = config.catalogue_columns
    options = _catalogue_options(config)
    only: tuple[str, ...] = ()
    if columns == CatalogueColumns() and config.format == "movielens":
        columns = movielens.CATALOGUE_COLUMNS
        options = _movielens_options(path, movielens.CATALOGUE_NAMES, options)
    found = look(
        path,
        "catalogue",
        delimiter=options.delimiter,
        encoding=options.encoding,
        column_names=options.column_names,
        wanted=[name for name in columns.model_dump().values() if name],
        quoted=options.quoted,
        opens_tables=False,
    )
    if config.catalogue_file.format not in ("auto", found.format):
        raise InputError(
            f"the catalogue {path} is {found.format} by its contents, but dataset.catalogue_file.format is"
            f" {config.catalogue_file.format}: set it to {found.format}, or auto"
        )
    if columns == CatalogueColumns() and config.format == "amazon":
        columns = amazon.catalogue_columns(found.names)
        only = tuple(name for name in columns.model_dump().values() if name)
    wanted = {
        f"dataset.catalogue_columns.{field}": name for field, name in columns.model_dump().items() if name is not None
    }
    frames = read_frames(spark, path, "catalogue", wanted, (columns.item,), options, json_keys=only)
    return raw_catalogue(frames, path, columns, config.times, config.missing_ids)


def _resolve_synthetic(
    config: DatasetConfig, path: str | None, catalogue: str | None, scratch: str | None
) -> DatasetConfig:
    if path is None:
        if scratch is None:
            raise InputError("dataset.format synthetic without a path needs a folder to generate into")
        path, generated_catalogue = write_synthetic(config.synthetic, scratch)
        catalogue = catalogue or generated_catalogue
    path = _pick_file(path, (LOGS_FILE,))
    items = path.replace(LOGS_FILE, CATALOGUE_FILE)
    update = {
        "path": path,
        "columns": SYNTHETIC_LOG_COLUMNS,
        "time_unit": "seconds",
        "catalogue_columns": SYNTHETIC_CATALOGUE_COLUMNS,
        "catalogue": catalogue or (items if items != path and _exists(items) else None),
    }
    return config.model_copy(update=update)


def _preset(config: DatasetConfig, found: Look) -> Preset | None:
    """Return what the log's columns mean when it is of a known data set, and the configuration does not say otherwise.

    Raises:
        InputError: the configured data set is not what the log holds, or has other columns than configured.
    """
    preset = found.preset
    if config.format in ("auto", "movielens", "amazon") and preset and config.format in ("auto", preset.format):
        contradiction = config.contradiction(preset)
        if contradiction is None:
            return preset
        if config.format == "auto":
            return None
        raise InputError(
            f"{contradiction}, but {preset.format} files say that themselves: leave it out, or set"
            f" dataset.format={found.format}"
        )
    if config.format == "movielens":
        raise InputError(
            f"the log {found.path} has columns {', '.join(found.names)}; MovieLens has {', '.join(movielens.NAMES)}: set"
            f" dataset.format={found.format} and dataset.columns to read it"
        )
    if config.format == "amazon":
        if set(config.column_names) == set(amazon.NAMES) and found.format == "csv":
            return Preset("amazon", amazon.CSV_COLUMNS, column_names=config.column_names)
        raise InputError(f"the log {found.path} {_not_amazon(found)}")
    return None


def _not_amazon(found: Look) -> str:
    names = ",".join(amazon.NAMES)
    if found.format == "json":
        return (
            f"has no keys reviewerID, asin, overall, unixReviewTime (nor user_id, parent_asin, rating, timestamp); keys found:"
            f" {', '.join(found.names)}: set dataset.format=json and dataset.columns to read it"
        )
    if found.has_header or len(found.names) != len(amazon.NAMES):
        return (
            f"has {len(found.names)} columns; Amazon ratings have {names} without a header: set"
            f" dataset.format={found.format} and dataset.columns to read it"
        )
    return (
        f"begins with {', '.join(found.rows[0])}: its ids do not tell which of the first two columns is the user (2014) and"
        f" which the item (2018: item first): set dataset.column_names=[{names}], or [item,user,rating,timestamp]"
    )


def _text_options(config: DatasetConfig) -> TextOptions:
    return TextOptions(config.delimiter, config.encoding, config.column_names, config.quote != "none")


def _catalogue_options(config: DatasetConfig) -> TextOptions:
    """Return how to read a catalogue's text: as configured for it, else like its log."""
    own = config.catalogue_file
    return TextOptions(
        own.delimiter or "auto",
        own.encoding or config.encoding,
        own.column_names,
        (own.quote or config.quote) != "none",
        "dataset.catalogue_file",
    )


def _movielens_options(path: str, names: tuple[str, ...], options: TextOptions) -> TextOptions:
    if not movielens.is_dat(path):
        return options
    return TextOptions("::", "iso8859-1", names, quoted=False)


def _ratings_file(path: str, *, is_needed: bool) -> str:
    """Return the ratings in a MovieLens folder; a folder without them as it is."""
    filesystem, root = open_filesystem(path)
    if not filesystem.isdir(root):
        return path
    for name in movielens.RATINGS_FILES:
        file = f"{path.rstrip('/')}/{name}"
        if filesystem.exists(f"{root.rstrip('/')}/{name}"):
            options = _movielens_options(file, movielens.NAMES, TextOptions())
            found = look(file, delimiter=options.delimiter, encoding=options.encoding, quoted=options.quoted)
            if is_needed or (found.preset and found.preset.format == "movielens"):
                return file
    if is_needed:
        raise InputError(f"the folder {path} holds none of {', '.join(movielens.RATINGS_FILES)}")
    return path


def _pick_file(path: str, names: tuple[str, ...]) -> str:
    """Return the path itself, or the first of the named files in it when it is a folder."""
    filesystem, root = open_filesystem(path)
    if not filesystem.exists(root):
        raise InputError(f"{path} does not exist")
    if not filesystem.isdir(root):
        return path
    for name in names:
        if filesystem.exists(f"{root.rstrip('/')}/{name}"):
            return f"{path.rstrip('/')}/{name}"
    raise InputError(f"the folder {path} holds none of {', '.join(names)}")


def _exists(path: str) -> bool:
    filesystem, root = open_filesystem(path)
    return bool(filesystem.exists(root))
