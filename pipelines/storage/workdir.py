"""The work folder: where each table lives, its schema, and how it is read and written."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

from dr_core.errors import DeepRetrievalError, InputError
from pipelines.storage.faults import reach
from pipelines.storage.schemas import PARTITIONS, SCHEMAS


def small_frame(spark: SparkSession, rows: Sequence[tuple[Any, ...]], schema: dict[str, str]) -> DataFrame:
    """Return a few rows of this process as one partition; through Arrow, so that no Python worker has to start."""
    fields = StructType.fromDDL(", ".join(f"{name} {kind}" for name, kind in schema.items()))
    records = [dict(zip(schema, row, strict=True)) for row in rows]
    return spark.createDataFrame(pa.Table.from_pylist(records, to_arrow_schema(fields)), fields).coalesce(1)


def is_local(filesystem: fsspec.AbstractFileSystem) -> bool:
    """Tell whether a file system is this host's own."""
    return filesystem.protocol in ("file", ("file", "local"))


class Workdir:
    """The work folder W, a URI (a plain path, or ``s3://``, ``hdfs://`` … through fsspec)."""

    def __init__(self, uri: str) -> None:
        self.filesystem, self.root = fsspec.core.url_to_fs(uri)
        self.is_local = is_local(self.filesystem)
        self.uri = self.root if self.is_local else uri.rstrip("/")

    def path(self, *parts: str) -> str:
        """Return the URI of something below the work folder."""
        return "/".join([self.uri.rstrip("/"), *parts])

    def table(self, name: str) -> str:
        """Return the URI of a table."""
        return self.path("tables", name)

    def exists(self, *parts: str) -> bool:
        """Tell whether a file or folder below the work folder exists."""
        return bool(self.filesystem.exists(self.path(*parts)))

    def read_text(self, *parts: str) -> str:
        """Return a small file's text; raise :class:`InputError` when it is missing."""
        try:
            with self.filesystem.open(self.path(*parts), "r") as file:
                return str(file.read())
        except FileNotFoundError as error:
            raise InputError(f"{self.path(*parts)} is missing: run `dr run --workdir {self.uri}` first") from error

    def write_text(self, text: str, *parts: str) -> None:
        """Write a small file so that a reader sees either the old text or the new one."""
        self._write_bytes(text.encode(), *parts)

    def _write_bytes(self, blob: bytes, *parts: str) -> str:
        target = self.path(*parts)
        self.filesystem.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
        with self.filesystem.open(target + ".tmp", "wb") as file:
            file.write(blob)
        self.filesystem.mv(target + ".tmp", target)
        return target

    def put_files(self, local_folder: str, *parts: str) -> None:
        """Copy a local folder's files into a folder below the work folder, each replaced in one step."""
        target = self.path(*parts)
        self.filesystem.makedirs(target, exist_ok=True)
        for name in sorted(os.listdir(local_folder)):
            self.filesystem.put_file(os.path.join(local_folder, name), f"{target}/{name}.tmp")
            self.filesystem.mv(f"{target}/{name}.tmp", f"{target}/{name}")

    def local_folder(self, *parts: str) -> str:
        """Return a local path of a folder: itself, or a copy in this host's cache keyed by the remote files' state."""
        source = self.path(*parts)
        if self.is_local:
            return source
        files = sorted(self.filesystem.ls(source, detail=True), key=lambda entry: str(entry["name"]))
        state = repr([(entry["name"], entry["size"], self.filesystem.ukey(entry["name"])) for entry in files])
        folder = os.path.join(tempfile.gettempdir(), "deep_retrieval", hashlib.sha256(state.encode()).hexdigest())
        for entry in files:
            local = os.path.join(folder, str(entry["name"]).rsplit("/", 1)[-1])
            if not os.path.exists(local):
                os.makedirs(folder, exist_ok=True)
                self.filesystem.get_file(entry["name"], f"{local}.{os.getpid()}")
                os.replace(f"{local}.{os.getpid()}", local)
        return folder

    def write_array(self, array: npt.NDArray[Any], *parts: str) -> str:
        """Write an ``.npy`` file in one step and return its URI."""
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        return self._write_bytes(buffer.getvalue(), *parts)

    def write_arrays(self, columns: dict[str, npt.NDArray[Any]], *parts: str) -> str:
        """Write several arrays as one ``.npz`` file in one step and return its URI."""
        buffer = io.BytesIO()
        np.savez(buffer, **columns)
        return self._write_bytes(buffer.getvalue(), *parts)

    def read_array(self, *parts: str) -> npt.NDArray[Any]:
        """Read an ``.npy`` file."""
        with self.filesystem.open(self.path(*parts), "rb") as file:
            array: npt.NDArray[Any] = np.load(io.BytesIO(file.read()), allow_pickle=False)
            return array

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

        Writing the same rows again leaves the same contents: this is what makes a stage safe to repeat.
        """
        schema = SCHEMAS[name]
        if frame.columns != list(schema):
            raise DeepRetrievalError(f"table {name} has columns {list(schema)}, was given {frame.columns}")
        columns = [frame[column].cast(kind).alias(column) for column, kind in schema.items()]
        writer = frame.select(*columns).write.format("delta").mode("overwrite")
        if name in PARTITIONS:
            writer = writer.partitionBy(*PARTITIONS[name])
        if replace_where:
            writer = writer.option("replaceWhere", replace_where)
        reach(f"write:{name}:before")
        writer.save(self.table(name))
        reach(f"write:{name}:after")

    def append(self, frame: DataFrame, name: str) -> None:
        """Append rows to a Delta table in one commit."""
        reach(f"write:{name}:before")
        frame.write.format("delta").mode("append").save(self.table(name))
        reach(f"write:{name}:after")

    def write_release(self, frame: DataFrame, name: str, release_id: str) -> None:
        """Replace one release's rows of a table, and nothing else, in one commit."""
        self.write(frame, name, replace_where=f"release_id = '{release_id}'")
