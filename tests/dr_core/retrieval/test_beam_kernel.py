"""The compiled structure model against the one in torch."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from dr_core.model.path_structure import PathStructure
from dr_core.model.structure_config import StructureConfig
from dr_core.paths.index import build_index
from dr_core.paths.space import PathSpace
from dr_core.retrieval.beam_kernel import USERS_AT_ONCE, CompiledStructure
from dr_core.retrieval.from_model import compiled_structure, structure_tables
from dr_core.retrieval.router import Router
from tests.behaviours.router import RouterBehaviour
from tests.oracles.beam_search import beam_search

NUM_USERS, DIM = 40, 12
Build = Callable[..., PathStructure]


def build(path_vectors: int, num_nodes: int, num_layers: int, spread: float = 3.0) -> PathStructure:
    torch.manual_seed(num_nodes * 10 + num_layers)
    config = StructureConfig(hidden=16, path_dim=6, path_vectors=path_vectors)
    model = PathStructure(config, PathSpace.even(num_nodes, num_layers), DIM)
    with torch.no_grad():
        if model.has_path_vectors:
            model.path_vector_QKE.normal_(std=DIM**-0.5)
            model.path_bias_QK.normal_(std=0.3)
        for maps in model.prefix_maps:
            for one in maps:
                one.weight.normal_(
                    std=one.in_features**-0.5
                )  # scales start at zero, which tests would not tell from none
        for parameter in model.parameters():
            parameter *= spread
    return model


@pytest.fixture(params=[0, 10**6], ids=["mlps", "path_vectors"])
def structure(request: pytest.FixtureRequest) -> Build:
    """Structures whose last layer is an MLP, or path vectors."""
    return partial(build, request.param)


def users() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((NUM_USERS, DIM)).astype(np.float32)


@pytest.mark.parametrize(
    ("num_nodes", "num_layers", "beam"), [(7, 1, 3), (6, 2, 1), (6, 2, 5), (6, 2, 36), (6, 2, 99), (5, 3, 20), (40, 2, 25), (3, 5, 9)]
)  # fmt: skip
def test_the_search_finds_what_the_search_in_torch_finds(
    structure: Build, num_nodes: int, num_layers: int, beam: int
) -> None:
    model, user_UE = structure(num_nodes, num_layers), users()
    paths, log_probs = compiled_structure(model).search(user_UE, beam)
    expected = beam_search(model, torch.from_numpy(user_UE), beam)
    np.testing.assert_allclose(log_probs, expected.log_prob_NB.numpy(), rtol=1e-5, atol=1e-5)
    same = paths == expected.path_NB.numpy()
    gaps = np.abs(np.diff(expected.log_prob_NB.numpy(), axis=1, prepend=np.inf, append=-np.inf))
    is_clear = np.minimum(gaps[:, :-1], gaps[:, 1:]) > 1e-5
    assert same[is_clear].all(), "paths differ where no two are equally probable"
    assert is_clear.mean() > 0.9
    assert all(len(set(row)) == len(row) for row in paths.tolist())


@pytest.mark.parametrize(
    ("num_nodes", "num_layers", "beam"), [(7, 1, 3), (6, 2, 1), (6, 2, 5), (6, 2, 36), (5, 3, 20), (40, 2, 25), (40, 2, 300)]
)  # fmt: skip
def test_with_sizes_paths_are_ranked_by_probability_per_item(
    structure: Build, num_nodes: int, num_layers: int, beam: int
) -> None:
    """Against every path: of those whose prefix the beam keeps, the best by p(c|x) / |c|."""
    model, user_UE = structure(num_nodes, num_layers, spread=1.5), users()
    size_P = np.random.default_rng(beam).integers(1, 50, size=num_nodes**num_layers)
    paths, log_probs = CompiledStructure(structure_tables(model), np.log(size_P).astype(np.float32)).search(
        user_UE, beam
    )
    every = beam_search(model, torch.from_numpy(user_UE), num_nodes**num_layers)
    for user in range(NUM_USERS):
        log_prob_P = np.empty(num_nodes**num_layers)
        log_prob_P[every.path_NB[user]] = every.log_prob_NB[user]
        score_P = log_prob_P - np.log(size_P)
        if num_layers > 1:
            prefix_Q = torch.from_numpy(log_prob_P).reshape(-1, num_nodes).logsumexp(1)
            kept = prefix_Q.topk(min(beam, len(prefix_Q))).indices.numpy()
            score_P[~np.isin(np.arange(len(score_P)) // num_nodes, kept)] = -np.inf
        best = np.argsort(-score_P, kind="stable")[: len(paths[user])]
        np.testing.assert_allclose(log_probs[user], log_prob_P[paths[user]], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(score_P[paths[user]], score_P[best], rtol=1e-4, atol=1e-4)
        assert len(set(paths[user])) == len(paths[user])


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_equal_sizes_change_nothing(structure: Build, size: int) -> None:
    model, user_UE = structure(40, 2), users()
    plain = compiled_structure(model).search(user_UE, 30)
    sized = CompiledStructure(structure_tables(model), np.full(1600, np.log(size), np.float32)).search(user_UE, 30)
    np.testing.assert_array_equal(sized[0], plain[0])
    np.testing.assert_allclose(sized[1], plain[1], rtol=1e-4, atol=1e-4)


def test_equal_probabilities_stand_in_order_of_the_path(structure: Build) -> None:
    model = structure(4, 2, spread=0.0)
    paths, log_probs = compiled_structure(model).search(users(), 16)
    np.testing.assert_array_equal(paths, np.tile(np.arange(16), (NUM_USERS, 1)))
    np.testing.assert_allclose(log_probs, np.log(1 / 16), rtol=1e-5)


@pytest.mark.parametrize("beam", [1, 3, 12])
def test_a_user_who_is_not_a_number_leaves_the_others_as_they_were(structure: Build, beam: int) -> None:
    compiled, user_UE = compiled_structure(structure(6, 3)), users()
    paths, log_probs = compiled.search(user_UE, beam)
    user_UE[[0, USERS_AT_ONCE + 1, NUM_USERS - 1]] = np.nan
    others = ~np.isnan(user_UE).any(axis=1)
    found, found_probs = compiled.search(user_UE, beam)
    np.testing.assert_array_equal(found[others], paths[others])
    np.testing.assert_array_equal(found_probs[others], log_probs[others])
    assert not np.isfinite(found_probs[~others]).any()


@pytest.mark.parametrize("beam", [40, 150, 400])
def test_wide_beams_go_through_the_heap_and_find_the_same(structure: Build, beam: int) -> None:
    model, user_UE = structure(40, 2, spread=0.3), users()
    paths, log_probs = compiled_structure(model).search(user_UE, beam)
    every = compiled_structure(model).search(user_UE, 1600)
    np.testing.assert_allclose(log_probs, every[1][:, :beam], rtol=1e-5)
    assert all(len(set(row)) == len(row) for row in paths.tolist())


def test_far_apart_probabilities_stay_finite(structure: Build) -> None:
    model = structure(6, 2, spread=15.0)
    _, log_probs = compiled_structure(model).search(users(), 36)
    expected = beam_search(model, torch.from_numpy(users()), 36).log_prob_NB.numpy()
    assert np.isfinite(log_probs).all()
    np.testing.assert_allclose(log_probs, expected, rtol=1e-4, atol=1e-3)


def test_a_user_gets_the_same_alone_and_in_a_block(structure: Build) -> None:
    compiled, user_UE = compiled_structure(structure(6, 3)), users()
    assert len(user_UE) > 2 * USERS_AT_ONCE
    paths, log_probs = compiled.search(user_UE, 7)
    for row in (0, USERS_AT_ONCE, len(user_UE) - 1):
        alone, alone_probs = compiled.search(user_UE[row : row + 1], 7)
        np.testing.assert_array_equal(alone[0], paths[row])
        np.testing.assert_allclose(alone_probs[0], log_probs[row], rtol=1e-5)


@pytest.mark.parametrize(("num_nodes", "num_layers", "num_paths"), [(7, 1, 3), (6, 2, 1), (6, 2, 50), (5, 3, 24)])
def test_given_paths_have_the_probability_that_torch_gives_them(
    structure: Build, num_nodes: int, num_layers: int, num_paths: int
) -> None:
    model, user_UE = structure(num_nodes, num_layers), users()
    paths = np.random.default_rng(4).integers(-1, num_nodes**num_layers, (NUM_USERS, num_paths))
    found = compiled_structure(model).log_prob(user_UE, paths)
    expected = model.log_prob(torch.from_numpy(user_UE), torch.from_numpy(paths)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_beams_and_given_paths_agree(structure: Build) -> None:
    compiled, user_UE = compiled_structure(structure(9, 3)), users()
    paths, log_probs = compiled.search(user_UE, 12)
    np.testing.assert_allclose(compiled.log_prob(user_UE, paths), log_probs, rtol=1e-5, atol=1e-6)


def test_no_users_and_no_paths_are_fine(structure: Build) -> None:
    compiled = compiled_structure(structure(5, 2))
    assert compiled.search(users()[:0], 3)[0].shape == (0, 3)
    assert compiled.log_prob(users(), np.zeros((NUM_USERS, 0), np.int64)).shape == (NUM_USERS, 0)


def test_a_beam_of_nothing_is_refused(structure: Build) -> None:
    with pytest.raises(ValueError, match="at least 1, was 0"):
        compiled_structure(structure(5, 2)).search(users(), 0)


@pytest.mark.parametrize(("beam", "kept"), [(1, (1, 1, 1)), (5, (1, 4, 5)), (10**6, (1, 4, 16))])
def test_cost_of_a_beam_is_user_parts_and_one_scaled_output_layer_a_kept_prefix(
    beam: int, kept: tuple[int, ...]
) -> None:
    model = PathStructure(StructureConfig(hidden=6, path_vectors=0), PathSpace.even(4, 3), 5)
    expected = 3 * 5 * 6 + 6 * 4 * sum(kept) + 6 * (kept[1] + kept[2])
    assert compiled_structure(model).multiply_adds(beam) == expected


def test_cost_of_a_last_layer_of_path_vectors_is_one_product_of_the_user_with_each_successor() -> None:
    model = PathStructure(StructureConfig(hidden=6), PathSpace.even(4, 3), 5)
    assert compiled_structure(model).multiply_adds(5) == 2 * 5 * 6 + 6 * 4 * (1 + 4) + 6 * 4 + 5 * 4 * 5


@pytest.mark.parametrize(("num_nodes", "num_layers"), [(7, 1), (6, 2), (5, 3), (3, 5)])
@pytest.mark.parametrize("num_open", [1, 4, 30])
def test_only_paths_of_the_index_are_visited_the_best_of_them_first(
    structure: Build, num_nodes: int, num_layers: int, num_open: int
) -> None:
    """With a beam as wide as what is open nothing is lost, whatever lies on the other paths."""
    model = structure(num_nodes, num_layers)
    rng, space = np.random.default_rng(9), model.space
    held = np.sort(rng.choice(space.num_paths, min(num_open, space.num_paths), replace=False))
    path_V = np.repeat(held, rng.integers(1, 6, len(held)))
    index = build_index(np.arange(len(path_V)), path_V)
    sizes = np.log(rng.integers(1, 50, space.num_paths)).astype(np.float32)
    user_UE = users()
    visits = CompiledStructure(structure_tables(model), sizes).within(index).visit(user_UE, num_open + 3)
    every = compiled_structure(model).log_prob(user_UE, np.tile(held, (NUM_USERS, 1)))
    rank = every - np.log(np.diff(index.offsets)).astype(np.float32)
    for user in range(NUM_USERS):
        order = held[np.argsort(-rank[user], kind="stable")]
        found = visits.path_UB[user]
        assert found[: len(held)].tolist() == order.tolist()
        assert (found[len(held) :] == -1).all()
    np.testing.assert_allclose(np.sort(visits.log_prob_UB[:, : len(held)]), np.sort(every), rtol=1e-4, atol=1e-4)
    assert np.isneginf(visits.log_prob_UB[:, len(held) :]).all()


def test_a_narrow_beam_spends_no_place_on_closed_prefixes(structure: Build) -> None:
    model = structure(6, 2)
    held = np.array([1, 8, 20, 33])
    visits = compiled_structure(model).within(build_index(np.arange(4), held)).visit(users(), 4)
    assert (np.sort(visits.path_UB) == held).all()


@pytest.mark.parametrize(("num_nodes", "num_layers"), [(7, 1), (6, 2), (3, 3)])
class TestCompiledStructure(RouterBehaviour):
    @pytest.fixture
    def model(self, structure: Build, num_nodes: int, num_layers: int) -> PathStructure:
        return structure(num_nodes, num_layers)

    @pytest.fixture
    def router(self, model: PathStructure) -> Router:
        return CompiledStructure(structure_tables(model), np.zeros(model.num_groups, np.float32))

    @pytest.fixture
    def user_UE(self) -> np.ndarray:
        return users()

    @pytest.fixture
    def log_prob_UP(self, model: PathStructure) -> np.ndarray:
        every = torch.arange(model.num_groups).expand(NUM_USERS, -1)
        return model.log_prob(torch.from_numpy(users()), every).detach().numpy()
