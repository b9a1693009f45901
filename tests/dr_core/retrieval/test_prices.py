"""One price for all users: what it buys, and that no other choice of paths buys more."""

import itertools

import numpy as np
import pytest
import torch

from dr_core.model.energy_structure import EnergyStructure
from dr_core.model.structure_config import StructureConfig
from dr_core.paths.index import PathIndex, build_index
from dr_core.paths.space import PathSpace
from dr_core.retrieval.energy_kernel import CompiledEnergies
from dr_core.retrieval.from_model import compiled_structure
from dr_core.retrieval.prices import Prices, paths_of_items
from dr_core.retrieval.router import Price, as_settings, width_of

DIM, NUM_USERS, NUM_ITEMS, WANTED = 8, 60, 900, 10


@pytest.fixture(scope="module")
def index() -> PathIndex:
    return build_index(np.arange(NUM_ITEMS), np.random.default_rng(1).integers(0, 20 * 8, NUM_ITEMS))


@pytest.fixture(scope="module")
def router(index: PathIndex) -> CompiledEnergies:
    torch.manual_seed(2)
    structure = EnergyStructure(StructureConfig(), PathSpace((20, 8)), DIM)
    paths = torch.from_numpy(paths_of_items(index))
    structure.start(torch.zeros(DIM), torch.randn(NUM_ITEMS, DIM), torch.randn(NUM_ITEMS), paths)
    return compiled_structure(structure, index)


@pytest.fixture(scope="module")
def user_UE() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((NUM_USERS, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def wanted_UK() -> np.ndarray:
    rng = np.random.default_rng(4)
    return np.stack([rng.permutation(NUM_ITEMS)[:WANTED] for _ in range(NUM_USERS)])


@pytest.fixture(scope="module")
def prices(router: CompiledEnergies, index: PathIndex, user_UE: np.ndarray, wanted_UK: np.ndarray) -> Prices:
    return Prices.of(router, index, user_UE, wanted_UK, float(DIM))


def found(router: CompiledEnergies, index: PathIndex, user_UE: np.ndarray, width: Price) -> list[set[int]]:
    return [
        {int(item) for path in paths if path >= 0 for item in index.items(int(path))}
        for paths in router.visit(user_UE, width).path_UB
    ]


@pytest.mark.parametrize("wanted", [20, 80, 300])
def test_the_price_finds_as_many_candidates_as_asked_for(
    wanted: int, prices: Prices, router: CompiledEnergies, index: PathIndex, user_UE: np.ndarray
) -> None:
    width = prices.at(wanted)
    assert width.most == 4 * wanted
    candidates = [len(items) for items in found(router, index, user_UE, width._replace(most=2**62))]
    assert np.mean(candidates) == pytest.approx(wanted, rel=0.05)


def test_offers_say_what_a_search_finds(
    prices: Prices, router: CompiledEnergies, index: PathIndex, user_UE: np.ndarray, wanted_UK: np.ndarray
) -> None:
    for offer in prices.offers:
        for wanted in (30, 120):
            price = offer.price_of(wanted) - 1e-5
            lists = found(router, index, user_UE, Price(price, offer.opening, 2**62))
            hits = [len(items & set(row)) for items, row in zip(lists, wanted_UK.tolist(), strict=True)]
            assert offer.recall(price) == pytest.approx(np.sum(hits) / wanted_UK.size, abs=0.01)
        enough = offer.candidates_for(0.2)
        if np.isfinite(enough):
            assert offer.recall(offer.price_of(enough)) >= 0.2 - 1e-9
            assert offer.recall(offer.price_of(0.98 * enough)) <= 0.2


def test_an_opening_is_chosen_that_costs_least_at_equal_recall(prices: Prices) -> None:
    for wanted in (30, 100, 250):
        recall = prices.offers[0].recall(prices.offers[0].price_of(wanted))
        costs = {offer.opening: offer.work + DIM * offer.candidates_for(recall) for offer in prices.offers}
        assert costs[prices.at(wanted).opening] == min(costs.values()) < np.inf


def test_one_price_is_the_best_way_to_spend_candidates() -> None:
    """The fractional knapsack over (user, path) pairs: whole paths down to one price hold at least as much probability as
    any other choice of as many candidates or fewer, by trying them all."""
    rng = np.random.default_rng(7)
    for _ in range(20):
        probability, size = rng.dirichlet(np.ones(5), 2).ravel(), rng.integers(1, 6, 10)
        order = np.argsort(-probability / size)
        taken = order[: rng.integers(1, 10)]
        most = max(
            sum(probability[list(choice)])
            for count in range(11)
            for choice in itertools.combinations(range(10), count)
            if size[list(choice)].sum() <= size[taken].sum()
        )
        assert probability[taken].sum() == pytest.approx(most)


def test_an_item_is_found_on_the_best_of_its_paths(
    router: CompiledEnergies, user_UE: np.ndarray, wanted_UK: np.ndarray
) -> None:
    path_VJ = np.stack([np.random.default_rng(5).permutation(160)[:2] for _ in range(NUM_ITEMS)])
    index = build_index(np.arange(NUM_ITEMS), path_VJ)
    np.testing.assert_array_equal(np.sort(paths_of_items(index)), np.sort(path_VJ))
    twice = Prices.of(router.within(index), index, user_UE, wanted_UK, 1.0).offers[0]
    once = [Prices.of(router.within(index), index, user_UE, wanted_UK[:, :1], 1.0).offers[0]]
    assert len(twice.wanted_score_W) == NUM_USERS * WANTED
    assert len(once[0].wanted_score_W) == NUM_USERS
    assert twice.recall(-np.inf) == 1.0


def test_a_width_survives_being_written_as_json() -> None:
    for width in (7, Price(-9.5, -6.0, 400), Price(-9.5, -np.inf, 400)):
        assert width_of(as_settings(width)) == width


def test_a_price_widens_until_everything_is_asked_for() -> None:
    width, factor = Price(-9.0, -6.0, 100), 2
    for _ in range(8):
        wider = width.wider(factor)
        assert wider.price < width.price or wider.price == -np.inf
        width, factor = wider, factor**2
    assert width.price == width.opening == -np.inf
