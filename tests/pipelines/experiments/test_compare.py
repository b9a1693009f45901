"""The choice among a rival's settings."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dr_core.baselines.ease import EASE, EASEConfig
from pipelines.config.load import load_config
from pipelines.experiments.baselines import RIVALS, offered
from pipelines.experiments.compare import Comparison, _answers

CONFIG = load_config(Path(__file__).parents[3] / "conf" / "demo.yaml")
OFFERED = [{"regularisation": value} for value in (300.0, 20.0, 1000.0)]


def chosen(settled: dict[str, Any], method: str = "ease") -> tuple[EASEConfig, dict[str, Any], list[EASEConfig]]:
    comparison = Comparison(SimpleNamespace(config=CONFIG), settled)  # type: ignore[arg-type]
    fitted: list[EASEConfig] = []

    def fit(settings: Any) -> EASEConfig:
        fitted.append(EASEConfig(**settings))
        return fitted[-1]

    best, record = comparison._choose(method, OFFERED, fit, lambda some: -abs(some.regularisation - 30.0))
    return best, record, fitted


def test_the_best_on_the_validation_users_is_kept_and_all_that_was_tried_is_told() -> None:
    best, record, fitted = chosen({})
    assert best.regularisation == record["settings"]["regularisation"] == 20.0
    assert [trial["settings"] for trial in record["trials"]] == OFFERED
    assert len(fitted) == len(OFFERED)
    assert record["validation"] == max(trial["validation"] for trial in record["trials"])


def test_the_first_of_equals_is_kept() -> None:
    comparison = Comparison(SimpleNamespace(config=CONFIG))  # type: ignore[arg-type]
    best, _ = comparison._choose("ease", OFFERED, dict, lambda _: 0.5)
    assert best == OFFERED[0]


@pytest.mark.parametrize("value", [300.0, 1000.0])
def test_what_an_earlier_seed_chose_is_fitted_alone(value: float) -> None:
    best, record, fitted = chosen({"ease": {"regularisation": value}})
    assert best.regularisation == value
    assert len(fitted) == len(record["trials"]) == 1


def test_settings_that_differ_in_the_half_life_share_a_fit_and_its_seconds() -> None:
    """The trials add up to the time spent, and the best has the time of the fit that it answers with."""
    offered = [{"regularisation": 20.0}, {"regularisation": 5.0}, {"regularisation": 20.0, "half_life": 1.0}]
    fitted: list[EASE] = []

    def fit(some: Any) -> EASE:
        time.sleep(0.02)
        fitted.append(EASE(EASEConfig(**some)))
        return fitted[-1]

    comparison = Comparison(SimpleNamespace(config=CONFIG))  # type: ignore[arg-type]
    best, record = comparison._choose("ease", offered, fit, lambda peer: peer.config.half_life or 0.0)
    assert [peer.config.regularisation for peer in fitted] == [20.0, 5.0]
    assert best.config == EASEConfig(**offered[2])
    assert record["settings"] == offered[2]
    assert record["trials"][2]["seconds"] == 0.0
    assert record["seconds"] == record["trials"][0]["seconds"] > 0


def test_another_method_is_still_chosen() -> None:
    assert chosen({"als": {"factors": 64}})[0].regularisation == 20.0


def test_lists_with_empty_places_are_no_answer() -> None:
    full_Uk = np.arange(400, dtype=np.int32).reshape(40, 10)
    assert _answers(full_Uk)
    assert _answers(np.where(full_Uk == 7, np.int32(-1), full_Uk))
    assert not _answers(np.where(np.arange(10) < 9, full_Uk, np.int32(-1)))


def test_a_rival_that_is_trained_tells_its_epochs() -> None:
    trained = set()
    for family, rival in RIVALS.items():
        for some in offered(family)["offered"][family]:
            built = rival.build(CONFIG, some, 0).config  # type: ignore[attr-defined]
            if hasattr(built, "epochs"):
                trained.add(family)
                assert built.epochs == some["epochs"]
    assert trained == {"mult_vae", "youtube_dnn", "self_attention", "two_tower", "ffm"}


@pytest.mark.parametrize("name", ["youtube_dnn", "self_attention"])
def test_an_encoder_under_the_softmax_has_the_runs_weight_decay(name: str) -> None:
    decayed = CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update={"weight_decay": 0.25})})
    assert RIVALS[name].build(decayed, RIVALS[name].settings[0], 0).config.weight_decay == 0.25  # type: ignore[attr-defined]
