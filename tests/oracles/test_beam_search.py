"""Algorithm 1: exhaustive when wide, right about prefixes when narrow, never K^D in memory."""

import resource
from collections.abc import Callable
from functools import partial

import pytest
import torch

from dr_core.model.path_structure import PathStructure, decode_paths
from dr_core.model.structure_config import StructureConfig
from dr_core.paths.space import PathSpace
from tests.oracles.beam_search import beam_search

SPACES = [(3, 1), (2, 2), (5, 2), (4, 3), (2, 5)]
Build = Callable[..., PathStructure]


def build(path_vectors: int, num_nodes: int, num_layers: int) -> PathStructure:
    torch.manual_seed(7)
    config = StructureConfig(hidden=8, path_dim=4, path_vectors=path_vectors)
    model = PathStructure(config, PathSpace.even(num_nodes, num_layers), 6)
    with torch.no_grad():
        if model.has_path_vectors:
            model.path_vector_QKE.normal_()
            model.path_bias_QK.normal_()
        for maps in model.prefix_maps:
            for one in maps:
                one.weight.normal_(
                    std=one.in_features**-0.5
                )  # scales start at zero, which tests would not tell from none
        for parameter in model.parameters():
            parameter.mul_(2.5)
    return model.requires_grad_(False)


@pytest.fixture(params=[0, 10**6], ids=["mlps", "path_vectors"])
def structure_of(request: pytest.FixtureRequest) -> Build:
    """Structures whose last layer is an MLP, or path vectors."""
    return partial(build, request.param)


def users(num_states: int = 6) -> torch.Tensor:
    return torch.randn(num_states, 6, generator=torch.Generator().manual_seed(8))


def enumerate_log_prob(model: PathStructure, user_NE: torch.Tensor) -> torch.Tensor:
    return model.log_prob(user_NE, torch.arange(model.num_groups).expand(len(user_NE), -1))


def algorithm_1(model: PathStructure, user_E: torch.Tensor, beam: int) -> list[tuple[int, ...]]:
    """As printed, one user at a time: keep the B best prefixes of each layer by the prefix's probability."""
    kept: list[tuple[int, ...]] = [()]
    parts, tables = model.user_parts(user_E[None]), model.prefix_tables()
    log_p: dict[tuple[int, ...], float] = {(): 0.0}
    for layer in range(model.space.num_layers):
        grown: dict[tuple[int, ...], float] = {}
        for prefix in kept:
            if layer == len(model.outputs):
                number = sum(node * model.space.num_nodes**place for place, node in enumerate(reversed(prefix)))
                logits = model.path_vector_QKE[number] @ user_E + model.path_bias_QK[number]
                for node, value in enumerate(torch.log_softmax(logits, 0).tolist()):
                    grown[(*prefix, node)] = log_p[prefix] + value
                continue
            scale, shift = torch.ones(model.config.hidden), torch.zeros(model.config.hidden)
            for earlier, node in enumerate(prefix):
                said = tables[layer][earlier][node]
                scale, shift = scale + said[: model.config.hidden], shift + said[model.config.hidden :]
            hidden = scale * parts[layer][0] + shift
            for node, value in enumerate(model.layer_log_prob(layer, hidden).tolist()):
                grown[(*prefix, node)] = log_p[prefix] + value
        kept = sorted(grown, key=lambda path: -grown[path])[:beam]
        log_p = grown
    return kept


@pytest.mark.parametrize(("num_nodes", "num_layers"), SPACES)
@pytest.mark.parametrize("extra", [0, 9])
def test_beam_as_wide_as_the_space_is_exhaustive(
    structure_of: Build, num_nodes: int, num_layers: int, extra: int
) -> None:
    model, user_NE = structure_of(num_nodes, num_layers), users()
    every = enumerate_log_prob(model, user_NE)
    found = beam_search(model, user_NE, num_nodes**num_layers + extra)
    assert found.path_NB.shape == every.shape
    assert torch.equal(found.path_NB.sort(1).values, torch.arange(every.shape[1]).expand_as(found.path_NB))
    torch.testing.assert_close(found.log_prob_NB, every.sort(dim=1, descending=True).values)
    torch.testing.assert_close(found.log_prob_NB, every.gather(1, found.path_NB))


@pytest.mark.parametrize(("num_nodes", "num_layers"), SPACES)
@pytest.mark.parametrize("beam", [1, 2, 4])
def test_narrow_beam_equals_the_printed_algorithm(
    structure_of: Build, num_nodes: int, num_layers: int, beam: int
) -> None:
    model, user_NE = structure_of(num_nodes, num_layers), users()
    found = decode_paths(beam_search(model, user_NE, beam).path_NB, model.space)
    for state in range(len(user_NE)):
        assert [tuple(path) for path in found[state].tolist()] == algorithm_1(model, user_NE[state], beam)


@pytest.mark.parametrize("beam", [1, 3, 10, 40])
def test_log_probabilities_are_those_of_the_whole_path(structure_of: Build, beam: int) -> None:
    model, user_NE = structure_of(4, 3), users()
    found = beam_search(model, user_NE, beam)
    expected = model.log_prob(user_NE, found.path_NB)
    torch.testing.assert_close(found.log_prob_NB, expected)


@pytest.mark.parametrize("beam", [2, 7, 30])
def test_paths_come_in_descending_probability_and_distinct(structure_of: Build, beam: int) -> None:
    found = beam_search(structure_of(5, 3), users(20), beam)
    assert (found.log_prob_NB.diff(dim=1) <= 0).all()
    assert all(len(set(row)) == beam for row in found.path_NB.tolist())
    assert (found.log_prob_NB.exp().sum(1) <= 1 + 1e-5).all()


def test_equal_probabilities_stand_in_order_of_the_path_id(structure_of: Build) -> None:
    model = structure_of(3, 3)
    for name, parameter in model.named_parameters():
        if name.startswith(("outputs", "path_")):
            parameter.zero_()
    found = beam_search(model, users(2), 27)
    assert torch.equal(found.path_NB, torch.arange(27).expand(2, -1))


def test_prefix_counts_even_where_the_last_layer_is_certain() -> None:
    """A beam ranked by the last conditional alone would prefer the second prefix, whose last node is certain."""
    model = build(0, 2, 2)
    for module in (*model.user_maps, *model.outputs):
        module.weight.zero_()
        module.bias.zero_()
    model.outputs[0].bias.copy_(torch.tensor([0.9, 0.1]).log())
    model.node_embeddings[0].copy_(torch.tensor([[0.0] * 4, [1.0] * 4]))
    model.prefix_maps[1][0].weight.copy_(torch.ones(16, 4))
    model.outputs[1].weight.copy_(torch.tensor([[0.0] * 8, [1.0] * 8]))
    found = beam_search(model, users(1), 4)
    assert found.path_NB[0].tolist()[:2] == [0, 1]
    torch.testing.assert_close(found.log_prob_NB[0, :2].exp(), torch.tensor([0.45, 0.45]))


@pytest.mark.parametrize(("num_nodes", "num_layers"), [(100, 4), (1000, 6)])
def test_memory_follows_the_beam_and_not_the_space(structure_of: Build, num_nodes: int, num_layers: int) -> None:
    model = structure_of(num_nodes, num_layers)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = beam_search(model, users(16), 20)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert found.path_NB.shape == (16, 20)
    assert int(found.path_NB.max()) < num_nodes**num_layers
    assert grown < 256 * 1024, f"{grown} KiB for a beam of 20 x {num_nodes} nodes"


def test_a_beam_below_one_is_refused_and_no_states_give_no_paths(structure_of: Build) -> None:
    with pytest.raises(ValueError, match="beam"):
        beam_search(structure_of(3, 2), users(), 0)
    assert beam_search(structure_of(3, 2), users(0), 4).path_NB.shape == (0, 4)
