"""The held-out users of a work folder."""

from __future__ import annotations

import numpy as np
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from dr_core.evaluation.evaluator import EvaluationUsers
from pipelines.storage.workdir import Workdir

KEPT_USERS = 512
"""Users by whose searches a width is chosen where nobody is held out."""


def load_users(spark: SparkSession, workdir: Workdir, role: str, num_items: int | None = None) -> EvaluationUsers:
    """Return the users of a role (``validation`` or ``test``) with histories and truths, in order of their name.

    Args:
        num_items: V of the model that is to answer. Items that came after it are left out of the histories, which it
            could not read; they stay in the truths, which it misses. None keeps all.
    """
    frame = workdir.read(spark, "evaluation_histories").where(F.col("role") == role).sort("user").toPandas()
    histories = [np.asarray(items, dtype=np.int64) for items in frame["history"]]
    if num_items is not None:
        histories = [items[items < num_items] for items in histories]
    return EvaluationUsers(
        list(frame["user"]),
        histories,
        [np.asarray(items, dtype=np.int64) for items in frame["truth"]],
    )


def kept_users(spark: SparkSession, workdir: Workdir, num_items: int) -> EvaluationUsers:
    """Return some users of ``user_histories`` with their histories and no truths: the first in order of a hash."""
    chosen = workdir.read(spark, "user_histories").orderBy(F.xxhash64("user"), "user").limit(KEPT_USERS)
    frame = chosen.select("user", F.filter("item_ids", lambda item: item < num_items).alias("history")).toPandas()
    histories = [np.asarray(items, dtype=np.int64) for items in frame["history"]]
    return EvaluationUsers(list(frame["user"]), histories, [np.zeros(0, np.int64)] * len(frame))
