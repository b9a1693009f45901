"""The held-out users of a work folder."""

from __future__ import annotations

import numpy as np
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from dr_core.evaluation.evaluator import EvaluationUsers
from pipelines.storage.workdir import Workdir


def load_users(spark: SparkSession, workdir: Workdir, role: str) -> EvaluationUsers:
    """Return the users of a role (``validation`` or ``test``) with histories and truths, in order of their name."""
    frame = workdir.read(spark, "evaluation_histories").where(F.col("role") == role).sort("user").toPandas()
    return EvaluationUsers(
        list(frame["user"]),
        [np.asarray(items, dtype=np.int64) for items in frame["history"]],
        [np.asarray(items, dtype=np.int64) for items in frame["truth"]],
    )
