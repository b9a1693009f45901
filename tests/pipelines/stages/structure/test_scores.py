"""s[v, c] and N_v on Spark, against plain sums over the samples."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dr_core.errors import DeepRetrievalError
from dr_core.learning.config import ScoresConfig
from dr_core.model.objective import batch_from_arrays
from dr_core.paths.scores import ScoreRows, merge_streaming
from pipelines.stages.blocks import read_samples
from pipelines.stages.structure.scores import (
    Carried,
    accumulate_scores,
    item_weights,
    measure_likelihood,
    path_scores,
)
from pipelines.storage.item_paths import write_paths

S = 6
Scores = dict[tuple[int, int], tuple[float, bool]]


def states(world) -> Iterator[tuple[torch.Tensor, list[tuple[int, float]]]]:
    """Every state alone, [1, E], with its targets and weights."""
    with torch.no_grad():
        user_NE, target_NT, weight_NT = world.model.encode(batch_from_arrays(world.columns))
    for row in range(len(user_NE)):
        pairs = zip(target_NT[row].tolist(), weight_NT[row].tolist(), strict=True)
        yield user_NE[row : row + 1], [(item, weight) for item, weight in pairs if item >= 0]


@pytest.fixture(scope="module")
def naive(world) -> dict[tuple[int, int], float]:
    """s[v, c] over every beam path and every current path, one state and one target at a time."""
    every = torch.arange(world.model.space.num_paths)
    total: dict[tuple[int, int], float] = defaultdict(float)
    for user_1E, targets in states(world):
        probability = world.model.structure.log_prob(user_1E, every[None]).detach().double().exp()[0]
        beam = probability.topk(S).indices.tolist()
        for item, weight in targets:
            for path in {*beam, *world.path_VJ[item].tolist()}:
                total[item, path] += weight * float(probability[path])
    return total


def collect(frame: DataFrame) -> Scores:
    rows = frame.collect()
    found = {(row.item_id, row.path_id): (row.score, row.is_current) for row in rows}
    assert len(found) == len(rows), "an (item, path) came twice"
    return found


def assert_best_of(found: Scores, naive: dict[tuple[int, int], float], world) -> None:
    """Every row has the naive score; an item has its current paths and its S best others."""
    for (item, path), (score, is_current) in found.items():
        assert score == pytest.approx(naive[item, path], rel=1e-4, abs=1e-7)
        assert is_current == (path in world.path_VJ[item])
    for item in {item for item, _ in naive}:
        own = set(world.path_VJ[item].tolist())
        others = {path: score for (v, path), score in naive.items() if v == item and path not in own}
        kept = {path for v, path in found if v == item}
        assert own <= kept
        assert len(kept - own) == min(S, len(others))
        dropped = [score for path, score in others.items() if path not in kept]
        assert min(others[path] for path in kept - own) >= max(dropped, default=0.0) - 1e-6


@pytest.fixture(scope="module")
def exact(spark: SparkSession, world) -> Scores:
    samples = read_samples(spark, world.workdir, "samples")
    return collect(path_scores(samples, world.frozen, ScoresConfig(num_candidates=S)))


def test_scores_equal_a_plain_sum_over_the_samples(world, naive, exact: Scores) -> None:
    assert_best_of(exact, naive, world)


@pytest.mark.parametrize("partitions", [1, 3, 7])
def test_scores_do_not_depend_on_partitions(spark: SparkSession, world, exact: Scores, partitions: int) -> None:
    """To the last bit, whatever the partitions and the order of the rows."""
    samples = read_samples(spark, world.workdir, "samples")
    before = spark.conf.get("spark.sql.shuffle.partitions")
    spark.conf.set("spark.sql.shuffle.partitions", str(partitions))
    try:
        shuffled = samples.orderBy(F.rand(partitions)).repartition(partitions, F.rand(9))
        assert collect(path_scores(shuffled, world.frozen, ScoresConfig(num_candidates=S))) == exact
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", before)


@pytest.mark.parametrize("rows_held", [0, 50])
def test_scores_do_not_depend_on_how_much_a_task_adds_up(
    spark: SparkSession, world, exact: Scores, rows_held: int
) -> None:
    """A task that may hold little hands its sums on in pieces."""
    samples = read_samples(spark, world.workdir, "samples")
    found = path_scores(samples, world.frozen, ScoresConfig(num_candidates=S), rows_held=rows_held)
    assert collect(found) == exact


def test_few_paths_a_block_keep_the_current_ones_and_never_overstate(
    spark: SparkSession, world, naive, exact: Scores
) -> None:
    samples = read_samples(spark, world.workdir, "samples")
    found = collect(path_scores(samples, world.frozen, ScoresConfig(num_candidates=S, candidates_per_block=2)))
    for item, path in exact:
        if path in world.path_VJ[item]:
            assert found[item, path] == exact[item, path], "current paths are summed exactly"
    assert all(score <= naive[key] * (1 + 1e-4) + 1e-7 for key, (score, _) in found.items())
    best = {item: max(s for (v, _), (s, _) in exact.items() if v == item) for item, _ in exact}
    kept = {item: max(s for (v, _), (s, _) in found.items() if v == item) for item, _ in found}
    assert sum(kept.values()) > 0.8 * sum(best.values())
    assert len(found) < len(exact)


def test_more_paths_a_block_than_there_are_is_exact(spark: SparkSession, world, exact: Scores) -> None:
    samples = read_samples(spark, world.workdir, "samples")
    assert collect(path_scores(samples, world.frozen, ScoresConfig(num_candidates=S, candidates_per_block=25))) == exact


def test_weights_are_summed_by_item(spark: SparkSession, world) -> None:
    targets, weights = world.columns["targets"].ravel(), world.columns["weights"].ravel()
    expected = np.bincount(targets[targets >= 0], weights[targets >= 0])
    rows = item_weights(read_samples(spark, world.workdir, "samples")).collect()
    assert {row.item_id: row.num_events for row in rows} == {i: n for i, n in enumerate(expected) if n > 0}


def test_the_stage_writes_both_tables_and_may_be_repeated(spark: SparkSession, world, naive) -> None:
    options = {"samples": "samples", "model": world.frozen, "release_id": "r", "config": ScoresConfig(num_candidates=S)}
    summaries = [accumulate_scores(spark, world.workdir, **options) for _ in range(2)]
    found = collect(world.workdir.read_release(spark, "path_scores", "r"))
    assert summaries == [{"rows_in": 64, "rows_out": len(found)}] * 2
    assert_best_of(found, naive, world)
    weights = world.workdir.read_release(spark, "item_stats", "r").agg(F.sum("num_events")).first()[0]
    assert weights == world.columns["weights"].sum()


def test_a_day_is_merged_into_the_scores_carried_so_far(spark: SparkSession, world) -> None:
    """Spark's merge equals the local one (section 3); replayed rows add nothing; current are the paths in force."""
    config = ScoresConfig(num_candidates=S)
    options = {"samples": "samples", "model": world.frozen, "config": config}
    write_paths(spark, world.workdir, world.path_VJ, "day0")
    accumulate_scores(spark, world.workdir, release_id="day0", **options)
    samples = read_samples(spark, world.workdir, "samples").withColumn("is_replay", F.col("block") > 1)
    samples.write.parquet(world.workdir.table("day1"))
    day1 = options | {"samples": "day1"}
    accumulate_scores(spark, world.workdir, release_id="day1", carried=Carried("day0", 0.5), **day1)

    def rows(frame) -> ScoreRows:
        table = frame.select("item_id", "path_id", "score", "is_current").sort("item_id", "path_id").toPandas()
        return ScoreRows(*(table[name].to_numpy() for name in table.columns))

    old = rows(world.workdir.read_release(spark, "path_scores", "day0"))
    new = rows(path_scores(samples.where("not is_replay").drop("is_replay"), world.frozen, config))
    expected = merge_streaming(old, new, 0.5, S)
    found = rows(world.workdir.read_release(spark, "path_scores", "day1"))
    for name in ("item_ids", "path_ids", "is_current"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-12)

    weights = {row.item_id: row.num_events for row in world.workdir.read_release(spark, "item_stats", "day0").collect()}
    added = {row.item_id: row.num_events for row in item_weights(samples.where("not is_replay")).collect()}
    merged = {row.item_id: row.num_events for row in world.workdir.read_release(spark, "item_stats", "day1").collect()}
    assert merged == {item: 0.5 * weights[item] + added.get(item, 0.0) for item in weights}


def test_samples_without_targets_are_refused(spark: SparkSession, world, tmp_path) -> None:
    empty = read_samples(spark, world.workdir, "samples")
    for name in ("positions", "targets"):
        empty = empty.withColumn(name, F.transform(name, lambda _: F.lit(-1)))
    empty.write.parquet(world.workdir.table("untargeted"))
    config = ScoresConfig(num_candidates=S)
    with pytest.raises(DeepRetrievalError, match="hold no targets"):
        accumulate_scores(spark, world.workdir, samples="untargeted", model=world.frozen, release_id="e", config=config)


@torch.no_grad()
def test_likelihood_is_the_mean_log_probability_of_the_targets(spark: SparkSession, world) -> None:
    """Under each table of paths, on the first blocks only."""
    other = (world.path_VJ + 7) % world.model.space.num_paths
    uris = [world.frozen.paths_uri, world.workdir.write_array(other, "models", "m", "other.npy")]
    blocks = world.columns["block"] < 2
    part = {name: values[blocks] for name, values in world.columns.items()}
    user_NE, target_NT, weight_NT = world.model.encode(batch_from_arrays(part))
    expected = []
    for table in (world.path_VJ, other):
        path_NTJ = torch.from_numpy(table)[target_NT.clamp_min(0)]
        log_p = torch.stack(
            [world.model.structure.log_prob(user_NE, path_NTJ[:, t]).logsumexp(1) for t in range(target_NT.shape[1])],
            dim=1,
        )
        expected.append(float((log_p * weight_NT).sum() / weight_NT.sum()))
    found = measure_likelihood(
        spark, world.workdir, samples="samples", model=world.frozen, paths_uris=uris, max_blocks=2
    )
    assert found == pytest.approx(expected, rel=1e-5)
    assert found[0] != pytest.approx(found[1], rel=1e-3)

    world.workdir.write_array(world.path_VJ, "models", "m", "other.npy")
    again = measure_likelihood(
        spark, world.workdir, samples="samples", model=world.frozen, paths_uris=uris, max_blocks=2
    )
    assert again == [found[0], found[0]], "a table written again under its name is read again"
