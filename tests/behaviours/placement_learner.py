"""What holds for every learner of a placement."""

import numpy as np
import pytest
import torch

from dr_core.arrays import IntArray
from dr_core.learning.placement import PlacementLearner
from dr_core.learning.states import States
from dr_core.model.objective import DeepRetrievalModel

NUM_ITEMS, NUM_STATES, DIM = 60, 200, 8


class PlacementLearnerBehaviour:
    """A subclass makes a learner and says in how many groups it puts an item; ``world`` is what it learns from."""

    def make(self, seed: int) -> PlacementLearner:
        raise NotImplementedError

    @pytest.fixture
    def groups_per_item(self) -> int:
        raise NotImplementedError

    @pytest.fixture
    def world(self, make_model) -> tuple[DeepRetrievalModel, States, torch.Tensor]:
        """A model, states each of whose three targets are near to it, and the states of other users."""
        model = make_model(NUM_ITEMS, dim=DIM)
        generator = torch.Generator().manual_seed(0)
        user_NE = torch.randn(NUM_STATES, DIM, generator=generator)
        with torch.no_grad():
            target_NT = model.reranker.score_all(user_NE).topk(3, dim=1).indices
        states = States(user_NE, target_NT, torch.ones(target_NT.shape))
        return model, states, torch.randn(20, DIM, generator=generator)

    def learned(self, world: tuple[DeepRetrievalModel, States, torch.Tensor], seed: int) -> tuple[IntArray, IntArray]:
        model, states, user_UE = world
        learner = self.make(seed)
        start = learner.start(model, states.user_NE)
        model.set_item_paths(start)
        return start, learner.improve(model, states, start, user_UE)[0]

    def test_every_item_is_in_distinct_groups_at_the_start_and_after_an_m_step(self, world, groups_per_item) -> None:
        for placed in self.learned(world, seed=0):
            assert placed.shape == (NUM_ITEMS, groups_per_item)
            assert 0 <= placed.min() <= placed.max() < world[0].structure.num_groups
            assert all(len(set(row)) == groups_per_item for row in placed.tolist())

    def test_the_same_seed_gives_the_same(self, world) -> None:
        for one, other in zip(self.learned(world, seed=3), self.learned(world, seed=3), strict=True):
            np.testing.assert_array_equal(one, other)

    def test_facts_are_of_the_mapping_that_is_returned(self, world) -> None:
        model, states, user_UE = world
        learner = self.make(0)
        start = learner.start(model, states.user_NE)
        model.set_item_paths(start)
        placed, facts = learner.improve(model, states, start, user_UE)
        moved = sum(set(one) != set(other) for one, other in zip(start.tolist(), placed.tolist(), strict=True))
        assert facts.items_moved == moved
        assert facts.items_placed == 0

    def test_an_m_step_takes_in_items_that_are_in_no_group(self, world) -> None:
        model, states, user_UE = world
        learner = self.make(0)
        start = learner.start(model, states.user_NE)
        start[5] = -1
        model.set_item_paths(start)
        placed, facts = learner.improve(model, states, start, user_UE)
        assert placed.min() >= 0
        assert facts.items_placed == 1
