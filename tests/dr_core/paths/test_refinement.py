"""Refinement of a mapping against plain loops over states, paths and single moves."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from dr_core.paths.best_visits import BestVisitors
from dr_core.paths.coverage import PathVisits, captured_mass, visit_costs, visit_gains
from dr_core.paths.refinement import Moves, best_moves, refine_paths, sweep, take
from tests.dr_core.paths.visit_cases import NUM_PATHS, Case, draw_case, net_mass

SEEDS = st.integers(0, 100_000)


def moves_of(case: Case) -> Moves:
    gains = visit_gains(case.by_item, case.visits, case.path_VJ, NUM_PATHS)
    return best_moves(gains, visit_costs(case.visits, NUM_PATHS), case.path_VJ)


def moved(path_VJ: np.ndarray, item: int, slot: int, path: int) -> np.ndarray:
    after_VJ = path_VJ.copy()
    after_VJ[item, slot] = path
    return after_VJ


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, num_slots=st.integers(1, 3))
def test_the_moves_of_an_item_are_its_best_ones_by_what_they_bring(seed: int, num_slots: int) -> None:
    """Of those to paths where it gains something, and of leaving a path that others of its own make up for."""
    case = draw_case(seed, num_slots=num_slots)
    gains, moves = visit_gains(case.by_item, case.visits, case.path_VJ, NUM_PATHS), moves_of(case)
    before = net_mass(case, case.path_VJ)
    for item in np.unique(gains.items):
        held = case.path_VJ[item][case.path_VJ[item] >= 0]
        rows = np.flatnonzero(gains.items == item)
        options = [
            (slot, path) for slot, path in zip(gains.slots[rows], gains.paths[rows], strict=True) if path not in held
        ]
        if len(held) > 1:
            options += [(slot, -1) for slot in np.flatnonzero(case.path_VJ[item] >= 0)]
        brought = [net_mass(case, moved(case.path_VJ, item, *option)) - before for option in options]
        best = sorted((gain for gain in brought if gain > 1e-6), reverse=True)[:4]
        offered = moves.profits[moves.items == item]
        np.testing.assert_allclose(offered[offered > 1e-6], best, atol=1e-5)
        for slot, path, profit in zip(*(column[moves.items == item] for column in moves[1:]), strict=True):
            assert net_mass(case, moved(case.path_VJ, item, slot, path)) - before == pytest.approx(profit, abs=1e-5)


def random_moves(rng: np.random.Generator, num_moves: int) -> Moves:
    keys = rng.permutation(14 * NUM_PATHS)[:num_moves]
    return Moves(keys // NUM_PATHS, np.zeros(num_moves, np.int64), keys % NUM_PATHS, rng.random(num_moves))


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, largest=st.integers(1, 5))
def test_moves_are_taken_best_first_while_there_is_room(seed: int, largest: int) -> None:
    rng = np.random.default_rng(seed)
    moves, path_VJ = random_moves(rng, 30), rng.integers(0, NUM_PATHS, size=(14, 1))
    expected, done = path_VJ.copy(), set()
    for move in np.argsort(-moves.profits):
        item, path = moves.items[move], moves.paths[move]
        if item not in done and (expected == path).sum() < largest:
            expected[item] = path
            done.add(item)
    np.testing.assert_array_equal(take(moves, path_VJ, NUM_PATHS, largest), expected)


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, num_slots=st.integers(1, 2))
def test_a_sweep_of_one_item_never_lowers_the_net_mass(seed: int, num_slots: int) -> None:
    """And the items that are not considered stay, and no path repeats within an item."""
    case = draw_case(seed, num_slots=num_slots)
    for item in range(len(case.path_VJ)):
        considered = np.arange(len(case.path_VJ)) == item
        after_VJ = sweep(case.by_item, case.visits, case.path_VJ, NUM_PATHS, considered=considered, largest=9)
        assert net_mass(case, after_VJ) >= net_mass(case, case.path_VJ) - 1e-5
        np.testing.assert_array_equal(after_VJ[~considered], case.path_VJ[~considered])
        held = after_VJ[item][after_VJ[item] >= 0]
        assert len(set(held)) == len(held) > 0


@settings(deadline=None, max_examples=5)
@given(seed=SEEDS)
def test_sweeps_one_item_at_a_time_end_where_no_single_move_is_worth_making(seed: int) -> None:
    case = draw_case(seed, num_slots=2)
    net, path_VJ = net_mass(case, case.path_VJ), case.path_VJ
    for step in range(12 * len(path_VJ)):
        considered = np.arange(len(path_VJ)) == step % len(path_VJ)
        path_VJ = sweep(case.by_item, case.visits, path_VJ, NUM_PATHS, considered=considered, largest=99)
        now = net_mass(case, path_VJ)
        assert now >= net - 1e-6
        net = now
    assert len(moves_of(Case(case.mass_NV, path_VJ, case.density_NP)).items) == 0


@dataclass
class NoisyVisitors:
    """They visit what a model would that is fitted badly: other paths every time."""

    case: Case
    seed: int

    def visit(self, path_VJ: np.ndarray) -> PathVisits:
        rng = np.random.default_rng([self.seed, int(path_VJ.sum())])
        density_NP = self.case.density_NP + rng.normal(0, 1.5, size=self.case.density_NP.shape)
        return Case(self.case.mass_NV, path_VJ, density_NP).visits


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, num_slots=st.integers(1, 2))
def test_the_best_mapping_met_is_kept(seed: int, num_slots: int) -> None:
    case = draw_case(seed, num_slots=num_slots)
    visitors, mass_NV, before = NoisyVisitors(case, seed), csr_matrix(case.mass_NV), case.path_VJ.copy()
    run = [
        refine_paths(mass_NV, case.path_VJ, NUM_PATHS, visitors, num_sweeps=5, capacity=2.0, seed=seed)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(run[0], run[1], "the same seed")
    np.testing.assert_array_equal(case.path_VJ, before, "the caller's mapping is not changed")
    first, last = (captured_mass(mass_NV, visitors.visit(each), each, NUM_PATHS) for each in (before, run[0]))
    assert last >= first


@pytest.mark.parametrize("seed", range(4))
def test_a_move_under_best_visits_brings_about_what_was_said(seed: int) -> None:
    """Long paths, and states of which some want a few items and some want many: one item more is a small change to each."""
    rng = np.random.default_rng(seed)
    peak_N = rng.choice([0.02, 0.3, 2.0], size=40)
    mass_NV = csr_matrix(np.stack([rng.dirichlet(np.full(900, peak)) for peak in peak_N]))
    path_VJ, visitors = rng.integers(0, 9, size=(900, 1)), BestVisitors(mass_NV, 9, [90.0, 260.0])
    visits, before = visitors.visit(path_VJ), visitors.captured_mass(path_VJ)
    gains = visit_gains(mass_NV.T.tocsr(), visits, path_VJ, 9)
    moves = best_moves(gains, visit_costs(visits, 9), path_VJ)
    said, brought = [], []
    for move in np.argsort(-moves.profits)[:200:10]:
        said.append(moves.profits[move] / (40 * 2))
        brought.append(visitors.captured_mass(moved(path_VJ, moves.items[move], 0, moves.paths[move])) - before)
    assert np.sum(brought) == pytest.approx(np.sum(said), rel=0.5)


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS)
def test_refining_by_the_best_visits_never_loses_mass_and_keeps_to_the_capacity(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mass_NV = csr_matrix(rng.dirichlet(np.full(45, 0.2), size=20))
    path_VJ = rng.permutation(np.arange(45) % 9)[:, None]
    visitors = BestVisitors(mass_NV, 9, [4, 10])
    refined = refine_paths(mass_NV, path_VJ, 9, visitors, num_sweeps=6, capacity=1.6, seed=seed)
    assert visitors.captured_mass(refined) >= visitors.captured_mass(path_VJ)
    assert np.bincount(refined[:, 0], minlength=9).max() <= 8


def test_planted_groups_are_found_again() -> None:
    """Nine groups of users each want five items; a quarter of the items start on wrong paths."""
    rng = np.random.default_rng(0)
    group_V = np.arange(45) // 5
    mass_NV = np.zeros((180, 45))
    for state in range(180):
        mass_NV[state, group_V == state % 9] = rng.dirichlet(np.ones(5))
    start = group_V.copy()
    wrong = rng.choice(45, 12, replace=False)
    start[wrong] = rng.permutation(start[wrong])
    mass = csr_matrix(mass_NV)
    visitors = BestVisitors(mass, 9, [5])
    refined = refine_paths(mass, start[:, None], 9, visitors, num_sweeps=30, capacity=1.6, seed=1)
    assert visitors.captured_mass(start[:, None]) < 0.9
    assert visitors.captured_mass(refined) > 0.97
