"""Paths as the placement that is learned."""

import pytest

from dr_core.learning.budget import choose_structure
from dr_core.learning.config import LearningConfig
from dr_core.learning.placement import PathLearner, PlacementLearner
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
