"""The number of paths that makes a search cheapest."""

import numpy as np
import pytest

from dr_core.paths.length import (
    FEWEST_ITEMS,
    FEWEST_VISITS,
    MOST_PATHS,
    CostGrowth,
    SizeCost,
    between,
    children,
    clip_num_paths,
    fit_growth,
    layers,
    usual_growth,
)

GRID = np.geomspace(1, 1e8, 20_001)
GROWTHS = [
    CostGrowth(1000, 500, 300, candidates_power, nodes_power)
    for candidates_power in (0.15, 0.3, 0.5)
    for nodes_power in (0.6, 1.0)
]


def work(growth: CostGrowth, num_paths: float, candidate_cost: float) -> float:
    """n(P) + m C(P)."""
    return growth.nodes_at(num_paths) + candidate_cost * growth.candidates_at(num_paths)


@pytest.mark.parametrize("growth", GROWTHS)
@pytest.mark.parametrize("cost", [0.3, 1, 40])
def test_no_other_number_of_paths_takes_less_work(growth: CostGrowth, cost: float) -> None:
    best = growth.cheapest(cost)
    assert work(growth, best, cost) <= min(work(growth, p, cost) for p in GRID) * (1 + 1e-9)
    assert growth.nodes_power * growth.nodes_at(best) == pytest.approx(
        growth.candidates_power * cost * growth.candidates_at(best)
    )


@pytest.mark.parametrize("growth", GROWTHS)
@pytest.mark.parametrize("candidates", [30, 4000])
def test_given_candidates_buy_their_recall_with_the_least_work(growth: CostGrowth, candidates: float) -> None:
    """The recall that C candidates hold at P* takes less work at no other P."""
    best = growth.cheapest_for(candidates, 2.0)
    same_recall = CostGrowth(best, candidates, growth.nodes_at(best), growth.candidates_power, growth.nodes_power)
    assert work(same_recall, best, 2.0) <= min(work(same_recall, p, 2.0) for p in GRID) * (1 + 1e-9)
    assert same_recall.cheapest(2.0) == pytest.approx(best)


def test_one_layer_is_the_rule_of_lists() -> None:
    """Where every path is a node, P* = beta m C."""
    assert CostGrowth(700, 0.1, 700, 0.3, 1.0).cheapest_for(2000, 5.0) == pytest.approx(0.3 * 5 * 2000)


@pytest.mark.parametrize("growth", GROWTHS)
def test_dearer_candidates_never_give_longer_paths(growth: CostGrowth) -> None:
    costs = np.geomspace(0.1, 1000, 40)
    for solve in (growth.cheapest, lambda cost: growth.cheapest_for(900, cost)):
        assert (np.diff([solve(float(cost)) for cost in costs]) >= 0).all()
        clipped = [clip_num_paths(solve(float(cost)), 50_000, 1, 900) for cost in costs]
        assert (np.diff(clipped) >= 0).all()
        assert (np.diff([np.prod(layers(paths, 2)) for paths in clipped]) >= 0).all()


@pytest.mark.parametrize("candidates", [None, 450.0])
def test_between_two_growths_is_one_that_is_in_balance(candidates: float | None) -> None:
    few, many = (
        CostGrowth(1500, 500, 170, 0.58, 0.54, (750, 3000)),
        CostGrowth(10_800, 630, 850, 0.32, 0.76, (5400, 21_600)),
    )
    balances = few.balance(1.0, candidates), many.balance(1.0, candidates)
    assert balances[0] < 0 < balances[1], "more paths take less work below, and fewer above"
    middle = between(few, many, balances[0] / (balances[0] - balances[1]))
    assert middle.balance(1.0, candidates) == pytest.approx(0)
    assert few.num_paths < middle.num_paths < many.num_paths
    best = middle.cheapest(1.0) if candidates is None else middle.cheapest_for(candidates, 1.0)
    assert best == pytest.approx(middle.num_paths)
    assert middle.measured_at == (750, 3000, 5400, 21_600)


def test_growth_is_read_off_exact_laws() -> None:
    sizes = [118 * 16, 118 * 64, 999]
    costs = [SizeCost(size, 3e4 * size**-0.31, 2.5 * size**0.7) for size in sizes]
    growth = fit_growth(costs)
    assert growth.candidates_power == pytest.approx(0.31)
    assert growth.nodes_power == pytest.approx(0.7)
    assert growth.measured_at == tuple(sorted(sizes))
    for cost in costs:
        assert growth.candidates_at(cost.num_paths) == pytest.approx(cost.candidates)
        assert growth.nodes_at(cost.num_paths) == pytest.approx(cost.nodes)


def test_noise_gives_no_power_outside_of_its_range() -> None:
    growth = fit_growth([SizeCost(100, 50, 90), SizeCost(400, 80, 60)])
    assert growth.candidates_power > 0
    assert growth.nodes_power > 0


@pytest.mark.parametrize(
    "costs", [[], [SizeCost(9, 1, 1)], [SizeCost(9, 1, 1)] * 2, [SizeCost(9, 1, 1), SizeCost(8, 0, 1)]]
)
def test_growth_needs_two_sizes(costs: list[SizeCost]) -> None:
    with pytest.raises(ValueError, match="two or more numbers of paths"):
        fit_growth(costs)


@pytest.mark.parametrize("num_items", [3, 50, 3000, 60_000, 10_000_000, 3_000_000_000])
@pytest.mark.parametrize("candidates", [1, 75, 1500])
@pytest.mark.parametrize("wanted", [0.1, 800, 1e12])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_the_number_of_paths_keeps_its_bounds(
    num_items: int, candidates: float, wanted: float, num_layers: int
) -> None:
    num_paths = clip_num_paths(wanted, num_items, 1, candidates)
    nodes = layers(num_paths, num_layers)
    assert len(nodes) == num_layers
    assert min(nodes) >= 2
    assert num_paths <= max(num_items / FEWEST_ITEMS, 4)
    assert num_paths <= max(MOST_PATHS, FEWEST_VISITS * num_items / candidates)
    assert num_paths >= min(FEWEST_VISITS * num_items / candidates, num_items / FEWEST_ITEMS)
    assert np.prod(nodes, dtype=object) <= max(num_paths, 2**num_layers)
    if num_layers <= 2:
        assert np.prod(nodes, dtype=object) > num_paths * 0.6


def test_prefixes_are_many_and_their_children_few() -> None:
    assert layers(16_384, 2) == (512, 32)
    assert layers(944, 2) == (59, 16)
    assert layers(944, 1) == (944,)
    assert children(1536) > children(1535)


@pytest.mark.parametrize("num_items", [40, 3000, 60_000, 5_000_000])
def test_what_is_expected_before_measuring_is_a_growth(num_items: int) -> None:
    growth = usual_growth(num_items, 1, 0.01 * num_items)
    assert growth.measured_at == ()
    assert work(growth, growth.cheapest(1), 1) <= min(work(growth, p, 1) for p in GRID) * (1 + 1e-9)
