"""The inverted index of a release: a table, and the files a retriever maps."""

import numpy as np
import pytest
from pyspark.sql import SparkSession

from dr_core.paths.index import build_index as invert
from pipelines.stages.structure.index import build_index, load_index
from pipelines.storage.item_paths import write_paths
from pipelines.storage.schemas import SCHEMAS
from pipelines.storage.workdir import Workdir

NUM_ITEMS, RETIRED = 25, (3, 17)


@pytest.fixture(scope="module")
def mapping() -> np.ndarray:
    return np.random.default_rng(71).permuted(np.tile(np.arange(12), (NUM_ITEMS, 1)), axis=1)[:, :2].astype(np.int64)


@pytest.fixture(scope="module")
def workdir(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, mapping: np.ndarray) -> Workdir:
    """Two items are retired; another release's rows must not leak in."""
    workdir = Workdir(str(tmp_path_factory.mktemp("index")))
    rows = [(item, f"i{item}", None, item not in RETIRED, "", "", "") for item in range(NUM_ITEMS)]
    schema = ", ".join(f"{name} {kind}" for name, kind in SCHEMAS["items"].items())
    workdir.write(spark.createDataFrame(rows, schema), "items")
    write_paths(spark, workdir, mapping, "r")
    write_paths(spark, workdir, np.flip(mapping, 0) + 20, "other")
    return workdir


def test_index_is_the_inverse_of_the_mapping_of_active_items(
    spark: SparkSession, workdir: Workdir, mapping: np.ndarray
) -> None:
    active = np.setdiff1d(np.arange(NUM_ITEMS), RETIRED)
    expected = invert(active, mapping[active])
    for _ in range(2):
        summary = build_index(spark, workdir, release_id="r")
        assert summary == {"rows_in": 2 * len(active), "rows_out": expected.num_paths}
    loaded = load_index(workdir, "r")
    for name in ("path_ids", "offsets", "item_ids"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(expected, name))
        assert getattr(loaded, name).dtype == getattr(expected, name).dtype
    assert isinstance(loaded.item_ids, np.memmap)
    for path in range(12):
        on_path = np.flatnonzero((mapping == path).any(axis=1))
        assert loaded.items(path).tolist() == np.setdiff1d(on_path, RETIRED).tolist()
    table = workdir.read_release(spark, "path_items", "r").collect()
    assert {row.path_id: row.item_ids for row in table} == {
        int(path): expected.items(int(path)).tolist() for path in expected.path_ids
    }
