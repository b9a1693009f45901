"""Gains and costs of visited paths against plain loops over widths, states and items."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from dr_core.paths.coverage import (
    FRACTION_BITS,
    Gains,
    PathVisits,
    captured_mass,
    log_prices,
    merge_gains,
    visit_costs,
    visit_gains,
)
from tests.dr_core.paths.visit_cases import LOG_PRICES, NUM_PATHS, Case, draw_case, net_mass

SEEDS = st.integers(0, 100_000)


def gains_of(case: Case, states: slice = slice(None), items: slice = slice(None)) -> Gains:
    part = Case(case.mass_NV[states], case.path_VJ, case.density_NP[states])
    ids = np.arange(len(case.path_VJ))[items]
    return visit_gains(part.by_item[items], part.visits, case.path_VJ[items], NUM_PATHS, ids)


def table(gains: Gains) -> dict[tuple[int, int, int], int]:
    return {tuple(map(int, key)): int(fixed) for *key, fixed in zip(*gains, strict=True)}


@given(seed=SEEDS)
@settings(deadline=None, max_examples=40)
def test_visits_at_prices_are_those_above_each(seed: int) -> None:
    case = draw_case(seed)
    visits = case.visits
    for state in range(len(case.mass_NV)):
        row = slice(visits.offsets[state], visits.offsets[state + 1])
        above_FP = np.stack([case.is_visited(price)[state] for price in LOG_PRICES])
        np.testing.assert_array_equal(visits.paths[row], np.flatnonzero(above_FP.any(axis=0)))
        np.testing.assert_allclose(visits.times[row], above_FP.sum(axis=0)[visits.paths[row]])
        np.testing.assert_allclose(visits.prices[row], (np.exp(LOG_PRICES) @ above_FP)[visits.paths[row]], rtol=1e-6)


@given(seed=SEEDS, budgets=st.lists(st.floats(0.1, 13), min_size=1, max_size=3))
@settings(deadline=None, max_examples=40)
def test_a_price_is_the_highest_at_which_so_many_candidates_are_visited(seed: int, budgets: list[float]) -> None:
    case = draw_case(seed)
    size_P = np.bincount(case.path_VJ[:, 0], minlength=NUM_PATHS)
    size_NP = np.broadcast_to(size_P, case.density_NP.shape)
    for budget, price in zip(budgets, log_prices(case.density_NP, size_NP, budgets), strict=True):
        assert (case.is_visited(price) * size_P).sum() >= budget * len(size_NP) - 1e-9
        assert (case.is_visited(np.nextafter(price, 9.0)) * size_P).sum() < budget * len(size_NP)


@given(seed=SEEDS, cut=st.integers(0, 9))
@settings(deadline=None, max_examples=20)
def test_visits_of_blocks_are_those_of_the_whole(seed: int, cut: int) -> None:
    case = draw_case(seed)
    blocks = [case._replace(density_NP=case.density_NP[part]).visits for part in (slice(0, cut), slice(cut, None))]
    for left, right in zip(PathVisits.joined(blocks), case.visits, strict=True):
        np.testing.assert_array_equal(left, right)


def test_padding_is_never_visited() -> None:
    found = PathVisits.at_prices(np.array([[3, -1], [-1, -1]]), np.array([[0.0, 0.0], [0.0, 0.0]]), [-1.0])
    assert (found.offsets.tolist(), found.paths.tolist()) == ([0, 1, 1], [3])


@given(seed=SEEDS, num_slots=st.integers(1, 3))
@settings(deadline=None, max_examples=15)
def test_a_gain_less_its_cost_is_what_the_path_changes(seed: int, num_slots: int) -> None:
    """Against the net mass with and without the path: for every item, slot and path."""
    case = draw_case(seed, num_slots=num_slots)
    gains, cost_P = table(gains_of(case)), visit_costs(case.visits, NUM_PATHS)
    for item, paths in enumerate(case.path_VJ):
        for slot in range(num_slots):
            if paths[slot] < 0 and (paths[:slot] < 0).any():
                continue
            without_VJ = case.path_VJ.copy()
            without_VJ[item, slot] = -1
            for path in set(range(NUM_PATHS)) - set(without_VJ[item]):
                with_VJ = without_VJ.copy()
                with_VJ[item, slot] = path
                said = gains.get((item, slot, path), 0) * 2.0**-FRACTION_BITS - cost_P[path]
                assert said == pytest.approx(net_mass(case, with_VJ) - net_mass(case, without_VJ), abs=1e-6)


@given(seed=SEEDS, num_slots=st.integers(1, 2), cut=st.integers(0, 9), cut_items=st.integers(0, 14))
@settings(deadline=None, max_examples=60)
def test_blocks_of_states_and_of_items_sum_to_the_whole(seed: int, num_slots: int, cut: int, cut_items: int) -> None:
    case = draw_case(seed, num_slots=num_slots)
    blocks = [
        gains_of(case, states, items)
        for states in (slice(cut, None), slice(0, cut))
        for items in (slice(cut_items, None), slice(0, cut_items))
    ]
    whole, merged = gains_of(case), merge_gains(blocks)
    for left, right in zip(merged, whole, strict=True):
        np.testing.assert_array_equal(left, right)


@given(seed=SEEDS)
@settings(deadline=None, max_examples=30)
def test_one_path_an_item_is_a_second_path_where_the_first_is_never_visited(seed: int) -> None:
    case = draw_case(seed)
    unseen = Case(case.mass_NV, case.path_VJ, case.density_NP.copy())
    unseen.density_NP[:, 0] = -np.inf
    first_VJ = np.stack([np.zeros(len(case.path_VJ), np.int64), case.path_VJ[:, 0]], axis=1)
    one = visit_gains(unseen.by_item, unseen.visits, case.path_VJ, NUM_PATHS)
    two = visit_gains(unseen.by_item, unseen.visits, first_VJ, NUM_PATHS)
    assert table(one) == {(item, 0, path): fixed for (item, slot, path), fixed in table(two).items() if slot == 1}


@given(seed=SEEDS, num_slots=st.integers(1, 3))
@settings(deadline=None, max_examples=40)
def test_captured_mass_counts_an_item_once_a_width(seed: int, num_slots: int) -> None:
    case = draw_case(seed, num_slots=num_slots)
    free = sum(
        case.mass_NV[case.is_visited(price)[:, paths[paths >= 0]].any(axis=1), item].sum()
        for price in LOG_PRICES
        for item, paths in enumerate(case.path_VJ)
    )
    found = captured_mass(csr_matrix(case.mass_NV), case.visits, case.path_VJ, NUM_PATHS)
    assert found == pytest.approx(free / len(case.mass_NV), rel=1e-6)


def test_what_does_not_fit_is_refused() -> None:
    case = draw_case(0)
    with pytest.raises(ValueError, match="do not fit"):
        visit_gains(case.by_item[:, :-1], case.visits, case.path_VJ, NUM_PATHS)
    with pytest.raises(ValueError, match="not negative"):
        visit_gains(-case.by_item, case.visits, case.path_VJ, NUM_PATHS)
    with pytest.raises(ValueError, match="fraction bits"):
        visit_gains(case.by_item * 1e9, case.visits, case.path_VJ, NUM_PATHS)
