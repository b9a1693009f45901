"""Energies of whole paths under one normaliser, and the routers above them."""

import numpy as np
import pytest
import torch

from dr_core.model.energy_structure import EnergyStructure
from dr_core.model.path_mapping import PathMapping
from dr_core.model.structure import Placement, Structure
from dr_core.model.structure_config import StructureConfig
from dr_core.paths.space import PathSpace
from tests.behaviours.structure import USER_DIM, StructureBehaviour, users

SPACES = [(9,), (4, 3), (2, 3, 4)]


def build(nodes: tuple[int, ...], *, exact_paths: int = 1000, spread: float = 1.0) -> EnergyStructure:
    torch.manual_seed(3)
    structure = EnergyStructure(StructureConfig(exact_paths=exact_paths), PathSpace(nodes), USER_DIM)
    for parameter in structure.parameters():
        parameter.data.normal_(std=spread)
    return structure


class TestEnergyStructure(StructureBehaviour):
    @pytest.fixture(params=SPACES, ids=str)
    def structure(self, request: pytest.FixtureRequest) -> Structure:
        return build(request.param)

    def make_placement(self, group_VJ: np.ndarray) -> Placement:
        return PathMapping(group_VJ)


@pytest.mark.parametrize("nodes", SPACES, ids=str)
def test_z_is_the_sum_over_all_paths(nodes: tuple[int, ...]) -> None:
    structure, user_NE = build(nodes), users()
    energy = user_NE.double() @ structure.vectors[-1].double().T + structure.biases[-1].double()
    expected = torch.log_softmax(energy, dim=1).float()
    torch.testing.assert_close(structure.log_prob(user_NE, torch.arange(structure.num_groups).expand(4, -1)), expected)


def test_z_from_opened_prefixes_is_exact_where_all_are_opened() -> None:
    exact, opened = build((4, 3)), build((4, 3), exact_paths=4)
    groups = torch.arange(12).expand(4, -1)
    assert exact.is_exact
    assert not opened.is_exact
    torch.testing.assert_close(opened.log_prob(users(), groups), exact.log_prob(users(), groups))


def test_too_many_paths_for_any_prefixes_are_refused() -> None:
    with pytest.raises(ValueError, match="give the last layer more nodes"):
        build((4, 3), exact_paths=3)


@pytest.mark.parametrize("exact_paths", [1000, 6])
def test_routers_are_drawn_to_the_probability_below_their_prefixes(exact_paths: int) -> None:
    """The gradient of a router's softmax q towards r is (q - r) x: r is what all paths below a prefix have, or where the paths
    are too many to sum, what the next router says, and for the last one the prefix of the target."""
    structure, user_NE = build((2, 3, 4), exact_paths=exact_paths), users()
    target, weight = torch.tensor([[5], [0], [23], [11]]), torch.tensor([[1.0], [2.0], [0.5], [1.0]])
    structure.loss(user_NE, target, weight, PathMapping(np.arange(24)[:, None])).backward()
    q = [torch.softmax(user_NE @ w.T + b, 1).detach() for w, b in zip(structure.vectors, structure.biases, strict=True)]
    below = [
        structure.log_prob(user_NE, torch.arange(24).expand(4, -1)).exp().detach().view(4, n, -1).sum(2) for n in (2, 6)
    ]
    if exact_paths == 6:
        below = [q[1].view(4, 2, -1).sum(2), torch.nn.functional.one_hot(target[:, 0] // 4, 6).float()]
    for layer in (0, 1):
        expected = ((q[layer] - below[layer]) * weight).T @ user_NE
        torch.testing.assert_close(structure.vectors[layer].grad, expected, atol=1e-5, rtol=1e-4)


def test_routers_take_no_part_in_the_value_of_the_loss() -> None:
    structure = build((4, 3))
    target, weight, placement = torch.tensor([[1, 2]] * 4), torch.ones(4, 2), PathMapping(np.arange(12)[:, None])
    before = structure.loss(users(), target, weight, placement)
    structure.vectors[0].data.normal_()
    torch.testing.assert_close(structure.loss(users(), target, weight, placement), before)


class TestStart:
    """The start by formula: a tangent of what the softmax says of the items of each path, at the mean state."""

    @pytest.fixture
    def world(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(11)
        vector_VE, bias_V = torch.randn(40, USER_DIM, generator=generator), torch.randn(40, generator=generator)
        path_VJ = torch.randint(0, 10, (40, 1), generator=generator)  # of 12: at least two are empty
        return torch.randn(USER_DIM, generator=generator), vector_VE, bias_V, path_VJ

    def test_the_mean_state_gets_the_softmax_mass_of_every_path(self, world: tuple[torch.Tensor, ...]) -> None:
        mean_E, vector_VE, bias_V, path_VJ = world
        structure = build((4, 3))
        structure.start(mean_E, vector_VE, bias_V, path_VJ)
        mass_V = torch.softmax(vector_VE @ mean_E + bias_V, dim=0)
        mass_P = torch.zeros(12).index_add_(0, path_VJ[:, 0], mass_V)
        energy_P = structure.vectors[-1] @ mean_E + structure.biases[-1]
        held = mass_P > 0
        torch.testing.assert_close(torch.softmax(energy_P[held], dim=0), mass_P[held])
        assert (energy_P[~held] < energy_P[held].min()).all()
        router = torch.softmax(structure.vectors[0] @ mean_E + structure.biases[0], dim=0)
        torch.testing.assert_close(router, mass_P.view(4, 3).sum(1), atol=0.02, rtol=0.05)

    def test_it_is_a_tangent(self, world: tuple[torch.Tensor, ...]) -> None:
        """Near the mean state it is off by less than a tenth of how far away the state is."""
        mean_E, vector_VE, bias_V, path_VJ = world
        structure = build((4, 3))
        structure.start(mean_E, vector_VE, bias_V, path_VJ)
        held = torch.unique(path_VJ)
        for size in (0.1, 0.01):
            state_E = mean_E + size * torch.nn.functional.normalize(torch.ones(USER_DIM), dim=0)
            exact = torch.stack([(vector_VE @ state_E + bias_V)[path_VJ[:, 0] == path].logsumexp(0) for path in held])
            start = (structure.vectors[-1] @ state_E + structure.biases[-1]).detach()[held]
            assert float((exact - start).abs().max()) < 5 * size**2

    def test_it_is_the_same_whatever_was_fitted_before(self, make_model) -> None:
        generator = np.random.default_rng(0)
        before, after = (generator.integers(0, 6, (30, 1)) for _ in range(2))
        user_NE = torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
        fitted, fresh = (make_model(30, nodes=(3, 2), dim=8) for _ in range(2))
        fitted.set_item_paths(before)
        fitted.start_structure(user_NE)
        first = [parameter.detach().clone() for parameter in fitted.structure.parameters()]
        for model in (fitted, fresh):
            model.set_item_paths(after)
            model.start_structure(user_NE)
        for one, other, old in zip(fitted.structure.parameters(), fresh.structure.parameters(), first, strict=True):
            torch.testing.assert_close(one, other)
            assert not torch.equal(one, old)

    def test_one_that_was_written_with_a_mark_of_its_start_is_read(self, make_model) -> None:
        written, read = make_model(30, nodes=(3, 2), seed=1), make_model(30, nodes=(3, 2), seed=2)
        read.load_state_dict(written.state_dict() | {"structure.is_started": torch.tensor(True)})
        for one, other in zip(read.parameters(), written.parameters(), strict=True):
            assert torch.equal(one, other)

    def test_an_item_counts_on_each_of_its_paths(self, world: tuple[torch.Tensor, ...]) -> None:
        mean_E, vector_VE, bias_V, path_VJ = world
        once, twice = build((4, 3)), build((4, 3))
        once.start(mean_E, vector_VE, bias_V, path_VJ)
        nowhere = torch.full_like(path_VJ, -1)
        twice.start(mean_E, vector_VE, bias_V, torch.cat([path_VJ, nowhere], dim=1))
        for one, other in zip(once.parameters(), twice.parameters(), strict=True):
            torch.testing.assert_close(one, other)
