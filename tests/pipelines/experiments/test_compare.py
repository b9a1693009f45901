"""Where methods are read, and what the baselines may choose from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dr_core.errors import ConfigError
from dr_core.evaluation.evaluator import Point
from pipelines.config.load import load_config
from pipelines.experiments.baselines import BASELINES, families_of, offered
from pipelines.experiments.compare import operating_point
from pipelines.experiments.indexes import EQUAL_WORK, fills_lists
from pipelines.experiments.streaming_vq import STREAMING_VQ, build_streaming_vq

CONFIG = load_config(Path(__file__).parents[3] / "conf" / "demo.yaml")
FULL_Uk = np.arange(400).reshape(40, 10)
SHORT_Uk = np.where(np.arange(10) < 9, FULL_Uk, -1)


def point(candidates: float, multiply_adds: float) -> Point:
    return Point("index", 1.0, np.full(40, candidates), np.ones(40), multiply_adds, None)


def test_lists_with_empty_places_are_not_full() -> None:
    assert fills_lists(FULL_Uk)
    assert fills_lists(np.where(FULL_Uk == 7, -1, FULL_Uk))
    assert not fills_lists(SHORT_Uk)


def test_a_method_is_read_nearest_to_the_cost_of_what_is_served() -> None:
    served = point(50.0, 900.0)
    measured = [(point(20.0, 1000.0), FULL_Uk), (point(45.0, 2000.0), FULL_Uk), (point(90.0, 4000.0), FULL_Uk)]
    assert operating_point("two_tower_ivf", measured, served) is measured[1]
    assert operating_point(EQUAL_WORK, measured, served) is measured[0]


def test_lists_that_are_not_full_are_passed_over_while_others_are() -> None:
    served = point(50.0, 900.0)
    measured = [(point(50.0, 900.0), SHORT_Uk), (point(90.0, 4000.0), FULL_Uk)]
    assert operating_point("two_tower_hnsw", measured, served) is measured[1]
    assert operating_point("two_tower_hnsw", measured[:1], served) is measured[0]


def test_families_of_methods_come_in_the_usual_order_and_unknown_ones_are_named() -> None:
    assert families_of(["two_tower_hnsw", "ease", "softmax_ivf"]) == ["ease", "two_tower", "softmax"]
    with pytest.raises(ConfigError, match=r"--methods magic: not a method; choose from item_cf, .*two_tower_hnsw"):
        families_of(["ease", "magic"])


def test_a_baseline_that_is_trained_tells_its_epochs() -> None:
    trained = set()
    for family, recipe in BASELINES.items():
        for settings in offered(family)["offered"][family]:
            built = recipe.build(CONFIG, settings, 0).config  # type: ignore[attr-defined]
            if hasattr(built, "epochs"):
                trained.add(family)
                assert built.epochs == settings["epochs"]
    assert trained == {"mult_vae", "youtube_dnn", "self_attention", "two_tower", "ffm"}


@pytest.mark.parametrize("name", ["youtube_dnn", "self_attention"])
def test_an_encoder_under_the_softmax_has_the_runs_weight_decay(name: str) -> None:
    decayed = CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update={"weight_decay": 0.25})})
    built = BASELINES[name].build(decayed, BASELINES[name].settings[0], 0)
    assert built.config.weight_decay == 0.25  # type: ignore[attr-defined]


def test_streaming_vq_learns_from_the_runs_own_rows_with_its_encoder() -> None:
    decayed = CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update={"weight_decay": 0.25})})
    tried = offered(STREAMING_VQ)["offered"][STREAMING_VQ]
    assert families_of([STREAMING_VQ]) == [STREAMING_VQ]
    for settings in tried:
        built = build_streaming_vq(decayed, settings, 0).config
        assert built.encoder == CONFIG.encoder
        assert (built.cut.history_length, built.cut.positions) == (CONFIG.history_length, CONFIG.samples.positions)
        assert built.weight_decay == 0.25
        assert {name: getattr(built, name) for name in settings} == settings
