"""What searches cost over clusters: against enumeration, and what is chosen from it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from dr_core.learning.budget import choose_structure
from dr_core.learning.config import LearningConfig
from dr_core.learning.path_costs import choose_paths, cost_of, measure_growth, trial
from dr_core.model.objective import DeepRetrievalModel
from dr_core.paths.space import PathSpace


@pytest.fixture
def warm(make_model: Callable[..., DeepRetrievalModel]) -> tuple[DeepRetrievalModel, torch.Tensor]:
    """A softmax of 600 items around 60 directions, and states around these too."""
    generator = torch.Generator().manual_seed(3)
    centre = 3 * torch.randn(60, 8, generator=generator)
    model = make_model(num_items=600).requires_grad_(False)
    model.reranker.output_embedding.weight[:600] = centre.repeat(10, 1) + torch.randn(600, 8, generator=generator)
    return model, centre.repeat(20, 1) * 0.5 + torch.randn(1200, 8, generator=generator) * 0.3


def config_of(**sections: dict[str, object]) -> LearningConfig:
    return LearningConfig.model_validate({"budget": {"candidates": 40}, **sections})


def test_a_trial_holds_more_for_more_and_costs_what_a_search_costs(
    warm: tuple[DeepRetrievalModel, torch.Tensor],
) -> None:
    space, config = PathSpace((12, 5)), config_of()
    path_V = np.arange(600) % 60
    prices = trial(*warm, path_V, space, config)
    costs = [cost_of(prices, recall, space, 8) for recall in (0.3, 0.6, 0.9)]
    work = [cost.nodes + cost.candidates for cost in costs]
    assert (np.diff(work) >= 0).all()
    for recall, cost in zip((0.3, 0.6, 0.9), costs, strict=True):
        assert prices.recall_of(prices.candidates_for(recall)) >= recall - 1e-9
        assert cost.candidates == prices.candidates_for(recall)
        assert 12 <= cost.nodes <= 12 + 60
        everything = prices.offers[0]
        assert cost.nodes + cost.candidates <= everything.work / 8 + everything.candidates_for(recall) + 1e-6


def test_items_that_states_tell_apart_are_found_on_their_own_paths(
    warm: tuple[DeepRetrievalModel, torch.Tensor],
) -> None:
    """The items of a direction on one path, against items in any order."""
    space, config = PathSpace((12, 5)), config_of()
    ordered = trial(*warm, np.arange(600) % 60, space, config)
    mixed = trial(*warm, np.random.default_rng(0).permutation(600) % 60, space, config)
    assert ordered.candidates_for(0.9) < 0.5 * mixed.candidates_for(0.9)


def test_what_is_measured_is_a_growth_that_repeats(warm: tuple[DeepRetrievalModel, torch.Tensor]) -> None:
    growth = measure_growth(*warm, config_of(), 0)
    assert growth == measure_growth(*warm, config_of(), 0)
    low, *_, high = growth.measured_at
    assert high > low
    assert growth.candidates_at(high) < growth.candidates_at(low)
    assert growth.nodes_at(high) > growth.nodes_at(low)


def test_dearer_candidates_and_more_recall_choose_as_they_should(
    warm: tuple[DeepRetrievalModel, torch.Tensor],
) -> None:
    paths = [
        choose_paths(*warm, config_of(budget={"candidates": 160, "candidate_cost": cost}), 0)[0] for cost in (0.2, 20)
    ]
    assert paths[0].space.num_paths < paths[1].space.num_paths
    recalls = [choose_paths(*warm, config_of(budget={"recall": recall}), 0)[0] for recall in (0.5, 0.95)]
    assert recalls[0].candidates < recalls[1].candidates
    assert recalls[1].space.num_layers == 2


@pytest.mark.parametrize(
    "sections",
    [{"paths": {"nodes": [7, 3]}}, {"paths": {"num_nodes": 5}}, {"structure": {"normaliser": "layers"}}],
    ids=str,
)
def test_nothing_is_measured_where_nothing_follows_from_it(
    sections: dict[str, dict[str, object]], warm: tuple[DeepRetrievalModel, torch.Tensor]
) -> None:
    choice, growth = choose_paths(*warm, config_of(**sections), 0)
    assert growth is None
    assert choice == choose_structure(config_of(**sections), 600, 1)


def test_more_items_than_k_means_holds_are_not_measured(make_model: Callable[..., DeepRetrievalModel]) -> None:
    config = config_of(paths={"kmeans_sample": 1000})
    choice, growth = choose_paths(make_model(num_items=1001), torch.zeros(10, 8), config, 0)
    assert growth is None
    assert "not measured" in " ".join(choice.reasons)


def test_a_handful_of_items_has_paths_too(make_model: Callable[..., DeepRetrievalModel]) -> None:
    choice, _ = choose_paths(make_model(num_items=6), torch.randn(50, 8), LearningConfig(), 0)
    assert choice.space.num_paths >= 4
