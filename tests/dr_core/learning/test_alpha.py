"""Where alpha comes from when a run goes on from an earlier one."""

import pytest

from dr_core.learning.alpha import alpha_rule, carried_alpha_rule
from dr_core.learning.budget import choose_structure
from dr_core.learning.config import LearningConfig


def config(**penalty: object) -> LearningConfig:
    return LearningConfig.model_validate({"penalty": penalty, "budget": {"candidates": 20, "beam": 4}})


def test_a_carried_alpha_keeps_its_proportion_to_the_mean_weight() -> None:
    run = config(alpha="auto", corrections=3)
    choice = choose_structure(run, 500, 1)
    rule = carried_alpha_rule(run, choice, alpha=0.2, growth=1.5)
    assert rule.start(mean_weight=99.0) == pytest.approx(0.3)
    assert (rule.wanted, rule.corrections) == (choice.items_per_visited_path, 1)


def test_without_an_earlier_alpha_the_rule_is_a_first_runs() -> None:
    run = config(alpha="auto")
    choice = choose_structure(run, 500, 1)
    assert carried_alpha_rule(run, choice, alpha=None, growth=1.5) == alpha_rule(run, choice)


def test_a_given_alpha_stands() -> None:
    run = config(alpha=7.0)
    assert carried_alpha_rule(run, choose_structure(run, 500, 1), alpha=0.2, growth=1.5).start(99.0) == 7.0
