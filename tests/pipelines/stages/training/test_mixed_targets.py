"""Mixed targets: the samples again, with items that the frozen softmax draws."""

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from dr_core.learning.checkpoint import save_model
from dr_core.learning.mixed_targets import MixedTargetsConfig
from dr_core.model.objective import batch_from_arrays
from pipelines.stages.training.mixed_targets import mix_targets
from pipelines.stages.training.petastorm import row_group_sizes
from pipelines.storage.workdir import Workdir

DRAWS, TOP = 5, 8
CONFIG = MixedTargetsConfig(share=0.6, draws=DRAWS, best_items=TOP)


def mix(
    spark: SparkSession,
    world,
    name: str,
    *,
    samples: str = "samples",
    seed: int = 0,
    model_id: str = "m",
    groups: np.ndarray | None = None,
    **config: object,
) -> pd.DataFrame:
    """Mix targets into a table of ``world`` and return it, rows in order of (user, row)."""
    summary = mix_targets(
        spark,
        world.workdir,
        samples=samples,
        name=name,
        model_id=model_id,
        groups_uri=world.workdir.write_array(
            world.path_VJ[:, 0] if groups is None else groups, "models", model_id, "groups.npy"
        ),
        config=CONFIG.model_copy(update=config),
        seed=seed,
    )
    assert summary == {"rows_in": 64, "rows_out": 64}
    return table(spark, world.workdir, name)


def table(spark: SparkSession, workdir: Workdir, name: str) -> pd.DataFrame:
    return spark.read.parquet(workdir.table(name)).toPandas().sort_values(["user", "row"], ignore_index=True)


def matrix(frame: pd.DataFrame, name: str) -> np.ndarray:
    """[rows, 2 positions, targets]"""
    return np.stack(frame[name]).reshape(len(frame), 2, -1)


@pytest.fixture(scope="module")
def mixed(spark: SparkSession, world) -> pd.DataFrame:
    return mix(spark, world, "mixed")


@pytest.fixture(scope="module")
def plain(spark: SparkSession, world) -> pd.DataFrame:
    return table(spark, world.workdir, "samples")


def test_true_targets_stay_and_draws_stand_beside_them(plain: pd.DataFrame, mixed: pd.DataFrame) -> None:
    for name in ("targets", "weights"):
        before, after = matrix(plain, name), matrix(mixed, name)
        assert after.shape[2] == before.shape[2] + DRAWS
        np.testing.assert_array_equal(after[..., : before.shape[2]], before)
    rest = [name for name in plain.columns if name not in ("targets", "weights")]
    assert list(mixed.columns) == list(plain.columns)
    pd.testing.assert_frame_equal(mixed[rest], plain[rest])


def test_draws_carry_the_configured_share_of_every_states_weight(plain: pd.DataFrame, mixed: pd.DataFrame) -> None:
    weights, targets = matrix(mixed, "weights"), matrix(mixed, "targets")
    drawn = weights[..., -DRAWS:].sum(2)
    total = weights.sum(2)
    used = total > 0
    np.testing.assert_allclose(drawn[used] / total[used], CONFIG.share, rtol=1e-5)
    assert (np.ptp(weights[..., -DRAWS:], axis=2) == 0).all(), "the draws of a state weigh the same"
    np.testing.assert_array_equal(targets[..., -DRAWS:] >= 0, np.repeat(used[..., None], DRAWS, axis=2))
    assert not used.all(), "some positions are unused"
    assert weights[..., :-DRAWS].sum() == matrix(plain, "weights").sum()


def test_only_a_states_best_items_are_drawn(world, mixed: pd.DataFrame) -> None:
    batch = batch_from_arrays({name: np.stack(mixed[name]) if name != "length" else mixed[name].to_numpy() for name in (
        "history", "length", "positions", "targets", "weights", "context_categorical", "context_numeric")})  # fmt: skip
    user_NE, target_NT, _ = world.model.encode(batch)
    best = world.model.reranker.score_all(user_NE).topk(TOP, dim=1).indices
    drawn = target_NT[:, -DRAWS:]
    assert (drawn[..., None] == best[:, None]).any(2).all()
    assert len(drawn.unique()) > TOP, "states differ in what they draw"


def test_draws_depend_on_the_seed_and_the_block_alone(
    spark: SparkSession, world, mixed: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The same rows in other files, in another order, through another number of partitions: the same table."""
    shuffled = (
        spark.read.parquet(world.workdir.table("samples")).repartition(5, "length").sortWithinPartitions("row", "user")
    )
    shuffled.write.parquet(world.workdir.table("shuffled"))
    before = spark.conf.get("spark.sql.shuffle.partitions")
    spark.conf.set("spark.sql.shuffle.partitions", "5")
    try:
        pd.testing.assert_frame_equal(mix(spark, world, "mixed_shuffled", samples="shuffled"), mixed)
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", before)
    other = mix(spark, world, "mixed_other", seed=1)
    assert not np.array_equal(matrix(other, "targets"), matrix(mixed, "targets"))


def test_the_table_keeps_its_row_groups_for_the_readers(world, mixed: pd.DataFrame) -> None:
    sizes = [row_group_sizes(world.workdir.filesystem, world.workdir.table(name)) for name in ("samples", "mixed")]
    assert sorted(sizes[0]) == sorted(sizes[1])


def test_many_items_are_drawn_through_their_groups(spark: SparkSession, world, plain: pd.DataFrame) -> None:
    config: dict[str, object] = {"exact_below": 10, "probed_groups": 3, "always_scored": 4}
    targets = matrix(mix(spark, world, "mixed_groups", **config), "targets")
    drawn = targets[..., -DRAWS:]
    np.testing.assert_array_equal(targets[..., :-DRAWS], matrix(plain, "targets"))
    assert len(np.unique(drawn[drawn >= 0])) > 4


@pytest.mark.parametrize("changed", ["model", "groups"])
def test_a_model_or_groups_written_again_under_their_name_are_read_again(
    spark: SparkSession, world, make_model, changed: str
) -> None:
    """A worker that has drawn with the first contents draws with the second: the table of a fresh name says what is right."""
    workdir, labels = world.workdir, np.arange(world.model.num_items)
    config: dict[str, object] = {"exact_below": 10, "probed_groups": 2, "always_scored": 0}

    def write(model_id: str, number: int) -> pd.DataFrame:
        model = make_model(num_items=len(labels), num_nodes=5, num_paths=2, seed=10 + number * (changed == "model"))
        save_model(model, workdir.filesystem, workdir.path("models", model_id))
        groups = labels % 5 if number * (changed == "groups") else labels // 6
        return mix(spark, world, f"mixed_{model_id}", model_id=model_id, groups=groups, **config)

    first, second = (matrix(write("again", number), "targets") for number in range(2))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(second, matrix(write(f"fresh_{changed}", 1), "targets"))
