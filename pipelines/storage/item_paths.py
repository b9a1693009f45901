"""A mapping in memory to and from the table ``item_paths``."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.storage.workdir import Workdir


def write_paths(spark: SparkSession, workdir: Workdir, path_VJ: npt.NDArray[np.int64], release_id: str) -> None:
    """Write a mapping int64 [V, J] held in memory as ``item_paths`` of a release; a slot of -1 is no row."""
    item_M, slot_M = np.nonzero(path_VJ >= 0)
    table = pa.table(
        {
            "item_id": pa.array(item_M, pa.int32()),
            "rank": pa.array(slot_M, pa.int32()),
            "path_id": pa.array(path_VJ[item_M, slot_M], pa.int64()),
        }
    )
    _write(spark.createDataFrame(table), workdir, release_id)


def _write(rows: DataFrame, workdir: Workdir, release_id: str) -> None:
    release, gain = F.lit(release_id).alias("release_id"), F.lit(0.0).alias("gain")
    workdir.write_release(rows.select(release, "item_id", "rank", "path_id", gain), "item_paths", release_id)


def read_paths(
    spark: SparkSession,
    workdir: Workdir,
    release_id: str,
    num_items: int | None = None,
    num_paths: int | None = None,
) -> npt.NDArray[np.int64]:
    """Return a release's mapping, int64 [V, J], rows in order of item_id; -1 where an item has fewer paths or none.

    V is ``num_items``, by default the highest item that has a path, plus one; J is ``num_paths``, by default the most paths
    of an item.
    """
    rows = workdir.read_release(spark, "item_paths", release_id).select("item_id", "rank", "path_id").toPandas()
    num_paths = int(rows["rank"].max()) + 1 if num_paths is None else num_paths
    num_items = int(rows["item_id"].max()) + 1 if num_items is None else num_items
    paths = np.full((num_items, num_paths), -1, dtype=np.int64)
    paths[rows["item_id"].to_numpy(), rows["rank"].to_numpy()] = rows["path_id"].to_numpy()
    return paths
