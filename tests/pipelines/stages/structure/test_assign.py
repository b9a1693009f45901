"""The M-step on Spark against the same descent in one process."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from scipy.sparse import csr_matrix

from dr_core.learning.alpha import AlphaRule, items_per_visited_path
from dr_core.learning.config import AssignmentConfig
from dr_core.learning.energy_visitors import EnergyVisitors
from dr_core.learning.m_step import MStepFacts, m_step
from dr_core.learning.refine import Refinement
from dr_core.learning.scored_items import ItemsInMemory
from dr_core.paths.assignment import (
    PathAssignment,
    changed_rows,
    coordinate_descent,
    penalised_surrogate,
    rank_paths,
)
from dr_core.paths.best_visits import BestVisitors
from dr_core.paths.penalty import Penalty, derive_alpha
from dr_core.paths.scores import PathCandidates
from dr_core.paths.sizes import PathSizes
from dr_core.paths.space import PathSpace
from dr_core.paths.streaming import StreamingDescent
from pipelines.stages.structure.assign import assign_paths, item_rows
from pipelines.stages.structure.parts import PartFiles
from pipelines.storage.item_paths import read_paths, write_paths
from pipelines.storage.workdir import Workdir
from tests.behaviours.scored_items import ScoredItemsBehaviour

SPACE = PathSpace.even(6, 2)
NUM_ITEMS, NUM_PATHS, ROW = 300, 2, 8
ALPHA, SWEEPS = 0.002, 4
UNSCORED = 5


@dataclass(frozen=True)
class Problem:
    workdir: Workdir
    candidates: PathCandidates

    @property
    def visited(self) -> np.ndarray:
        """Twelve paths of high score, as three users might visit them."""
        total = np.bincount(self.candidates.path_ids, self.candidates.scores)
        return np.argsort(-total)[:12].reshape(3, 4).astype(np.int64)


@pytest.fixture(scope="module")
def problem(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Problem:
    """Scores, weights and paths of 300 items as tables; the last five items have no event."""
    rng = np.random.default_rng(61)
    every = np.tile(np.arange(SPACE.num_paths), (NUM_ITEMS, 1))
    paths = np.sort(rng.permuted(every, axis=1)[:, :ROW], axis=1)
    weights = rng.integers(1, 60, NUM_ITEMS).astype(np.float64)
    popularity = rng.exponential(1.0, SPACE.num_paths)
    scores = rng.exponential(1.0, paths.shape) * popularity[paths] * weights[:, None] * 0.05
    current = np.take_along_axis(paths, rng.permuted(np.tile(np.arange(ROW), (NUM_ITEMS, 1)), axis=1)[:, :NUM_PATHS], 1)
    scored = np.arange(NUM_ITEMS) < NUM_ITEMS - UNSCORED
    weights[~scored] = 0.0
    candidates = PathCandidates(
        np.r_[0, np.cumsum(np.where(scored, ROW, 0))].astype(np.int64),
        paths[scored].ravel().astype(np.int64),
        scores[scored].ravel(),
        weights,
        current.astype(np.int64),
    )
    workdir = Workdir(str(tmp_path_factory.mktemp("assign")))
    items = np.repeat(np.arange(NUM_ITEMS)[scored], ROW)
    rows = zip(items.tolist(), candidates.path_ids.tolist(), candidates.scores.tolist(), strict=True)
    frame = spark.createDataFrame(list(rows), "item_id int, path_id bigint, score double")
    frame = frame.select(F.lit("r").alias("release_id"), "*", F.lit(False).alias("is_current"))
    workdir.write_release(frame, "path_scores", "r")
    totals = [("r", item, weight) for item, weight in enumerate(weights.tolist()) if weight]
    stats = spark.createDataFrame(totals, "release_id string, item_id int, num_events double")
    workdir.write_release(stats, "item_stats", "r")
    write_paths(spark, workdir, current.astype(np.int64), "parent")
    return Problem(workdir, candidates)


def assign(
    spark: SparkSession,
    problem: Problem,
    parts: int = 1,
    rule: AlphaRule = AlphaRule(ALPHA, None),  # noqa: B008
    space: PathSpace = SPACE,
    block_items: int = 1000,
    refinement: Refinement | None = None,
) -> tuple[MStepFacts, np.ndarray]:
    """Assign under the scores of release ``r``, and read back what was written."""
    summary = assign_paths(
        spark,
        problem.workdir,
        release_id="r",
        parent_id="parent",
        num_items=NUM_ITEMS,
        num_paths=NUM_PATHS,
        space=space,
        config=AssignmentConfig(num_sweeps=SWEEPS, num_partitions=parts, block_items=block_items),
        rule=rule,
        visited_paths=problem.visited,
        refinement=refinement,
    )
    return summary, read_paths(spark, problem.workdir, "r")


def local(problem: Problem, alpha: float = ALPHA) -> PathAssignment:
    penalty = Penalty(4, alpha)
    return coordinate_descent(problem.candidates, penalty, num_paths=NUM_PATHS, num_sweeps=SWEEPS, space=SPACE)


def side_by_side(spark: SparkSession, problem: Problem, num_parts: int) -> np.ndarray:
    """Sweep the parts that Spark made one after the other, each from the sizes before the sweep."""
    rows = item_rows(
        spark, problem.workdir, release_id="r", parent_id="parent", num_parts=num_parts, num_paths=NUM_PATHS
    )
    part = rows.select("item_id", "part").sort("item_id").toPandas()["part"].to_numpy()
    assert set(part) == set(range(num_parts))
    candidates, paths = problem.candidates, problem.candidates.current_paths
    for _ in range(SWEEPS):
        sizes, swept = PathSizes.count(paths), paths.copy()
        for number in range(num_parts):
            members = np.flatnonzero(part == number)
            kept = np.isin(np.repeat(np.arange(NUM_ITEMS), np.diff(candidates.offsets)), members)
            share = PathCandidates(
                np.r_[0, np.cumsum(np.diff(candidates.offsets)[members])],
                candidates.path_ids[kept],
                candidates.scores[kept],
                candidates.weights[members],
                paths[members],
                members,
            )
            with StreamingDescent(sizes, SPACE.num_paths, Penalty(4, ALPHA), scale=num_parts, space=SPACE) as descent:
                swept[members], _ = descent.sweep(share)
        paths = swept
    return paths


def test_one_partition_is_coordinate_descent_exactly(spark: SparkSession, problem: Problem) -> None:
    summary, paths = assign(spark, problem)
    expected = local(problem)
    np.testing.assert_array_equal(paths, expected.path_ids)
    gains = problem.workdir.read_release(spark, "item_paths", "r").sort("item_id", "rank").toPandas()["gain"]
    np.testing.assert_array_equal(gains.to_numpy(), expected.gains.ravel())
    assert summary.items_moved == expected.num_moved
    assert 0.2 * NUM_ITEMS < summary.items_moved < NUM_ITEMS, "a problem in which many items move, and some stay"
    assert summary.surrogate_before == pytest.approx(expected.objective_before, rel=1e-9)
    assert summary.surrogate_after == pytest.approx(expected.objective_after, rel=1e-9)
    assert summary.surrogate_after > summary.surrogate_before
    assert (summary.alpha, summary.corrections) == (ALPHA, 0)
    assert summary.items_per_visited_path == items_per_visited_path(expected.sizes, problem.visited)
    unscored = slice(NUM_ITEMS - UNSCORED, None)
    assert not changed_rows(problem.candidates.current_paths, paths)[unscored].any(), "items without scores keep theirs"
    again, same = assign(spark, problem)
    assert again == summary
    np.testing.assert_array_equal(same, paths)


def test_four_partitions_come_close_and_count_right(spark: SparkSession, problem: Problem) -> None:
    """At least 97 % of one partition's gain in surrogate; and what the same parts give, swept here side by side."""
    summary, paths = assign(spark, problem, parts=4)
    alone = local(problem)
    gain = summary.surrogate_after - summary.surrogate_before
    assert gain >= 0.97 * (alone.objective_after - alone.objective_before)
    np.testing.assert_array_equal(np.sort(paths), np.sort(side_by_side(spark, problem, 4)))
    assert paths.shape == (NUM_ITEMS, NUM_PATHS)
    assert (np.diff(np.sort(paths, axis=1)) > 0).all(), "an item stands twice on a path"
    assert PathSizes.count(paths).counts.sum() == NUM_ITEMS * NUM_PATHS
    current = problem.candidates.current_paths
    assert summary.items_moved == changed_rows(current, paths).sum()
    assert summary.surrogate_before == pytest.approx(alone.objective_before, rel=1e-9)
    measured = penalised_surrogate(problem.candidates, paths, Penalty(4, ALPHA))
    assert summary.surrogate_after == pytest.approx(measured, rel=1e-9)
    assert not changed_rows(current, paths)[-UNSCORED:].any()


@pytest.mark.parametrize("parts", [1, 4])
def test_blocks_and_a_space_too_large_for_a_table_change_nothing(
    spark: SparkSession, problem: Problem, parts: int
) -> None:
    summary, paths = assign(spark, problem, parts=parts)
    other, same = assign(spark, problem, parts=parts, space=PathSpace.even(20_000, 2), block_items=7)
    np.testing.assert_array_equal(same, paths)
    assert (other.items_moved, other.alpha) == (summary.items_moved, summary.alpha)
    assert other.surrogate_after == pytest.approx(summary.surrogate_after, rel=1e-12)
    assert not problem.workdir.exists("runs", "mstep-r"), "what the M-step streamed is removed"


def test_alpha_is_corrected_until_visited_paths_hold_what_is_wanted(spark: SparkSession, problem: Problem) -> None:
    wanted = 25.0
    summary, paths = assign(spark, problem, rule=AlphaRule(None, wanted, corrections=6))
    start = derive_alpha(problem.candidates.weights.sum() / NUM_ITEMS, wanted)
    uncorrected = items_per_visited_path(local(problem, start).sizes, problem.visited)
    assert summary.corrections >= 1
    assert abs(summary.items_per_visited_path - wanted) < abs(uncorrected - wanted)
    assert summary.items_per_visited_path == items_per_visited_path(PathSizes.count(paths), problem.visited)
    np.testing.assert_array_equal(paths, local(problem, summary.alpha).path_ids)


def test_a_parent_of_another_catalogue_is_refused(spark: SparkSession, problem: Problem) -> None:
    with pytest.raises(ValueError, match="300 items are to get paths after parent, not 301"):
        assign_paths(
            spark,
            problem.workdir,
            release_id="r",
            parent_id="parent",
            num_items=NUM_ITEMS + 1,
            num_paths=NUM_PATHS,
            space=SPACE,
            config=AssignmentConfig(),
            rule=AlphaRule(ALPHA, None),
            visited_paths=problem.visited,
        )


def test_alpha_is_corrected_only_where_a_measurement_asks_for_it() -> None:
    rule = AlphaRule(None, 20.0, corrections=2)
    assert rule.start(40.0) == derive_alpha(40.0, 20.0)
    assert rule.starting_at(0.5).start(40.0) == 0.5
    assert rule.corrected(1.0, 21.0, 0) is None, "near enough"
    assert rule.corrected(1.0, 0.0, 0) is None, "no visited path holds an item"
    assert rule.corrected(1.0, 30.0, 2) is None, "no attempt left"
    assert rule.corrected(1.0, 30.0, 1) == pytest.approx(1.5**3)
    assert rule.corrected(1.0, 15.0, 1) == pytest.approx(0.75**3)
    assert AlphaRule(0.5, None).start(40.0) == 0.5
    assert AlphaRule(0.5, None).corrected(0.5, 1000.0, 0) is None, "a given alpha stands"
    with pytest.raises(ValueError, match="alpha"):
        AlphaRule(None, None).start(40.0)


UNREACHABLE = AlphaRule(ALPHA * 1e6, 1.0, corrections=3)
"""Visited paths cannot hold so few: 300 items x 2 on 36 paths."""


def test_an_alpha_that_changes_nothing_is_not_kept(spark: SparkSession, problem: Problem) -> None:
    summary, paths = assign(spark, problem, rule=UNREACHABLE)
    assert (summary.alpha, summary.corrections) == (ALPHA * 1e6, 1)
    np.testing.assert_array_equal(paths, local(problem, ALPHA * 1e6).path_ids)
    rule = AlphaRule(None, 20.0)
    assert [rule.is_nearer(after, 30.0) for after in (24.0, 18.0, 29.9, 12.0, 0.0)] == [True, True, False, False, False]


def test_items_on_visited_paths_are_averaged_over_visits() -> None:
    sizes = PathSizes.count(np.array([3, 3, 3, 5]))
    assert items_per_visited_path(sizes, np.array([[3, 5], [3, 7]])) == (3 + 1 + 3 + 0) / 4
    assert items_per_visited_path(sizes, np.zeros((0, 4), np.int64)) == 0.0


@pytest.mark.parametrize(
    "rule",
    [AlphaRule(ALPHA, None), AlphaRule(None, 25.0, corrections=6), UNREACHABLE],
    ids=["given", "corrected", "kept"],
)
def test_spark_and_memory_run_the_same_m_step(spark: SparkSession, problem: Problem, rule: AlphaRule) -> None:
    """The same paths, alpha and corrections, whatever rule alpha follows."""
    summary, paths = assign(spark, problem, rule=rule)
    placed, facts = m_step(ItemsInMemory(problem.candidates, SWEEPS, SPACE), rule, problem.visited)
    np.testing.assert_array_equal(paths, placed.path_VJ)
    assert summary.surrogate_before == pytest.approx(facts.surrogate_before, rel=1e-9)
    assert summary.surrogate_after == pytest.approx(facts.surrogate_after, rel=1e-9)
    whole = ("items_moved", "items_placed", "alpha", "corrections", "items_per_visited_path")
    assert [getattr(summary, name) for name in whole] == [getattr(facts, name) for name in whole]


@pytest.fixture(scope="module")
def single(spark: SparkSession, problem: Problem, tmp_path_factory: pytest.TempPathFactory) -> Problem:
    """The same scores for items that have one path each, the first of theirs."""
    workdir = Workdir(str(tmp_path_factory.mktemp("single")))
    for table in ("path_scores", "item_stats"):
        workdir.write_release(problem.workdir.read_release(spark, table, "r"), table, "r")
    current = problem.candidates.current_paths[:, :1].copy()
    write_paths(spark, workdir, current, "parent")
    return Problem(workdir, replace(problem.candidates, current_paths=current))


@pytest.mark.parametrize("space", [SPACE, PathSpace.even(20_000, 2)], ids=["table", "universe"])
def test_what_is_written_and_told_is_of_the_refined_mapping(
    spark: SparkSession, single: Problem, space: PathSpace
) -> None:
    """Gain, surrogate and items on visited paths are those of the paths that are used, not of the descent's."""
    mass_NV = csr_matrix(np.random.default_rng(5).exponential(1.0, (40, NUM_ITEMS)).astype(np.float32) ** 4)
    visitors = BestVisitors(mass_NV, SPACE.num_paths, (20.0, 60.0))
    refinement = Refinement(mass_NV, visitors, SPACE.num_paths, num_sweeps=20, capacity=1.75, seed=0)
    facts = assign_paths(
        spark,
        single.workdir,
        release_id="r",
        parent_id="parent",
        num_items=NUM_ITEMS,
        num_paths=1,
        space=space,
        config=AssignmentConfig(num_sweeps=SWEEPS, num_partitions=2, block_items=70),
        rule=AlphaRule(ALPHA, None),
        visited_paths=single.visited,
        refinement=refinement,
    )
    rows = single.workdir.read_release(spark, "item_paths", "r").sort("item_id").toPandas()
    paths, penalty, candidates = rows["path_id"].to_numpy()[:, None], Penalty(4, ALPHA), single.candidates
    sizes, current = PathSizes.count(paths), candidates.current_paths
    np.testing.assert_allclose(rows["gain"], rank_paths(candidates, paths, penalty)[1][:, 0], rtol=1e-9)
    assert facts.items_refined > 0
    assert facts.items_moved == changed_rows(current, paths).sum() != facts.items_moved_by_descent
    assert facts.surrogate_after == pytest.approx(penalised_surrogate(candidates, paths, penalty), rel=1e-9)
    assert facts.surrogate_before == pytest.approx(penalised_surrogate(candidates, current, penalty), rel=1e-9)
    assert facts.surrogate_after < facts.surrogate_after_descent, "it follows the softmax"
    assert facts.surrogate_before < facts.surrogate_after_descent
    assert facts.items_per_visited_path == items_per_visited_path(sizes, single.visited)
    assert visitors.captured_mass(paths) > visitors.captured_mass(current)


def test_an_item_that_a_refinement_leaves_with_fewer_paths_has_fewer_rows(
    spark: SparkSession, problem: Problem
) -> None:
    generator = np.random.default_rng(6)
    user_NE, vector_VE = (
        torch.from_numpy(generator.standard_normal((n, 6)).astype(np.float32)) for n in (60, NUM_ITEMS)
    )
    mass_NV = csr_matrix(torch.softmax(2 * user_NE @ vector_VE.T, dim=1).numpy())
    visitors = EnergyVisitors(user_NE, mass_NV, vector_VE, torch.zeros(NUM_ITEMS), SPACE.num_paths, (20.0,))
    refinement = Refinement(mass_NV, visitors, SPACE.num_paths, num_sweeps=3, capacity=6.0, seed=0)
    facts, paths = assign(spark, problem, refinement=refinement)
    rows = problem.workdir.read_release(spark, "item_paths", "r").toPandas().sort_values(["item_id", "rank"])
    assert facts.items_refined > 0
    assert rows["path_id"].min() >= 0
    assert sorted(rows["item_id"].unique()) == list(range(NUM_ITEMS))
    assert NUM_ITEMS < len(rows) < NUM_ITEMS * NUM_PATHS
    assert (rows.groupby("item_id").cumcount() == rows["rank"]).all()
    assert (paths[:, 0] >= 0).all()
    assert (paths >= 0).sum() == len(rows)


class TestPartFiles(ScoredItemsBehaviour):
    @pytest.fixture(scope="class")
    def items(self, spark: SparkSession, problem: Problem) -> Iterator[PartFiles]:
        rows = item_rows(spark, problem.workdir, release_id="r", parent_id="parent", num_parts=2, num_paths=NUM_PATHS)
        parts = PartFiles(spark, problem.workdir, "runs/mstep-seam", 2, SWEEPS, SPACE)
        parts.write(rows, block_items=70)
        yield parts
        parts.remove()
