"""The choice among a method's settings."""

from __future__ import annotations

import time
from typing import Any

import pytest

from dr_core.baselines.ease import EASE, EASEConfig
from pipelines.experiments.choose import choose

OFFERED = [{"regularisation": value} for value in (300.0, 20.0, 1000.0)]


def test_the_best_on_the_validation_users_is_kept_and_all_that_was_tried_is_told() -> None:
    fitted: list[EASEConfig] = []

    def fit(settings: Any) -> EASEConfig:
        fitted.append(EASEConfig(**settings))
        return fitted[-1]

    choice = choose("ease", OFFERED, fit, lambda config: -abs(config.regularisation - 30.0))
    assert choice.best.regularisation == choice.record["settings"]["regularisation"] == 20.0
    assert [trial["settings"] for trial in choice.record["trials"]] == OFFERED
    assert len(fitted) == len(OFFERED)
    assert choice.record["validation"] == max(trial["validation"] for trial in choice.record["trials"]) == -10.0


def test_the_first_of_equals_is_kept() -> None:
    assert choose("ease", OFFERED, dict, lambda _: 0.5).best == OFFERED[0]


def test_settings_that_differ_in_the_half_life_share_a_fit_and_its_seconds() -> None:
    """The trials add up to the time spent, and the best has the time of the fit that it answers with."""
    offered = [{"regularisation": 20.0}, {"regularisation": 5.0}, {"regularisation": 20.0, "half_life": 1.0}]
    fitted: list[EASE] = []

    def fit(settings: Any) -> EASE:
        time.sleep(0.02)
        fitted.append(EASE(EASEConfig(**settings)))
        return fitted[-1]

    choice = choose("ease", offered, fit, lambda baseline: baseline.config.half_life or 0.0)
    assert [baseline.config.regularisation for baseline in fitted] == [20.0, 5.0]
    assert choice.best.config == EASEConfig(**offered[2])
    assert choice.record["settings"] == offered[2]
    assert choice.record["trials"][2]["seconds"] == 0.0
    assert choice.record["seconds"] == choice.record["trials"][0]["seconds"] > 0


def test_nothing_to_choose_from_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="ease was given no settings"):
        choose("ease", [], dict, lambda _: 0.0)
