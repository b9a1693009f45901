"""The work folder: files replaced in one step, tables written the same however often."""

import os
from pathlib import Path

import fsspec
import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dr_core.errors import DeepRetrievalError, InputError
from pipelines.storage.schemas import PARTITIONS, SCHEMAS
from pipelines.storage.workdir import Workdir


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    return Workdir(str(tmp_path / "w"))


def paths_frame(spark: SparkSession, release_id: str, rows: list[tuple[int, int, int]]) -> DataFrame:
    frame = spark.createDataFrame(rows, "item_id int, rank int, path_id bigint")
    return frame.select(F.lit(release_id).alias("release_id"), "item_id", "rank", "path_id", F.lit(0.0).alias("gain"))


def contents(spark: SparkSession, workdir: Workdir, release_id: str) -> list[tuple[int, int, int]]:
    rows = workdir.read_release(spark, "item_paths", release_id).collect()
    return sorted((row.item_id, row.rank, row.path_id) for row in rows)


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_path_and_its_file_uri_are_the_same_folder(tmp_path: Path, prefix: str) -> None:
    workdir = Workdir(f"{prefix}{tmp_path}/w/")
    workdir.write_text("x", "runs", "r.json")
    assert (tmp_path / "w" / "runs" / "r.json").read_text() == "x"
    assert workdir.path("runs", "r.json") == str(tmp_path / "w" / "runs" / "r.json")


@pytest.mark.parametrize("uri", ["memory://somewhere/w", None])
def test_files_come_back_as_they_were_written(tmp_path: Path, uri: str | None) -> None:
    workdir = Workdir(uri or str(tmp_path))
    array = np.arange(6, dtype=np.int64).reshape(3, 2)
    for _ in range(2):
        workdir.write_text("té", "a", "b.txt")
        workdir.write_array(array, "a", "c.npy")
        where = workdir.write_arrays({"x": array, "y": np.zeros(2, np.float32)}, "a", "d.npz")
    assert workdir.read_text("a", "b.txt") == "té"
    np.testing.assert_array_equal(workdir.read_array("a", "c.npy"), array)
    with fsspec.open(where, "rb") as file:
        found = dict(np.load(file))
    np.testing.assert_array_equal(found["x"], array)
    assert found["y"].dtype == np.float32
    assert workdir.names("a") == ["b.txt", "c.npy", "d.npz"], "nothing unfinished is left"


def test_a_writer_killed_half_way_leaves_the_old_text(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    workdir.write_text("old", "runs", "r.json")
    with monkeypatch.context() as patch:
        patch.setattr(type(workdir.filesystem), "mv", lambda *args, **more: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            workdir.write_text("new", "runs", "r.json")
    assert workdir.read_text("runs", "r.json") == "old"


def test_a_remote_folder_is_copied_once_and_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DR_CACHE", str(tmp_path / "cache"))
    workdir = Workdir("memory://bucket/remote")
    (tmp_path / "i").mkdir()
    for text in ("one", "two"):
        (tmp_path / "i" / "a.npy").write_text(text)
        workdir.put_files(str(tmp_path / "i"), "models", "m", "index")
        copies = [workdir.local_folder("models", "m", "index") for _ in range(2)]
        assert copies[0] == copies[1]
        assert Path(copies[0], "a.npy").read_text() == text
        assert os.listdir(copies[0]) == ["a.npy"]
        assert Path(copies[0]).is_relative_to(tmp_path / "cache")


def test_a_missing_file_or_table_is_named(spark: SparkSession, workdir: Workdir) -> None:
    with pytest.raises(InputError, match=r"r\.json is missing"):
        workdir.read_text("runs", "r.json")
    for read in (workdir.read_array, workdir.read_arrays):
        with pytest.raises(InputError, match=r"item_paths\.npy is missing: .*maintenance removed it"):
            read("models", "r-1", "item_paths.npy")
    with pytest.raises(InputError, match="item_paths is missing"):
        workdir.read(spark, "item_paths")


def test_each_release_owns_its_rows(spark: SparkSession, workdir: Workdir) -> None:
    first, second = [(0, 0, 5), (0, 1, 7), (1, 0, 5)], [(0, 0, 9)]
    workdir.write_release(paths_frame(spark, "a", first), "item_paths", "a")
    workdir.write_release(paths_frame(spark, "b", second), "item_paths", "b")
    assert contents(spark, workdir, "a") == first
    assert contents(spark, workdir, "b") == second
    workdir.write_release(paths_frame(spark, "b", []), "item_paths", "b")
    assert contents(spark, workdir, "a") == first
    assert contents(spark, workdir, "b") == []


def test_writing_a_release_twice_changes_nothing(spark: SparkSession, workdir: Workdir) -> None:
    rows = [(0, 0, 5), (0, 1, 7), (1, 0, 5)]
    for _ in range(3):
        workdir.write_release(paths_frame(spark, "a", rows), "item_paths", "a")
    assert contents(spark, workdir, "a") == rows


def test_rows_of_another_release_are_refused(spark: SparkSession, workdir: Workdir) -> None:
    workdir.write_release(paths_frame(spark, "a", [(0, 0, 5)]), "item_paths", "a")
    for name in ("a", "c"):
        with pytest.raises(Exception, match="release_id"):
            workdir.write_release(paths_frame(spark, "b", [(0, 0, 6)]), "item_paths", name)
    assert contents(spark, workdir, "a") == [(0, 0, 5)]


def test_a_plain_table_is_replaced_as_a_whole(spark: SparkSession, workdir: Workdir) -> None:
    for users in (["u", "v"], ["w"]):
        workdir.write(
            spark.createDataFrame([(user, "test") for user in users], "user string, role string"), "evaluation_users"
        )
    assert [row.user for row in workdir.read(spark, "evaluation_users").collect()] == ["w"]


def test_columns_that_are_not_the_tables_are_refused(spark: SparkSession, workdir: Workdir) -> None:
    wrong = spark.createDataFrame([("test", "u")], "role string, user string")
    with pytest.raises(DeepRetrievalError, match="evaluation_users has columns"):
        workdir.write(wrong, "evaluation_users")


def test_types_are_the_schemas(spark: SparkSession, workdir: Workdir) -> None:
    frame = paths_frame(spark, "a", [(0, 0, 5)]).withColumn("item_id", F.col("item_id").cast("bigint"))
    workdir.write_release(frame, "item_paths", "a")
    assert dict(workdir.read(spark, "item_paths").dtypes) == SCHEMAS["item_paths"]


def test_every_partition_column_is_one_of_its_table() -> None:
    assert all(set(columns) <= set(SCHEMAS[name]) for name, columns in PARTITIONS.items())
