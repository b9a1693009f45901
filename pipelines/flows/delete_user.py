"""The removal of one user's rows, wherever they stand."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from delta.tables import DeltaTable
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.datasets import amazon, movielens
from pipelines.datasets.interactions import SYNTHETIC_LOG_COLUMNS
from pipelines.evaluation.users import load_users
from pipelines.flows.fresh import PREVIOUS
from pipelines.flows.retention import vacuum
from pipelines.report.build import redraw
from pipelines.serving.given_keys import spellings
from pipelines.stages.ingest.preprocess import SETTLED
from pipelines.storage.files import files_below
from pipelines.storage.lease import lease
from pipelines.storage.run_record import run_records
from pipelines.storage.samples_format import SAMPLE_TABLES
from pipelines.storage.workdir import Workdir

logger = logging.getLogger(__name__)
USER_TABLES = (
    "interactions",
    "seen_items",
    "user_histories",
    "recommendations",
    "evaluation_users",
    "evaluation_histories",
)
"""Roles and cut histories go last: they say which rows of the files before them are the user's."""
WHOLE_NUMBER = re.compile(r"-?(0|[1-9]\d{0,14})")
"""A user that a float can stand for."""
Arrays = dict[str, np.ndarray[Any, Any]]


def delete_user(spark: SparkSession, workdir: Workdir, user: str, *, vacuum_now: bool = False) -> dict[str, int]:
    """Remove one user from a work folder, from what a fresh start has set aside in it, and from the folders of further seeds.

    Rows of the user go from interactions, seen items, histories, roles, samples, quarantine, recommendations, generated
    logs, the validation batch and what was measured of the test users. What a killed ingest or write left half done goes
    as a whole, as does the example in the report when the user is its test user. Malformed lines go where they contain
    the user's name.

    The user may be given as the log has it: where no table knows ``7.0``, the rows of ``7`` go, and the other way round.

    Sums over many users (scores, N_v) and models are not changed: they forget with the next full run. Files that held
    the rows go with the next VACUUM, or at once with ``vacuum_now`` (readers of old table versions then fail).

    Returns:
        Rows removed by table or kind of file.

    Raises:
        TryAgain: a run or refresh holds the folder.
        InputError: a run's record cannot be read.
    """
    removed: Counter[str] = Counter()
    with lease(workdir, "run"):
        for place in _places(workdir):
            name = _stored_name(spark, place, user)
            _delete_unfinished(place)
            removed.update(_delete_from_evaluation(spark, place, name))
            removed.update(_delete_from_tables(spark, place, name))
            if vacuum_now and place.exists("tables"):
                vacuum(spark, place, 0.0)
    if not removed.total():
        logger.warning("%s holds no row of user %r", workdir.uri, user)
    return dict(removed)


def _stored_name(spark: SparkSession, workdir: Workdir, user: str) -> str:
    """Return the name under which a work folder's tables hold a user: the given one, else another spelling of it."""
    names = [*spellings(user), *([f"{user}.0"] if WHOLE_NUMBER.fullmatch(user) else [])]
    if len(names) == 1:
        return user
    tables = [workdir.read(spark, name) for name in (*USER_TABLES, "quarantine") if workdir.has_table(spark, name)]
    users = [rows.where(F.col("user").isin(names)).select("user") for rows in tables if "user" in rows.columns]
    held = {row.user for row in reduce(DataFrame.union, users).distinct().collect()} if users else set()
    return next((name for name in names if name in held), user)


def _places(workdir: Workdir) -> list[Workdir]:
    """Return the work folder, what a fresh start has set aside in it, and the folders of the further seeds of both."""
    whole = [workdir, workdir.below(PREVIOUS)]
    return [*whole, *(place.below("seeds", seed) for place in whole for seed in place.names("seeds"))]


def _delete_unfinished(workdir: Workdir) -> None:
    """Remove what killed programs left: the rows of an ingest, and files that were not yet in their place."""
    workdir.remove(*SETTLED)
    for folder in ("report", "models", "runs"):
        for path in files_below(workdir.filesystem, workdir.path(folder), ".tmp"):
            workdir.check_lease()
            workdir.filesystem.rm(path)


def _delete_from_evaluation(spark: SparkSession, workdir: Workdir, user: str) -> dict[str, int]:
    """Remove a held-out user from the report, from the validation batch, and from what was measured a user."""
    if not workdir.has_table(spark, "evaluation_histories"):
        return {}
    removed = {"validation": 0, "measured": 0}
    validation, test = (load_users(spark, workdir, role) for role in ("validation", "test"))
    if user in validation.users:
        place = validation.users.index(user)
        asked, truth = validation.histories[place], validation.truths[place]
        for version in workdir.names("models"):
            removed["validation"] += _rewrite_arrays(
                workdir, ("models", version, "validation.npz"), lambda arrays: _without_example(arrays, asked, truth)
            )
    if user in test.users:
        place = test.users.index(user)
        for name in workdir.names("runs"):
            if name.endswith((".points.npz", ".lists.npz")):
                removed["measured"] += _rewrite_arrays(
                    workdir, ("runs", name), lambda arrays: _without_row(arrays, place, len(test))
                )
        _delete_example(workdir)
    return removed


def _rewrite_arrays(workdir: Workdir, file: tuple[str, ...], change: Callable[[Arrays], tuple[Arrays, int]]) -> int:
    if not workdir.exists(*file):
        return 0
    arrays, removed = change(workdir.read_arrays(*file))
    if removed:
        workdir.write_arrays(arrays, *file)
    return removed


def _without_example(arrays: Arrays, history: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> tuple[Arrays, int]:
    """Remove the rows whose history and targets are the ends of the given ones."""
    same = np.ones(len(arrays["history"]), dtype=np.bool_)
    for name, items in (
        ("history", history[-arrays["history"].shape[1] :]),
        ("targets", truth[: arrays["targets"].shape[1]]),
    ):
        padded = np.full(arrays[name].shape[1], -1)
        padded[: len(items)] = items
        same &= (arrays[name] == padded).all(axis=1)
    return {name: values[~same] for name, values in arrays.items()}, int(same.sum())


def _without_row(arrays: Arrays, place: int, num_users: int) -> tuple[Arrays, int]:
    """Remove a user's row from every array that has a row a user."""
    by_user = {name for name, values in arrays.items() if name != "meta" and len(values) == num_users}
    kept = {name: np.delete(values, place, axis=0) if name in by_user else values for name, values in arrays.items()}
    return kept, int(bool(by_user))


def _delete_example(workdir: Workdir) -> None:
    """Take the example of a test user out of the reports, of the run and of single releases, and draw them again."""
    for folder in (("report",), *(("report", name) for name in workdir.names("report"))):
        if not workdir.exists(*folder, "report_data.json"):
            continue
        data = json.loads(workdir.read_text(*folder, "report_data.json"))
        data["example_user"] = None
        workdir.write_text(json.dumps(data, ensure_ascii=False), *folder, "report_data.json")
        if workdir.exists(*folder, "summary.json"):
            redraw(workdir, folder=folder)
        else:
            workdir.remove(*folder, "index.html")


def _delete_from_tables(spark: SparkSession, workdir: Workdir, user: str) -> dict[str, int]:
    removed = {}
    names = _user_columns(workdir)
    if workdir.has_table(spark, "quarantine"):
        has_user = "user" in workdir.read(spark, "quarantine").columns
        removed["quarantine"] = _delete(spark, workdir, "quarantine", _is_quarantined(user, names, has_user=has_user))
    for table in SAMPLE_TABLES:
        if workdir.exists("tables", table):
            removed[table] = _delete_from_files(workdir, workdir.table(table), user, ("user",))
    if workdir.exists("raw"):
        removed["raw"] = _delete_from_files(workdir, workdir.path("raw"), user, names)
    for table in USER_TABLES:
        if workdir.has_table(spark, table):
            removed[table] = _delete(spark, workdir, table, F.col("user") == user)
    return removed


def _is_quarantined(user: str, names: Iterable[str], *, has_user: bool) -> Column:
    """Return the condition on ``quarantine`` that a row is the user's.

    Rows that were written before the table had the column ``user`` are searched by all names that the user's column may
    have had in a log, in every column where they have none of these, and malformed lines for the user's name as a word.
    """
    is_in_line = (F.col("reason") == "malformed_row") & F.col("row").rlike(_as_a_word(user))
    values = F.from_json("row", "map<string,string>")
    is_named = F.arrays_overlap(F.map_keys(values), F.array(*map(F.lit, names)))
    searched = F.map_filter(values, lambda name, _: name.isin(*names) | ~is_named)
    is_held = F.exists(F.map_values(searched), lambda value: F.coalesce(_means(value, user), F.lit(False)))
    is_in_row = F.coalesce(is_held, F.lit(False)) & ~F.col("reason").startswith("catalogue_")
    if not has_user:
        return is_in_line | is_in_row
    return (F.coalesce(F.col("user") == user, F.lit(False))) | is_in_line | (F.col("user").isNull() & is_in_row)


def _means(value: Column, user: str) -> Column:
    """Whether a value of a row is the user; a column of whole numbers with a hole in it is one of floats."""
    if not WHOLE_NUMBER.fullmatch(user):
        return value == user
    is_float = value.rlike(r"^-?\d+\.\d+([eE]-?\d+)?$")
    return (value == user) | (is_float & (value.try_cast("double") == F.lit(float(user))))


def _as_a_word(user: str) -> str:
    """Return the pattern of a user's name in a line of a log that stands in JSON: as it is, or as CSV or JSON writes it."""
    written = {user, user.replace('"', '""'), json.dumps(user)[1:-1], json.dumps(user, ensure_ascii=False)[1:-1]}
    in_json = sorted(json.dumps(text, ensure_ascii=False)[1:-1].replace(r"\E", r"\E\\E\Q") for text in written)
    words = "|".join(rf"\Q{text}\E" for text in in_json)
    return rf"(?<!\w)({words})(?!\w)"


def _user_columns(workdir: Workdir) -> tuple[str, ...]:
    """Return all names that the user's column may have in a log: of the known formats, and as any run configured it."""
    columns = (SYNTHETIC_LOG_COLUMNS, movielens.LOG_COLUMNS, amazon.CSV_COLUMNS, amazon.JSON_COLUMNS)
    configured = (
        record["config"]["dataset"]["columns"]["user"] for record in run_records(workdir) if "config" in record
    )
    return tuple(sorted({"user", *(each.user for each in columns), *map(str, configured)}))


def _delete(spark: SparkSession, workdir: Workdir, table: str, condition: Column) -> int:
    rows = workdir.read(spark, table).where(condition).count()
    if rows:
        workdir.check_lease()
        DeltaTable.forPath(spark, workdir.table(table)).delete(condition)
    return rows


def _delete_from_files(workdir: Workdir, folder: str, user: str, names: Iterable[str]) -> int:
    """Rewrite the Parquet files that hold the user's rows, one by one and each in one step."""
    removed = 0
    for path in files_below(workdir.filesystem, folder, ".parquet"):
        with workdir.filesystem.open(path, "rb") as file:
            rows = pq.read_table(file)
        kept = rows
        for name in set(names) & set(rows.column_names):
            is_other = pc.not_equal(pc.cast(kept.column(name), pa.string()), user)
            kept = kept.filter(pc.fill_null(is_other, True))
        if kept.num_rows == rows.num_rows:
            continue
        removed += rows.num_rows - kept.num_rows
        workdir.check_lease()
        parent, name = str(path).rsplit("/", 1)
        hidden, checksum = f"{parent}/.{name}.tmp", f"{parent}/.{name}.crc"
        with workdir.filesystem.open(hidden, "wb") as file:
            pq.write_table(kept, file, compression="zstd", row_group_size=max(kept.num_rows, 1))
        if workdir.filesystem.exists(checksum):  # Hadoop's, of the old file: with it Spark refuses the new one
            workdir.filesystem.rm(checksum)
        workdir.filesystem.mv(hidden, path)
    return removed
