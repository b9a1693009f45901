"""Means over seeds: of a method that all seeds have, and of one that some of them lack."""

from __future__ import annotations

import numpy as np
import pytest

from dr_core.evaluation.evaluator import METRICS, Point
from pipelines.config.run import RunConfig
from pipelines.evaluation.measurement import Measurement
from pipelines.evaluation.results import curves, differences, results, seeds_measured

CONFIG = RunConfig.model_validate(
    {
        "name": "world",
        "dataset": {},
        "serving": {"k": 5},
        "evaluation": {"compare_at_shares": [0.5], "bootstrap": 100},
    }
)
NUM_USERS = 20


def point(method: str, candidates: float, figure: float) -> Point:
    values = np.full(NUM_USERS, figure)
    figures = {(filtered, 5, metric): values for filtered in (True, False) for metric in METRICS}
    return Point(method, None, np.full(NUM_USERS, candidates), values, 10 * candidates, None, figures)


def measured(**methods: float) -> Measurement:
    own = [point("deep_retrieval", candidates, 0.3) for candidates in (10.0, 50.0, 90.0)]
    points = {
        name: [point(name, candidates, figure) for candidates in (10.0, 90.0)] for name, figure in methods.items()
    }
    operating = {"deep_retrieval": own[1]} | {name: found[0] for name, found in points.items()}
    return Measurement({"deep_retrieval": own, **points}, operating, 4)


SEEDS = [measured(random_paths=0.2, ease=0.1), measured(random_paths=0.1, ease=0.3), measured(random_paths=0.3)]


def test_a_method_that_some_seeds_lack_is_the_mean_of_those_that_have_it() -> None:
    rows = {row["method"]: row for row in results(SEEDS, CONFIG) if row["filtered"]}
    assert rows["random_paths"]["precision"] == pytest.approx(0.2)
    assert rows["ease"]["precision"] == pytest.approx(0.2)
    assert rows["ease"]["sd"] == pytest.approx(np.std([0.1, 0.3], ddof=1))
    drawn = {row["method"]: row["overlap"] for row in curves(SEEDS, CONFIG) if row["filtered"]}
    assert drawn["ease"] == pytest.approx(0.2)
    assert seeds_measured(SEEDS) == {"ease": 2}


def test_differences_pair_the_seeds_that_have_both() -> None:
    rows = {
        (row["against"], row["axis"]): row["mean"]
        for row in differences(SEEDS, CONFIG, 100)
        if row["filtered"] and row["metric"] == "precision"
    }
    assert rows[("random_paths", "candidates")] == pytest.approx(0.3 - 0.2)
    assert rows[("ease", "candidates")] == pytest.approx(0.3 - 0.2)
    assert rows[("ease", None)] == pytest.approx(0.3 - 0.2)


def test_a_figure_that_nobody_has_is_none() -> None:
    without = measured(ease=float("nan"))
    without.operating["ease"].figures = {
        key: np.full(NUM_USERS, 0.5) if key[2] == "precision" else values
        for key, values in without.operating["ease"].figures.items()
    }
    row = next(row for row in results([without], CONFIG) if row["method"] == "ease")
    assert row["precision"] == 0.5
    assert row["recall"] is None
    assert row["candidate_recall"] is None
