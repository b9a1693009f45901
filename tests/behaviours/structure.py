"""What holds for every structure and the placement of items on it."""

import numpy as np
import pytest
import torch

from dr_core.model.structure import Placement, Structure

USER_DIM, NUM_ITEMS = 5, 12


def users(num_states: int = 4) -> torch.Tensor:
    return torch.randn(num_states, USER_DIM, generator=torch.Generator().manual_seed(4))


class StructureBehaviour:
    """A subclass gives a structure of at least two groups over states of ``USER_DIM`` numbers, and makes placements."""

    @pytest.fixture
    def structure(self) -> Structure:
        raise NotImplementedError

    def make_placement(self, group_VJ: np.ndarray) -> Placement:
        """Return the placement with these groups, -1 for none."""
        raise NotImplementedError

    @pytest.fixture
    def group_VJ(self, structure: Structure) -> np.ndarray:
        """Two groups an item, but item 1 in none and item 2 in one."""
        rng = np.random.default_rng(9)
        group_VJ = np.stack([rng.permutation(structure.num_groups)[:2] for _ in range(NUM_ITEMS)])
        group_VJ[1] = -1
        group_VJ[2, 1] = -1
        return group_VJ

    def test_probabilities_of_all_groups_sum_to_one(self, structure: Structure) -> None:
        log_p = structure.log_prob(users(), torch.arange(structure.num_groups).expand(4, -1))
        assert log_p.shape == (4, structure.num_groups)
        torch.testing.assert_close(log_p.exp().sum(1), torch.ones(4))
        assert log_p.exp().std() > 0

    def test_any_groups_in_any_order_have_their_probabilities(self, structure: Structure) -> None:
        every = structure.log_prob(users(), torch.arange(structure.num_groups).expand(4, -1))
        chosen = torch.randint(-1, structure.num_groups, (4, 9), generator=torch.Generator().manual_seed(5))
        expected = every.gather(1, chosen.clamp_min(0)).masked_fill(chosen < 0, -torch.inf)
        torch.testing.assert_close(structure.log_prob(users(), chosen), expected)

    def test_no_states_and_no_groups_are_fine(self, structure: Structure) -> None:
        assert structure.log_prob(users(4), torch.zeros(4, 0, dtype=torch.int64)).shape == (4, 0)
        assert structure.log_prob(users(0), torch.zeros(0, 3, dtype=torch.int64)).shape == (0, 3)

    def test_a_placement_gives_the_groups_of_items_in_any_shape(
        self, structure: Structure, group_VJ: np.ndarray
    ) -> None:
        placement, item = self.make_placement(group_VJ), np.array([[3, 1, 2], [0, 0, NUM_ITEMS - 1]])
        assert placement.num_items == NUM_ITEMS
        np.testing.assert_array_equal(placement.groups_of(torch.from_numpy(item)), group_VJ[item])
        assert placement.groups_of(torch.tensor([-1])).shape == (1, 2)

    def test_the_loss_is_the_brute_force_sum_over_an_items_groups(
        self, structure: Structure, group_VJ: np.ndarray
    ) -> None:
        rng = np.random.default_rng(10)
        target = rng.integers(-1, NUM_ITEMS, (4, 6))
        weight = np.where(target >= 0, rng.uniform(0.5, 2, target.shape), 0)
        every = structure.log_prob(users(), torch.arange(structure.num_groups).expand(4, -1)).detach().double().exp()
        expected = 0.0
        for n, t in zip(*np.nonzero(target >= 0), strict=True):
            groups = [group for group in group_VJ[target[n, t]].tolist() if group >= 0]
            expected -= weight[n, t] * np.log(sum(float(every[n, group]) for group in groups)) if groups else 0
        arrays = torch.from_numpy(target), torch.from_numpy(weight.astype(np.float32))
        for columns in ([0, 1], [1, 0]):
            loss = structure.loss(users(), *arrays, self.make_placement(group_VJ[:, columns]))
            assert loss.item() == pytest.approx(expected, rel=1e-5)

    def test_items_in_no_group_teach_nothing(self, structure: Structure, group_VJ: np.ndarray) -> None:
        """No loss, no gradient and nothing that is not a number, beside an item that is in a group."""
        placement = self.make_placement(group_VJ)
        target, weight = torch.tensor([[0, 1], [1, -1]]), torch.tensor([[1.0, 5.0], [2.0, 0.0]])
        alone, alone_weight = torch.tensor([[0]]), torch.tensor([[1.0]])
        losses = [
            structure.loss(users(2), target, weight, placement),
            structure.loss(users(2)[:1], alone, alone_weight, placement),
        ]
        torch.testing.assert_close(*losses)
        parameters = list(structure.parameters())
        gradients = [torch.autograd.grad(loss, parameters, materialize_grads=True) for loss in losses]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other)
        log_p = structure.item_log_prob(users(2), target, placement)
        assert log_p[0, 1] == log_p[1, 0] == -torch.inf
