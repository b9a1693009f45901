"""Blocks of users: dealt evenly, whole, each to one task."""

from collections import Counter
from collections.abc import Iterator

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from pipelines.stages.blocks import dealt_by_block, map_blocks, num_tasks


@pytest.fixture
def tasks(spark: SparkSession, request: pytest.FixtureRequest) -> Iterator[int]:
    before = spark.conf.get("spark.sql.shuffle.partitions")
    spark.conf.set("spark.sql.shuffle.partitions", str(request.param))
    yield request.param
    spark.conf.set("spark.sql.shuffle.partitions", before)


@pytest.mark.parametrize(("num_blocks", "tasks"), [(16, 4), (64, 16), (1024, 800), (3, 8)], indirect=["tasks"])
def test_no_task_has_many_more_blocks_than_the_mean(spark: SparkSession, num_blocks: int, tasks: int) -> None:
    samples = spark.range(num_blocks).select(F.col("id").cast("int").alias("block"))
    dealt = dealt_by_block(samples)
    loads = Counter(row.task for row in dealt.select(F.spark_partition_id().alias("task")).collect())
    assert sum(loads.values()) == num_blocks
    assert dealt.rdd.getNumPartitions() == len(loads) <= tasks, "no task is empty"
    assert max(loads.values()) <= 1.3 * num_blocks / len(loads)
    assert max(loads.values()) == -(-num_blocks // tasks), "more tasks would not end earlier"


def test_any_number_of_blocks_is_dealt_as_evenly_as_it_can_be() -> None:
    for num_blocks in range(1, 300):
        for most_tasks in range(1, 40):
            number = num_tasks(num_blocks, most_tasks)
            assert 1 <= number <= min(most_tasks, num_blocks)
            assert -(-num_blocks // number) == -(-num_blocks // most_tasks)


@pytest.mark.parametrize("tasks", [1, 3, 7], indirect=True)
def test_each_block_is_seen_whole_and_once(spark: SparkSession, tasks: int) -> None:
    """Blocks of 0 to 11 rows, one of them larger than a batch of Arrow's."""
    samples = spark.range(66).select(F.floor(F.sqrt(2 * F.col("id") + 0.25) + 0.5).cast("int").alias("block"), "id")
    samples = samples.unionByName(spark.range(25_000).select(F.lit(20).alias("block"), "id")).repartition(5, "id")

    def count(block: pa.Table) -> pa.Table:
        number = block.column("block")[0].as_py()
        assert block.column("block").unique().to_pylist() == [number]
        return pa.table({"block": pa.array([number], pa.int32()), "rows": pa.array([block.num_rows], pa.int64())})

    found = sorted(tuple(row) for row in map_blocks(samples, count, "block int, rows bigint").collect())
    assert found == sorted(tuple(row) for row in samples.groupBy("block").count().collect())
    assert (20, 25_000) in found
