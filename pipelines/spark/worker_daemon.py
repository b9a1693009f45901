"""Spark's Python daemon with the heavy imports done once, before it forks its workers.

Without it every worker of a local session imports torch and numba anew, several seconds a stage
(``spark.python.daemon.module``; executors on other machines fork their own).
"""

import numba  # noqa: F401
import pandas  # noqa: F401
import pyarrow  # noqa: F401
import torch  # noqa: F401
from pyspark.daemon import manager

if __name__ == "__main__":
    manager()  # type: ignore[no-untyped-call]
