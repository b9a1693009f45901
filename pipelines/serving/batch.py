"""Batch retrieval: the top items of every user's kept history, into ``recommendations``."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dr_core.item_lists import ItemLists
from dr_core.retrieval.from_model import model_retriever
from dr_core.retrieval.retriever import Retriever
from dr_core.retrieval.router import Width
from pipelines.spark.worker_cache import cached_model, model_identity
from pipelines.stages.ingest.seen import seen_by_user
from pipelines.stages.structure.index import load_index
from pipelines.storage.schemas import SCHEMAS
from pipelines.storage.workdir import Workdir

logger = logging.getLogger(__name__)
SCHEMA = "user string, rank int, item_id int, score float, path_id bigint, path_probability float"
USERS_PER_BATCH = 512


def retrieve_all(
    spark: SparkSession,
    workdir: Workdir,
    *,
    release_id: str,
    k: int,
    width: Width,
    max_length: int,
    filter_history: bool,
) -> dict[str, int]:
    """Write the top k items of every user in ``user_histories`` as ``recommendations`` of a release.

    With ``filter_history`` a user gets none of the items in the log's rows of that user, whether they were kept as events
    or not. A user who has seen all that the search finds gets fewer than k rows.

    Returns:
        rows_in, users; rows_out; and ``users_below_k``, users with fewer than k rows.
    """
    uri, contents = workdir.uri, release_contents(workdir, release_id)

    def retrieve(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        retriever = cached_retriever(uri, release_id, contents, width, max_length)
        for batch in batches:
            for start in range(0, batch.num_rows, USERS_PER_BATCH):
                yield _recommend(retriever, batch.slice(start, USERS_PER_BATCH), k)

    users = workdir.read(spark, "user_histories").select("user", "item_ids")
    asked = (
        _with_seen(spark, workdir, users) if filter_history else users.withColumn("seen", F.array().cast("array<int>"))
    )
    found = asked.mapInArrow(retrieve, SCHEMA).withColumn("release_id", F.lit(release_id))
    items = workdir.read(spark, "items").select("item_id", "item_key")
    rows = found.join(items, on="item_id", how="left").select(*SCHEMAS["recommendations"])
    workdir.write_release(rows, "recommendations", release_id)
    written = workdir.read_release(spark, "recommendations", release_id)
    totals = written.agg(F.count(F.lit(1)), F.count_if(F.col("rank") == k - 1)).collect()[0]
    rows_in, (rows_out, full) = users.count(), totals
    if full < rows_in:
        logger.warning(
            "  %d of %d users have fewer than %d items: raise serving.candidates", rows_in - full, rows_in, k
        )
    return {"rows_in": rows_in, "rows_out": rows_out, "users_below_k": rows_in - full}


def _with_seen(spark: SparkSession, workdir: Workdir, users: DataFrame) -> DataFrame:
    """Add the items that each user has seen.

    The number of partitions is given, since a search costs far more than its few bytes suggest; users are sorted, so that
    the same ones are answered together every time.
    """
    partitions = int(str(spark.conf.get("spark.sql.shuffle.partitions")))
    seen = seen_by_user(spark, workdir)
    return users.repartition(partitions, "user").join(seen, on="user", how="left").sortWithinPartitions("user")


def release_contents(workdir: Workdir, release_id: str) -> tuple[str, str]:
    """Return the identity of a release's model, and a hash that changes whenever a file of its index is written."""
    folder = workdir.path("models", release_id)
    index = [workdir.filesystem.ukey(path) for path in sorted(workdir.filesystem.ls(f"{folder}/index", detail=False))]
    return model_identity(folder), hashlib.sha256(repr(index).encode()).hexdigest()


@functools.lru_cache(maxsize=2)
def cached_retriever(uri: str, release_id: str, contents: tuple[str, str], width: Width, max_length: int) -> Retriever:
    """Build a retriever once a worker process; ``contents`` is :func:`release_contents`."""
    workdir = Workdir(uri)
    model = cached_model(workdir.path("models", release_id), contents[0])
    return model_retriever(model, load_index(workdir, release_id), width=width, max_length=max_length)


def item_lists(column: pa.ListArray) -> ItemLists:
    """Return a column of lists without looking at any of them; null is an empty list."""
    offsets = np.concatenate(([0], np.cumsum(column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))))
    return ItemLists(offsets.astype(np.int64), column.flatten().to_numpy(zero_copy_only=False).astype(np.int64))


def _recommend(retriever: Retriever, batch: pa.RecordBatch, k: int) -> pa.RecordBatch:
    histories, seen = (item_lists(batch.column(name)).known(retriever.num_items) for name in ("item_ids", "seen"))
    found = retriever.retrieve(retriever.encode(histories), k, excluded=seen)
    users, ranks = np.nonzero(found.item_Uk >= 0)
    return pa.RecordBatch.from_arrays(
        [
            batch.column(0).take(pa.array(users)),
            pa.array(ranks, pa.int32()),
            pa.array(found.item_Uk[users, ranks], pa.int32()),
            pa.array(found.score_Uk[users, ranks], pa.float32()),
            pa.array(found.path_Uk[users, ranks], pa.int64()),
            pa.array(found.path_probability_Uk[users, ranks], pa.float32()),
        ],
        ["user", "rank", "item_id", "score", "path_id", "path_probability"],
    )
