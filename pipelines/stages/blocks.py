"""Samples in blocks of users: the same rows in the same order however the data is partitioned."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import torch
from pyspark.sql import DataFrame
from torch import Tensor

from dr_core.model.objective import Batch, DeepRetrievalModel, batch_from_arrays
from pipelines.storage.samples_format import COLUMNS, list_column

ROWS_PER_BATCH = 256


def dealt_by_block(samples: DataFrame) -> DataFrame:
    """Deal the samples out by block, to as many tasks as ``spark.sql.shuffle.partitions`` says.

    Left to itself, adaptive execution joins partitions by their bytes: a few megabytes of samples, minutes of inference,
    would be one task.
    """
    return samples.repartition(int(samples.sparkSession.conf.get("spark.sql.shuffle.partitions") or 1), "block")


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
