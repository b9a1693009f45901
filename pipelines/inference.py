"""What a Spark worker needs to run the model over blocks of samples.

A block is cut by a hash of the user, so its rows, their order and therefore every float computed from them are the
same however the data is partitioned and however often a task is retried.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from pyspark.sql import DataFrame
from torch import Tensor

from dr_core.learning.checkpoint import load_model
from dr_core.model.objective import Batch, DeepRetrievalModel, batch_from_arrays
from pipelines.storage.samples_format import COLUMNS, list_column
from pipelines.storage.workdir import is_local

ROWS_PER_BATCH = 256


def dealt_by_block(samples: DataFrame) -> DataFrame:
    """Deal the samples out by block, to as many tasks as ``spark.sql.shuffle.partitions`` says.

    Left to itself, adaptive execution joins partitions by their bytes: a few megabytes of samples, minutes of inference,
    would be one task.
    """
    return samples.repartition(int(samples.sparkSession.conf.get("spark.sql.shuffle.partitions") or 1), "block")


@functools.lru_cache(maxsize=2)
def cached_model(uri: str, sha256: str) -> DeepRetrievalModel:
    """Load a model once a worker process; ``sha256`` (of its manifest) makes a rewritten model a new entry."""
    torch.set_num_threads(1)
    filesystem, folder = fsspec.core.url_to_fs(uri)
    return load_model(filesystem, folder).requires_grad_(False)


@functools.lru_cache(maxsize=8)
def cached_array(uri: str, sha256: str) -> npt.NDArray[Any]:
    """Load an ``.npy`` file once a worker process; a local file is mapped, not read."""
    filesystem, path = fsspec.core.url_to_fs(uri)
    if is_local(filesystem):
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        return array
    with filesystem.open(path, "rb") as file:
        array = np.load(io.BytesIO(file.read()), allow_pickle=False)
        return array


def block_batches(table: pa.Table) -> Iterator[Batch]:
    """Yield a block's samples in the one order that depends on nothing but the rows themselves."""
    table = table.sort_by([("user", "ascending"), ("row", "ascending")])
    columns = {name: list_column(table, name) for name in COLUMNS}
    for start in range(0, table.num_rows, ROWS_PER_BATCH):
        yield batch_from_arrays({name: values[start : start + ROWS_PER_BATCH] for name, values in columns.items()})


@torch.inference_mode()
def encode_batch(model: DeepRetrievalModel, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Return a batch's user states [N, E], targets [N, T] and weights [N, T]."""
    return model.encode(batch)
