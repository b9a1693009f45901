"""Rows dealt to tasks by a number, where Spark's hash of the number would leave some tasks empty and fill others."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F


def partition_keys(spark: SparkSession, num_partitions: int) -> DataFrame:
    """Return (partition, partition_key), both int: the key is one that Spark's hash sends to the partition of that number."""
    candidates = spark.range(0, 40 * num_partitions + 200).select(F.col("id").cast("int").alias("partition_key"))
    return candidates.groupBy(F.pmod(F.hash("partition_key"), F.lit(num_partitions)).alias("partition")).agg(
        F.min("partition_key").alias("partition_key")
    )


def deal(frame: DataFrame, number: Column, num_partitions: int) -> DataFrame:
    """Send the rows whose ``number`` is n to partition n % num_partitions."""
    keys = sorted(partition_keys(frame.sparkSession, num_partitions).collect())
    key_of = F.array(*(F.lit(row["partition_key"]) for row in keys))
    return frame.repartition(num_partitions, F.get(key_of, F.pmod(number, F.lit(num_partitions))))
