"""From budgets to layers."""

import json

import numpy as np
import pytest
from pydantic import ValidationError

from dr_core.learning.budget import SMALLEST_MULTIPLE, StructureChoice, choose_structure, keep_structure
from dr_core.learning.choices import filled_paths
from dr_core.learning.config import BudgetConfig, LearningConfig
from dr_core.paths.length import VISITS_OF_BUDGET, CostGrowth, layers
from dr_core.paths.penalty import suggest_num_nodes
from dr_core.paths.space import PathSpace

NUM_ITEMS = 40_000
GROWTH = CostGrowth(1000, 400, 300, 0.3, 0.8, (500, 2000))


def config_of(**sections: dict[str, object]) -> LearningConfig:
    return LearningConfig.model_validate({"budget": {"candidates": 500}, **sections})


def test_layers_follow_from_what_was_measured() -> None:
    num_items = 8_000
    choice = choose_structure(config_of(), num_items, 1, GROWTH)
    assert choice.space.nodes == layers(GROWTH.cheapest_for(500, 1.0), 2)
    assert choice.candidates == 500
    assert "measured with 500 and 2000 paths" in " ".join(choice.reasons)
    dear = choose_structure(config_of(budget={"candidates": 500, "candidate_cost": 4.0}), num_items, 1, GROWTH)
    assert dear.space.num_paths > 2 * choice.space.num_paths
    capped = choose_structure(config_of(budget={"candidates": 500, "candidate_cost": 1e6}), num_items, 1, GROWTH)
    assert "ask for fewer" in " ".join(capped.reasons)
    assert capped.space.num_paths <= num_items / 2
    crowded = choose_structure(config_of(), NUM_ITEMS, 1, GROWTH)
    assert crowded.space.nodes == layers(VISITS_OF_BUDGET * NUM_ITEMS / 500, 2), "so many candidates fill 16 paths"


def test_a_recall_takes_the_candidates_of_the_cheapest_number_of_paths() -> None:
    choice = choose_structure(config_of(budget={"recall": 0.9, "beam": 5}), NUM_ITEMS, 1, GROWTH)
    cheapest = GROWTH.cheapest(1.0)
    assert choice.space.nodes == layers(cheapest, 2)
    assert choice.candidates == pytest.approx(GROWTH.candidates_at(cheapest))
    given = choose_structure(config_of(budget={"recall": 0.9}, paths={"nodes": [50, 20]}), NUM_ITEMS, 1, GROWTH)
    assert given.candidates == pytest.approx(GROWTH.candidates_at(1000))


@pytest.mark.parametrize("growth", [None, GROWTH])
def test_a_product_of_layers_has_one_k_by_its_own_rule(growth: CostGrowth | None) -> None:
    config = config_of(structure={"normaliser": "layers"})
    choice = choose_structure(config, NUM_ITEMS, 1, growth)
    assert choice.space == PathSpace.even(suggest_num_nodes(NUM_ITEMS, 1, 50.0, 2, 2.0), 2)


@pytest.mark.parametrize("normaliser", ["global", "layers"])
@pytest.mark.parametrize(
    ("paths", "space"),
    [({"num_nodes": 9, "num_layers": 3}, PathSpace.even(9, 3)), ({"nodes": [20, 20]}, PathSpace((20, 20)))],
    ids=str,
)
def test_what_is_given_stands(normaliser: str, paths: dict[str, object], space: PathSpace) -> None:
    config = config_of(structure={"normaliser": normaliser}, paths=paths)
    assert choose_structure(config, NUM_ITEMS, 1, GROWTH).space == space


@pytest.mark.parametrize("num_items", [5, 300, 60_000, 3_000_000])
@pytest.mark.parametrize("num_paths", [1, 3])
@pytest.mark.parametrize("cost", [0.1, 1, 300])
def test_an_estimate_is_within_reason_for_any_catalogue(num_items: int, num_paths: int, cost: float) -> None:
    config = LearningConfig.model_validate({"budget": {"candidate_cost": cost}})
    choice = choose_structure(config, num_items, num_paths)
    mean_path = num_items * filled_paths(config, num_items, num_paths) / choice.space.num_paths
    assert num_paths <= choice.space.num_paths
    assert choice.space.num_paths <= max(num_items * num_paths / 2, 4)
    assert choice.items_per_visited_path >= SMALLEST_MULTIPLE * mean_path * (1 - 1e-9)


def test_a_choice_survives_the_record() -> None:
    choice = choose_structure(config_of(), NUM_ITEMS, 1, GROWTH)
    assert StructureChoice.from_dict(json.loads(json.dumps(choice.as_dict())), NUM_ITEMS) == choice


def test_paths_that_are_kept_follow_the_budget_of_today() -> None:
    kept = keep_structure(config_of(), NUM_ITEMS, 1, PathSpace((30, 7)), 800.0)
    assert kept.space == PathSpace((30, 7))
    assert kept.candidates == 800
    assert kept.items_per_visited_path == pytest.approx(1.5 * NUM_ITEMS / 210)
    assert np.isclose(kept.budgets[1], 800)


def test_a_budget_says_one_thing() -> None:
    with pytest.raises(ValidationError, match="candidates and recall both say"):
        BudgetConfig(candidates=5, recall=0.5)
    assert BudgetConfig(recall=0.5).expected_candidates(1000) == 25
