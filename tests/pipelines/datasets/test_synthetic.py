"""The synthetic logs hold what is planted in them."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from pipelines.datasets.interactions import DatasetConfig, read_catalogue, read_logs, resolve
from pipelines.datasets.synthetic import SyntheticConfig, generate

SMALL = SyntheticConfig(num_users=800, num_items=600)


@pytest.fixture(scope="module")
def world() -> tuple[pa.Table, pa.Table]:
    return generate(SMALL)


def test_same_seed_same_content(world: tuple[pa.Table, pa.Table]) -> None:
    again = generate(SMALL)
    assert again[0].equals(world[0])
    assert again[1].equals(world[1])
    assert not generate(SMALL.model_copy(update={"seed": 1}))[0].equals(world[0])


def test_events_are_possible(world: tuple[pa.Table, pa.Table]) -> None:
    logs, catalogue = (table.to_pandas() for table in world)
    assert logs.timestamp.is_monotonic_increasing
    end = SMALL.start_timestamp + SMALL.num_days * 86_400
    assert logs.timestamp.between(SMALL.start_timestamp, end - 1).all()
    assert logs.watch_ratio.between(0, 1).all()
    assert (logs.watch_seconds > 0).all()
    assert not logs.duplicated(["user_id", "item_id"]).any()
    joined = logs.merge(catalogue, on="item_id", validate="many_to_one")
    assert len(joined) == len(logs)
    assert (joined.timestamp >= joined.first_seen).all()
    assert 0.75 < len(logs) / (SMALL.num_users * SMALL.mean_events) < 1.25


def test_tree_is_irregular(world: tuple[pa.Table, pa.Table]) -> None:
    leaves = set(world[1]["category"].to_pylist())
    depths = {leaf.count("/") for leaf in generate(SyntheticConfig())[1]["category"].to_pylist()}
    assert depths == {1, 2}
    tops = [leaf.split("/")[0] for leaf in leaves]
    assert len({tops.count(top) for top in tops}) > 1


def test_second_half_follows_from_the_first(world: tuple[pa.Table, pa.Table]) -> None:
    logs, catalogue = (table.to_pandas() for table in world)
    leaf_names = catalogue.set_index("item_id").category
    logs["leaf"] = logs.item_id.map(leaf_names).astype("category").cat.codes
    events = logs.sort_values(["user_id", "timestamp"], kind="stable")
    rank = events.groupby("user_id").cumcount()
    is_first = rank < events.groupby("user_id").item_id.transform("size") // 2
    history, truth = events[is_first], events[~is_first]
    popularity = history.item_id.value_counts()

    def precision(recommended: dict[int, npt.NDArray[np.int64]]) -> float:
        hits = truth.groupby("user_id").item_id.agg(set)
        return float(np.mean([len(set(recommended[u][:10]) & hits[u]) / 10 for u in hits.index if u in recommended]))

    by_leaf = {leaf: items.item_id.value_counts() for leaf, items in history.groupby("leaf")}
    popular, planted = {}, {}
    for user, own in history.groupby("user_id"):
        seen = set(own.item_id)
        popular[user] = np.array([item for item in popularity.index[:400] if item not in seen])
        scores: dict[int, float] = {}
        for leaf, count in own.leaf.value_counts().items():
            for item, times in by_leaf[leaf].items():
                scores[item] = count * times / by_leaf[leaf].sum()
        planted[user] = np.array([item for item in sorted(scores, key=lambda i: -scores[i]) if item not in seen])
    assert precision(planted) > 2 * precision(popular)


def test_synthetic_format_generates_and_reads_back(spark: SparkSession, tmp_path: Path) -> None:
    config = resolve(DatasetConfig(format="synthetic", synthetic=SMALL), scratch=str(tmp_path / "raw"))
    logs, catalogue = read_logs(spark, config), read_catalogue(spark, config)
    assert catalogue is not None
    assert logs.where("event_time is not null and weight > 0 and label > 0").count() == generate(SMALL)[0].num_rows
    assert catalogue.where("title is not null and category is not null and active is not null").count() == 600
    again = resolve(DatasetConfig(format="synthetic", path=str(tmp_path / "raw")))
    assert (again.path, again.catalogue) == (config.path, config.catalogue)
