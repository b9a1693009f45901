"""The work folder: its files, and where each table lives, how it is read and written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pyarrow as pa
from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

from dr_core.errors import DeepRetrievalError, InputError
from pipelines.storage.faults import reach
from pipelines.storage.files import Files
from pipelines.storage.schemas import PARTITIONS, SCHEMAS


def small_frame(spark: SparkSession, rows: Sequence[tuple[Any, ...]], schema: dict[str, str]) -> DataFrame:
    """Return a few rows of this process as one partition; through Arrow, so that no Python worker has to start."""
    fields = cast(StructType, StructType.fromDDL(", ".join(f"{name} {kind}" for name, kind in schema.items())))
    records = [dict(zip(schema, row, strict=True)) for row in rows]
    return spark.createDataFrame(pa.Table.from_pylist(records, to_arrow_schema(fields)), fields).coalesce(1)


class Workdir(Files):
    """The work folder W: its files, and the Delta tables below ``tables/``."""

    def below(self, *parts: str) -> Workdir:
        """Return a work folder inside this one, held by the same lease."""
        inner = Workdir(self.path(*parts))
        inner.check_lease = self.check_lease
        return inner

    def table(self, name: str) -> str:
        """Return the URI of a table."""
        return self.path("tables", name)

    def has_table(self, spark: SparkSession, name: str) -> bool:
        """Tell whether the Delta table exists."""
        return DeltaTable.isDeltaTable(spark, self.table(name))

    def read(self, spark: SparkSession, name: str) -> DataFrame:
        """Return a Delta table; raise :class:`InputError` naming it when it is missing."""
        if not self.has_table(spark, name):
            raise InputError(f"table {self.table(name)} is missing: an earlier stage has not run in this work folder")
        return spark.read.format("delta").load(self.table(name))

    def read_release(self, spark: SparkSession, name: str, release_id: str) -> DataFrame:
        """Return one release's rows of a table partitioned by ``release_id``."""
        frame = self.read(spark, name)
        return frame.where(frame.release_id == release_id)

    def write(self, frame: DataFrame, name: str, *, replace_where: str | None = None) -> None:
        """Overwrite a Delta table, or only the rows matching ``replace_where``, in one commit.

        Writing the same rows again leaves the same contents: this is what makes a stage safe to repeat. Columns that an
        older release of this project did not write are added to its table.
        """
        schema = SCHEMAS[name]
        if frame.columns != list(schema):
            raise DeepRetrievalError(f"table {name} has columns {list(schema)}, was given {frame.columns}")
        columns = [frame[column].cast(kind).alias(column) for column, kind in schema.items()]
        writer = frame.select(*columns).write.format("delta").mode("overwrite").option("mergeSchema", "true")
        if name in PARTITIONS:
            writer = writer.partitionBy(*PARTITIONS[name])
        if replace_where:
            writer = writer.option("replaceWhere", replace_where)
        self.check_lease()
        reach(f"write:{name}:before")
        writer.save(self.table(name))
        reach(f"write:{name}:after")

    def append(self, frame: DataFrame, name: str) -> None:
        """Append rows to a Delta table in one commit."""
        self.check_lease()
        reach(f"write:{name}:before")
        frame.write.format("delta").mode("append").save(self.table(name))
        reach(f"write:{name}:after")

    def write_release(self, frame: DataFrame, name: str, release_id: str) -> None:
        """Replace one release's rows of a table, and nothing else, in one commit."""
        self.write(frame, name, replace_where=f"release_id = '{release_id}'")
