"""p(c|x): a distribution over paths, and the same function written out layer by layer."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from dr_core.model.path_mapping import PathMapping
from dr_core.model.path_structure import PathStructure, decode_paths
from dr_core.model.structure import Placement, Structure
from dr_core.model.structure_config import StructureConfig
from dr_core.paths.space import PathSpace
from tests.behaviours.structure import StructureBehaviour

USER_DIM = 5
SPACES = [(2, 1), (3, 2), (4, 3), (2, 5)]
Build = Callable[..., PathStructure]


def build(path_vectors: int, num_nodes: int, num_layers: int) -> PathStructure:
    torch.manual_seed(3)
    config = StructureConfig(hidden=6, path_dim=3, path_vectors=path_vectors)
    model = PathStructure(config, PathSpace.even(num_nodes, num_layers), USER_DIM)
    with torch.no_grad():
        if model.has_path_vectors:
            model.path_vector_QKE.normal_()
            model.path_bias_QK.normal_()
        for maps in model.prefix_maps:
            for one in maps:
                one.weight.normal_(std=one.in_features**-0.5)  # scales start at zero
        for parameter in model.parameters():
            parameter.mul_(2.0)
    return model


@pytest.fixture(params=[0, 10**6], ids=["mlps", "path_vectors"])
def structure_of(request: pytest.FixtureRequest) -> Build:
    """Structures whose last layer is an MLP, or path vectors."""
    return partial(build, request.param)


def users(num_states: int = 4) -> torch.Tensor:
    return torch.randn(num_states, USER_DIM, generator=torch.Generator().manual_seed(4))


def naive_log_prob(model: PathStructure, user_E: torch.Tensor, path_D: torch.Tensor) -> torch.Tensor:
    """One path at a time: layer d scales and shifts the user's part by what the nodes before it say; path vectors last."""
    total = torch.zeros(())
    for layer in range(model.space.num_layers):
        if layer == len(model.outputs):
            prefix = 0
            for node in path_D[:-1].tolist():
                prefix = prefix * model.space.num_nodes + node
            logits = model.path_vector_QKE[prefix] @ user_E + model.path_bias_QK[prefix]
            total = total + torch.log_softmax(logits, dim=0)[path_D[-1]]
            break
        scale, shift = torch.ones(model.config.hidden), torch.zeros(model.config.hidden)
        for depth in range(layer):
            said = model.prefix_maps[layer][depth].weight @ model.node_embeddings[depth][path_D[depth]]
            scale, shift = scale + said[: model.config.hidden], shift + said[model.config.hidden :]
        part = model.user_maps[layer].weight @ user_E + model.user_maps[layer].bias
        logits = model.outputs[layer].weight @ torch.relu(scale * part + shift) + model.outputs[layer].bias
        total = total + torch.log_softmax(logits, dim=0)[path_D[layer]]
    return total


def mlp_log_prob(model: PathStructure, user_E: torch.Tensor, path_D: torch.Tensor) -> torch.Tensor:
    """The paper's equation 1: layer d is one MLP over the concatenation [x, emb(c_1), ..., emb(c_{d-1})]."""
    total = torch.zeros(())
    for layer in range(model.space.num_layers):
        inputs = torch.cat([user_E, *(model.node_embeddings[depth][path_D[depth]] for depth in range(layer))])
        shifts = [maps.weight[model.config.hidden :] for maps in model.prefix_maps[layer]]
        hidden = torch.relu(
            torch.cat([model.user_maps[layer].weight, *shifts], dim=1) @ inputs + model.user_maps[layer].bias
        )
        logits = model.outputs[layer].weight @ hidden + model.outputs[layer].bias
        total = total + torch.log_softmax(logits, dim=0)[path_D[layer]]
    return total


@pytest.mark.parametrize(("num_nodes", "num_layers"), SPACES)
def test_log_prob_equals_the_layers_written_out(structure_of: Build, num_nodes: int, num_layers: int) -> None:
    model = structure_of(num_nodes, num_layers)
    user_NE = users()
    path_NM = torch.randint(0, model.num_groups, (4, 7), generator=torch.Generator().manual_seed(5))
    expected = torch.stack(
        [
            torch.stack([naive_log_prob(model, user, path) for path in paths])
            for user, paths in zip(user_NE, decode_paths(path_NM, model.space), strict=True)
        ]
    )
    torch.testing.assert_close(model.log_prob(user_NE, path_NM), expected)


def test_an_untrained_structure_is_a_plain_mlp_over_concatenated_inputs() -> None:
    torch.manual_seed(3)
    model = PathStructure(StructureConfig(hidden=6, path_dim=3, path_vectors=0), PathSpace.even(4, 3), USER_DIM)
    user_NE, every = users(2), torch.arange(model.num_groups)
    path_MD = decode_paths(every, model.space)
    expected = torch.stack([torch.stack([mlp_log_prob(model, user, path) for path in path_MD]) for user in user_NE])
    torch.testing.assert_close(model.log_prob(user_NE, every.expand(2, -1)), expected)


def test_layers_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="no K in common"):
        PathStructure(StructureConfig(), PathSpace((5, 3)), 8)


def test_gradients_equal_those_of_the_layers_written_out(structure_of: Build) -> None:
    model = structure_of(3, 3)
    user_NE = users(2).requires_grad_()
    path_NMD = torch.tensor([[[0, 1, 2], [0, 1, 0], [0, 1, 2]], [[2, 2, 2], [0, 1, 2], [2, 0, 1]]])
    path_NM = (path_NMD * torch.tensor([9, 3, 1])).sum(-1)
    wanted = [user_NE, *model.parameters()]
    found = torch.autograd.grad(model.log_prob(user_NE, path_NM).sum(), wanted)
    naive = sum(naive_log_prob(model, user_NE[n], path_NMD[n, m]) for n in range(2) for m in range(3))
    for one, other in zip(found, torch.autograd.grad(naive, wanted), strict=True):
        torch.testing.assert_close(one, other)


def test_spaces_near_the_limit_of_path_ids_do_not_overflow(structure_of: Build) -> None:
    model = structure_of(2, 62)
    user_NE = users(16)
    path_NM = torch.randint(0, 2**62, (16, 3), generator=torch.Generator().manual_seed(6))
    path_NM[:, 1] = path_NM[:, 0]
    log_p = model.log_prob(user_NE, path_NM)
    for state in (0, 15):
        path_D = torch.tensor([int(bit) for bit in f"{int(path_NM[state, 2]):062b}"])
        torch.testing.assert_close(log_p[state, 2], naive_log_prob(model, user_NE[state], path_D))
    assert torch.equal(log_p[:, 0], log_p[:, 1])


@pytest.mark.parametrize(("num_nodes", "num_layers"), [(5, 1), (4, 3), (2, 62)])
def test_decoding_agrees_with_the_path_space(num_nodes: int, num_layers: int) -> None:
    space = PathSpace.even(num_nodes, num_layers)
    paths = np.random.default_rng(22).integers(0, space.num_paths, (6, 2))
    np.testing.assert_array_equal(decode_paths(torch.from_numpy(paths), space).numpy(), space.decode(paths))


class TestWithMlps(StructureBehaviour):
    @pytest.fixture(params=SPACES, ids=lambda space: f"{space[0]}^{space[1]}")
    def structure(self, request: pytest.FixtureRequest) -> Structure:
        return build(0, *request.param)

    def make_placement(self, group_VJ: np.ndarray) -> Placement:
        return PathMapping(group_VJ)


class TestWithPathVectors(TestWithMlps):
    @pytest.fixture(params=SPACES, ids=lambda space: f"{space[0]}^{space[1]}")
    def structure(self, request: pytest.FixtureRequest) -> Structure:
        return build(10**6, *request.param)
