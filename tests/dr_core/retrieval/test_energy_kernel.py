"""The compiled search of path energies, against enumeration."""

import numpy as np
import pytest
import torch

from dr_core.arrays import FloatArray
from dr_core.model.energy_structure import EnergyStructure
from dr_core.model.structure_config import StructureConfig
from dr_core.paths.index import build_index
from dr_core.paths.space import PathSpace
from dr_core.retrieval.energy_kernel import CompiledEnergies, EnergyLayers
from dr_core.retrieval.from_model import compiled_structure, energy_layers
from dr_core.retrieval.router import Price, Router
from tests.behaviours.router import NUM_USERS, RouterBehaviour

DIM, UNLIMITED = 10, 2**62
SPACES = [(7,), (6, 5), (4, 3, 5), (40, 32)]


def build(nodes: tuple[int, ...]) -> EnergyStructure:
    torch.manual_seed(5)
    structure = EnergyStructure(StructureConfig(), PathSpace(nodes), DIM)
    paths = torch.arange(structure.num_groups)[:, None]
    structure.start(torch.zeros(DIM), torch.randn(len(paths), DIM), torch.randn(len(paths)), paths)
    return structure


def users(count: int = NUM_USERS) -> FloatArray:
    return np.random.default_rng(6).standard_normal((count, DIM)).astype(np.float32)


def enumerated(structure: EnergyStructure, user_UE: FloatArray) -> FloatArray:
    """Return log p of every path by the model's own tensors."""
    groups = torch.arange(structure.num_groups).expand(len(user_UE), -1)
    return structure.log_prob(torch.from_numpy(user_UE), groups).detach().numpy()


@pytest.fixture(params=SPACES, ids=str)
def structure(request: pytest.FixtureRequest) -> EnergyStructure:
    return build(request.param)


class TestCompiledEnergies(RouterBehaviour):
    @pytest.fixture
    def router(self, structure: EnergyStructure) -> Router:
        return compiled_structure(
            structure, build_index(np.arange(structure.num_groups), np.arange(structure.num_groups))
        )

    @pytest.fixture
    def user_UE(self) -> FloatArray:
        return users()

    @pytest.fixture
    def log_prob_UP(self, structure: EnergyStructure) -> FloatArray:
        return enumerated(structure, users())


def test_the_best_paths_are_those_of_enumeration(structure: EnergyStructure) -> None:
    user_UE, log_prob_UP = users(), enumerated(structure, users())
    paths, log_probs = compiled_structure(structure).search(user_UE, 5)
    best = -np.sort(-log_prob_UP, axis=1)[:, :5]
    np.testing.assert_allclose(log_probs, best, atol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(log_prob_UP, paths, 1), best, atol=1e-4)


def test_given_paths_have_their_probability(structure: EnergyStructure) -> None:
    user_UE = users()
    given = np.random.default_rng(8).integers(-1, structure.num_groups, (NUM_USERS, 6))
    found = compiled_structure(structure).log_prob(user_UE, given)
    expected = np.take_along_axis(enumerated(structure, user_UE), np.maximum(given, 0), 1)
    np.testing.assert_allclose(found, np.where(given < 0, -np.inf, expected), atol=1e-4)


@pytest.mark.parametrize("price", [-2.0, -4.0, -7.0])
def test_with_everything_open_a_price_visits_what_enumeration_says(structure: EnergyStructure, price: float) -> None:
    """Every path worth the price, by probability per item, best first; the best one where none is."""
    rng, user_UE = np.random.default_rng(9), users()
    held = np.sort(rng.choice(structure.num_groups, structure.num_groups * 2 // 3, replace=False))
    index = build_index(np.arange(6 * len(held)), np.repeat(held, 6)[rng.permutation(6 * len(held))])
    size_P = np.diff(index.offsets)
    score_UP = enumerated(structure, user_UE)[:, index.path_ids] - np.log(size_P)
    visits = compiled_structure(structure, index).visit(user_UE, Price(price, -np.inf, UNLIMITED))
    for user, score_P in enumerate(score_UP):
        found = visits.path_UB[user][visits.path_UB[user] >= 0]
        near = np.abs(score_P - price) < 1e-4
        wanted = set(index.path_ids[(score_P >= price) & ~near]) or {index.path_ids[score_P.argmax()]}
        assert wanted <= set(found) <= wanted | set(index.path_ids[near])
        assert (np.diff(score_P[np.searchsorted(index.path_ids, found)]) <= 1e-4).all()


def test_no_user_gets_more_candidates_than_the_limit_unless_one_path_has_more() -> None:
    structure, user_UE = build((6, 5)), users()
    index = build_index(np.arange(300), np.random.default_rng(4).integers(0, 30, 300))
    router = compiled_structure(structure, index)
    size_P = np.diff(index.offsets)
    every = router.visit(user_UE, Price(-np.inf, -np.inf, UNLIMITED)).path_UB
    for most in (1, 25, 100):
        for user, found in enumerate(router.visit(user_UE, Price(-np.inf, -np.inf, most)).path_UB):
            real = found[found >= 0]
            sizes = size_P[np.searchsorted(index.path_ids, real)]
            assert len(real) == 1 or sizes.sum() <= most
            following = size_P[np.searchsorted(index.path_ids, every[user, len(real)])]
            assert sizes.sum() + following > most
            np.testing.assert_array_equal(real, every[user, : len(real)])


@pytest.mark.parametrize("opening", [-1.0, -3.0])
def test_only_prefixes_that_are_probable_enough_are_opened(opening: float) -> None:
    structure, user_UE = build((40, 32)), users()
    log_q_UQ = torch.log_softmax(
        torch.from_numpy(user_UE) @ structure.vectors[0].T + structure.biases[0], dim=1
    ).detach().numpy()  # fmt: skip
    visits = compiled_structure(structure).visit(user_UE, Price(-np.inf, opening, UNLIMITED))
    for user, log_q_Q in enumerate(log_q_UQ):
        opened = np.flatnonzero(log_q_Q >= opening)
        opened = opened if len(opened) else np.array([log_q_Q.argmax()])
        found = visits.path_UB[user][visits.path_UB[user] >= 0]
        assert sorted(found // 32) == sorted(np.repeat(opened, 32))
        assert visits.work_U[user] == DIM * (40 + 32 * len(opened))
        assert np.exp(visits.log_prob_UB[user]).sum() == pytest.approx(np.exp(log_q_Q[opened]).sum(), rel=1e-3)


def test_a_lower_price_only_adds_paths(structure: EnergyStructure) -> None:
    router, user_UE = compiled_structure(structure), users()
    narrow, wide = (router.visit(user_UE, Price(price, -5.0, UNLIMITED)).path_UB for price in (-3.0, -5.0))
    for few, many in zip(narrow, wide, strict=True):
        assert set(few) <= set(many) | {-1}


def test_layers_survive_being_written_by_name(structure: EnergyStructure) -> None:
    layers = energy_layers(structure)
    again = CompiledEnergies(EnergyLayers.of(layers.arrays()))
    width = Price(-4.0, -6.0, 50)
    np.testing.assert_array_equal(
        again.visit(users(), width).path_UB, compiled_structure(structure).visit(users(), width).path_UB
    )
