"""Loads the classes that tests load: ``make test`` keeps them in an archive from which their JVMs start.

Every program that a test starts is a JVM of its own, and two fifths of the CPU of a short one go into reading Spark's classes.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from delta.tables import DeltaTable
from pyspark import SparkContext
from pyspark.sql import Window
from pyspark.sql import functions as F

from pipelines.spark.session import build_session
from tests.conftest import LIGHT


def doubled(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    for frame in frames:
        yield frame * 2


def main() -> None:
    spark = build_session("classes", master="local[2]", conf=LIGHT | {"spark.sql.shuffle.partitions": "2"})
    with tempfile.TemporaryDirectory() as folder:
        table, files = f"{folder}/table", str(Path(folder, "files"))
        rows = spark.range(20).select("id", (F.col("id") % 3).alias("part"), F.col("id").cast("string").alias("name"))
        rows.write.format("delta").partitionBy("part").save(table)
        rows.write.format("delta").mode("append").save(table)
        rows.write.partitionBy("part").parquet(files)
        rows.write.mode("append").csv(f"{folder}/text", header=True)
        spark.read.csv(f"{folder}/text", header=True, inferSchema=True).count()
        delta = DeltaTable.forPath(spark, table)
        match = delta.alias("old").merge(rows.alias("new"), "old.id = new.id and old.part = new.part")
        match.whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()
        delta.delete("id = 3")
        newest = Window.partitionBy("part").orderBy(F.desc("id"))
        read = spark.read.format("delta").load(table).withColumn("place", F.row_number().over(newest))
        joined = read.join(spark.read.parquet(files).select("id"), "id")
        joined.groupBy("name").agg(F.collect_list("place")).sort("name").toPandas()
        rows.select("id").mapInPandas(doubled, "id long").collect()
    gateway = SparkContext._gateway
    spark.stop()
    gateway.proc.stdin.close()
    gateway.proc.wait()


if __name__ == "__main__":
    main()
