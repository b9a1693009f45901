"""Shares of a path, and what a price that cuts inside paths finds: against enumeration of all items."""

import numpy as np
import pytest
import torch

from dr_core.arrays import FloatArray
from dr_core.item_lists import ItemLists
from dr_core.model.energy_structure import EnergyStructure
from dr_core.model.structure_config import StructureConfig
from dr_core.paths.index import PathIndex, build_index
from dr_core.paths.space import PathSpace
from dr_core.retrieval.candidates import gather_candidates
from dr_core.retrieval.energy_kernel import CompiledEnergies
from dr_core.retrieval.filter import Allowed
from dr_core.retrieval.from_model import compiled_structure
from dr_core.retrieval.prices import Prices
from dr_core.retrieval.rank import DotProductRanker
from dr_core.retrieval.router import Price
from dr_core.retrieval.shares import TEMPERATURE, log_shares

NUM_ITEMS, DIM, NUM_USERS = 500, 8, 40
SPACE, UNLIMITED = PathSpace((12, 5)), 2**62


@pytest.fixture(scope="module")
def bias_V() -> FloatArray:
    return (2 * np.random.default_rng(1).standard_normal(NUM_ITEMS)).astype(np.float32)


@pytest.fixture(scope="module")
def path_V() -> np.ndarray:
    return np.random.default_rng(2).integers(0, SPACE.num_paths, NUM_ITEMS)


@pytest.fixture(scope="module")
def index(bias_V: FloatArray, path_V: np.ndarray) -> PathIndex:
    return build_index(np.arange(NUM_ITEMS), path_V).ordered(bias_V)


@pytest.fixture(scope="module")
def structure(path_V: np.ndarray) -> EnergyStructure:
    torch.manual_seed(3)
    structure = EnergyStructure(StructureConfig(), SPACE, DIM)
    structure.start(
        torch.zeros(DIM), torch.randn(NUM_ITEMS, DIM), torch.randn(NUM_ITEMS), torch.from_numpy(path_V)[:, None]
    )
    return structure


@pytest.fixture(scope="module")
def router(structure: EnergyStructure, index: PathIndex, bias_V: FloatArray) -> CompiledEnergies:
    found = compiled_structure(structure, index, bias_V)
    assert isinstance(found, CompiledEnergies)
    return found


@pytest.fixture(scope="module")
def user_UE() -> FloatArray:
    return np.random.default_rng(4).standard_normal((NUM_USERS, DIM)).astype(np.float32)


def log_prob_of_items(
    structure: EnergyStructure, user_UE: FloatArray, path_V: np.ndarray, bias_V: FloatArray
) -> np.ndarray:
    """Return ln p(c|x) + ln q_v of every item by the model's own tensors and a softmax a path, float64 [U, V]."""
    paths = torch.arange(SPACE.num_paths).expand(len(user_UE), -1)
    log_prob_UP = structure.log_prob(torch.from_numpy(user_UE), paths).detach().numpy().astype(np.float64)
    share_V = np.empty(NUM_ITEMS)
    for path in np.unique(path_V):
        weights = np.exp(bias_V[path_V == path].astype(np.float64) / TEMPERATURE)
        share_V[path_V == path] = weights / weights.sum()
    return log_prob_UP[:, path_V] + np.log(share_V)


def visited(router: CompiledEnergies, index: PathIndex, user_UE: FloatArray, width: Price) -> list[set[int]]:
    visits = router.visit(user_UE, width)
    found = gather_candidates(visits.path_UB, *index.arrays, visits.items_UB)
    return [set(part.tolist()) for part in np.split(found.item_ids, found.offsets[1:-1])]


def test_items_of_a_path_descend_by_bias(index: PathIndex, bias_V: FloatArray, path_V: np.ndarray) -> None:
    for path in index.path_ids:
        items = index.items(int(path))
        assert sorted(items.tolist()) == np.flatnonzero(path_V == path).tolist()
        assert (np.diff(bias_V[items]) <= 0).all()


def test_shares_of_a_path_sum_to_one(index: PathIndex, bias_V: FloatArray) -> None:
    np.testing.assert_allclose(np.add.reduceat(np.exp(log_shares(index, bias_V)), index.offsets[:-1]), 1, rtol=1e-5)


def test_shares_are_even_without_biases_and_where_items_repeat(index: PathIndex, bias_V: FloatArray) -> None:
    size_R = np.repeat(np.diff(index.offsets), np.diff(index.offsets))
    np.testing.assert_allclose(np.exp(log_shares(index, None)), 1 / size_R, rtol=1e-6)
    np.testing.assert_allclose(log_shares(index, np.zeros_like(bias_V)), log_shares(index, None), atol=1e-6)
    twice = build_index(np.arange(4), np.array([[0, 1], [0, 1], [2, 0], [2, 1]]))
    np.testing.assert_array_equal(log_shares(twice, np.arange(4, dtype=np.float32)), log_shares(twice, None))


@pytest.mark.parametrize("price", [-3.0, -5.0, -7.0, -np.inf])
def test_a_price_finds_the_items_that_are_worth_it(
    price: float,
    structure: EnergyStructure,
    router: CompiledEnergies,
    index: PathIndex,
    user_UE: FloatArray,
    path_V: np.ndarray,
    bias_V: FloatArray,
) -> None:
    score_UV = log_prob_of_items(structure, user_UE, path_V, bias_V)
    for items, score_V in zip(visited(router, index, user_UE, Price(price, -np.inf, UNLIMITED)), score_UV, strict=True):
        surely, perhaps = np.flatnonzero(score_V >= price + 1e-4), np.flatnonzero(score_V >= price - 1e-4)
        assert set(surely.tolist()) <= items <= set(perhaps.tolist()) | {int(score_V.argmax())}
        assert items


def test_what_a_price_takes_of_a_path_are_its_first_items(
    router: CompiledEnergies, index: PathIndex, user_UE: FloatArray
) -> None:
    visits = router.visit(user_UE, Price(-5.5, -np.inf, UNLIMITED))
    start_UB, end_UB = index.lookup(visits.path_UB)
    is_cut_UB = visits.items_UB < end_UB - start_UB
    assert is_cut_UB.any()
    assert ((visits.items_UB > 0) == (visits.path_UB >= 0)).all()
    found = gather_candidates(visits.path_UB, *index.arrays, visits.items_UB)
    expected = [
        index.items(int(path))[:count]
        for paths, counts in zip(visits.path_UB, visits.items_UB, strict=True)
        for path, count in zip(paths, counts, strict=True)
    ]
    np.testing.assert_array_equal(found.item_ids, np.concatenate(expected))


def test_even_shares_visit_paths_whole(structure: EnergyStructure, index: PathIndex, user_UE: FloatArray) -> None:
    visits = compiled_structure(structure, index).visit(user_UE, Price(-5.5, -4.0, 60))
    start_UB, end_UB = index.lookup(visits.path_UB)
    np.testing.assert_array_equal(visits.items_UB, end_UB - start_UB)


def test_a_user_visits_no_more_items_than_a_price_allows(
    router: CompiledEnergies, index: PathIndex, user_UE: FloatArray
) -> None:
    narrow = visited(router, index, user_UE, Price(-8.0, -np.inf, 25))
    wide = visited(router, index, user_UE, Price(-8.0, -np.inf, UNLIMITED))
    assert max(len(items) for items in wide) > 25 >= max(len(items) for items in narrow)
    assert all(few <= many for few, many in zip(narrow, wide, strict=True))


def test_offers_count_the_items_that_a_price_finds(
    router: CompiledEnergies, index: PathIndex, user_UE: FloatArray
) -> None:
    wanted_UK = np.stack([np.random.default_rng(user).permutation(NUM_ITEMS)[:10] for user in range(NUM_USERS)])
    for offer in Prices.of(router, index, user_UE, wanted_UK, 1.0).offers:
        for wanted in (15, 60):
            price = offer.price_of(wanted)
            lists = visited(router, index, user_UE, Price(price, offer.opening, UNLIMITED))
            if offer.candidates_G[-1] >= wanted:
                assert np.mean([len(items) for items in lists]) == pytest.approx(wanted, rel=0.01)
            hits = [len(items & set(row)) for items, row in zip(lists, wanted_UK.tolist(), strict=True)]
            assert offer.recall(price) == pytest.approx(np.sum(hits) / wanted_UK.size, abs=0.005)
    assert offer.recall(-np.inf) <= 1


def test_a_ranker_returns_the_best_of_what_is_visited(
    router: CompiledEnergies, index: PathIndex, user_UE: FloatArray, bias_V: FloatArray
) -> None:
    vector_VE = np.random.default_rng(6).standard_normal((NUM_ITEMS, DIM)).astype(np.float32)
    is_allowed_V = np.random.default_rng(7).random(NUM_ITEMS) < 0.5
    allowed = Allowed.of(np.flatnonzero(is_allowed_V), NUM_ITEMS)
    whole = DotProductRanker.of(index, vector_VE, bias_V)
    for ranker, its_router, its_index in (
        (whole, router, index),
        (whole.only(allowed), router.within(allowed.on(index)), allowed.on(index)),
    ):
        width = Price(-5.5, -np.inf, UNLIMITED)
        visits, lists = its_router.visit(user_UE, width), visited(its_router, its_index, user_UE, width)
        nothing = ItemLists.from_rows([()] * NUM_USERS)
        ranked = ranker.rank(user_UE, visits.path_UB, 5, nothing, visits.items_UB)
        np.testing.assert_array_equal(ranked.num_candidates_U, [len(items) for items in lists])
        for user, items in enumerate(lists):
            ids = np.array(sorted(items))
            score = vector_VE[ids] @ user_UE[user] + bias_V[ids]
            best = ids[np.argsort(-score, kind="stable")][:5]
            np.testing.assert_array_equal(ranked.item_Uk[user][ranked.item_Uk[user] >= 0], best)
