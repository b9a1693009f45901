"""The inverted index of a release: the ``path_items`` table and the CSR files that a retriever maps from disk."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from dr_core.errors import DeepRetrievalError
from dr_core.paths.index import PathIndex
from pipelines.storage.workdir import Workdir


def build_index(spark: SparkSession, workdir: Workdir, *, release_id: str) -> dict[str, int]:
    """Invert ``item_paths`` of a release into ``path_items`` and ``models/<release>/index/*.npy``.

    Inactive items keep their id and lose their place in the index.
    """
    active = workdir.read(spark, "items").where(F.col("active")).select("item_id")
    mapping = workdir.read_release(spark, "item_paths", release_id).join(active, "item_id", how="left_semi")
    inverted = (
        mapping.groupBy("path_id")
        .agg(F.sort_array(F.collect_list("item_id")).alias("item_ids"))
        .select(F.lit(release_id).alias("release_id"), "path_id", "item_ids")
    )
    workdir.write_release(inverted, "path_items", release_id)
    rows = (
        workdir.read_release(spark, "path_items", release_id).select("path_id", "item_ids").sort("path_id").toPandas()
    )
    sizes = rows["item_ids"].map(len).to_numpy(np.int64)
    index = PathIndex(
        rows["path_id"].to_numpy(np.int64),
        np.r_[0, np.cumsum(sizes)].astype(np.int64),
        np.concatenate([*rows["item_ids"].to_numpy(), np.zeros(0)]).astype(np.int32),
    )
    rows_in = mapping.count()
    if int(index.offsets[-1]) != rows_in:
        raise DeepRetrievalError(f"index of {release_id} holds {int(index.offsets[-1])} places, item_paths {rows_in}")
    with tempfile.TemporaryDirectory() as folder:
        index.save(folder)
        workdir.put_files(folder, "models", release_id, "index")
    return {"rows_in": rows_in, "rows_out": len(rows)}


def load_index(workdir: Workdir, release_id: str) -> PathIndex:
    """Map the index of a release from disk (from a local copy when the work folder is remote)."""
    return PathIndex.load(Path(workdir.local_folder("models", release_id, "index")))
