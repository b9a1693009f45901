"""Samples in blocks of users: the same rows in the same order however the data is partitioned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa
import torch
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType
from torch import Tensor

from dr_core.model.objective import Batch, DeepRetrievalModel, batch_from_arrays
from pipelines.datasets.paths import literal
from pipelines.spark.partitions import deal
from pipelines.storage.samples_format import COLUMNS, list_column
from pipelines.storage.workdir import Workdir

ROWS_PER_BATCH = 256


def read_samples(spark: SparkSession, workdir: Workdir, name: str) -> DataFrame:
    """Return a samples table (Parquet)."""
    return spark.read.parquet(literal(workdir.table(name)))


def dealt_by_block(samples: DataFrame) -> DataFrame:
    """Deal the samples out to tasks, as many blocks to each, and sort them by block in each.

    There are up to ``spark.sql.shuffle.partitions`` tasks. Left to itself, adaptive execution joins partitions by their
    bytes: a few megabytes of samples, minutes of inference, would be one task.
    """
    most_tasks = int(samples.sparkSession.conf.get("spark.sql.shuffle.partitions") or 1)
    last = samples.agg(F.max("block")).first()
    num_blocks = 1 if last is None or last[0] is None else int(last[0]) + 1
    return deal(samples, F.col("block"), num_tasks(num_blocks, most_tasks)).sortWithinPartitions("block")


def num_tasks(num_blocks: int, most_tasks: int) -> int:
    """Return the fewest tasks that take no more blocks each than ``most_tasks`` would: 1,024 blocks are 512 tasks of two, not 800."""
    return -(-num_blocks // -(-num_blocks // most_tasks))


def map_blocks(samples: DataFrame, work: Callable[[pa.Table], pa.Table], schema: str | StructType) -> DataFrame:
    """Apply a function to each block as a whole; the rows that it returns have the given schema."""

    def map_whole(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for block in whole_blocks(batches):
            yield from work(block).to_batches()

    return dealt_by_block(samples).mapInArrow(map_whole, schema)


def whole_blocks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield one table a block of rows that come in order of their blocks."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        blocks = batch.column("block").to_numpy()
        edges = [0, *(np.flatnonzero(np.diff(blocks)) + 1).tolist(), len(blocks)]
        for first, last in zip(edges, edges[1:], strict=False):
            if first == last:
                continue
            if held and held[-1].column("block")[0].as_py() != blocks[first]:
                yield pa.Table.from_batches(held)
                held = []
            held.append(batch.slice(first, last - first))
    if held:
        yield pa.Table.from_batches(held)


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
