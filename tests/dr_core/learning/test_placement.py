"""Paths as the placement that is learned."""

import numpy as np
import pytest
import torch

from dr_core.learning.budget import choose_structure
from dr_core.learning.config import LearningConfig
from dr_core.learning.placement import PathLearner, PlacementLearner
from dr_core.learning.states import States
from tests.behaviours.placement_learner import NUM_ITEMS, PlacementLearnerBehaviour


class TestPathLearner(PlacementLearnerBehaviour):
    @pytest.fixture(autouse=True, params=[(1, "both"), (2, "descent")], ids=lambda value: value[1])
    def arrange(self, request: pytest.FixtureRequest) -> None:
        self.num_paths, m_step = request.param
        self.config = LearningConfig.model_validate(
            {
                "paths": {"num_nodes": 4, "num_layers": 2, "paths_per_item": self.num_paths},
                "budget": {"candidates": 20, "beam": 4},
                "scores": {"num_candidates": 8},
                "assignment": {"m_step": m_step},
            }
        )

    @pytest.fixture
    def groups_per_item(self) -> int:
        return self.num_paths

    def make(self, seed: int) -> PlacementLearner:
        return PathLearner(self.config, choose_structure(self.config, NUM_ITEMS, self.num_paths), seed)


def test_a_refinement_of_energies_asks_nothing_of_the_structure_model(make_model) -> None:
    """So that an E-step before it need not be long (:func:`dr_core.learning.choices.round_epochs`)."""
    config = LearningConfig.model_validate({"paths": {"nodes": [4, 4]}, "budget": {"candidates": 20}})
    user_NE, start = torch.randn(200, 8, generator=torch.Generator().manual_seed(0)), np.arange(NUM_ITEMS)[:, None] % 16
    states = States(user_NE, torch.zeros(200, 1, dtype=torch.int64), torch.ones(200, 1))
    placed = []
    for factor in (1.0, -3.0):
        model = make_model(NUM_ITEMS, nodes=(4, 4), dim=8)
        for parameter in model.structure.parameters():
            parameter.data.mul_(factor)
        model.set_item_paths(start)
        learner = PathLearner(config, choose_structure(config, NUM_ITEMS, 1), seed=0)
        placed.append(learner.improve(model, states, start, user_NE[:20])[0])
    np.testing.assert_array_equal(*placed)
    assert (placed[0] != start).any()
