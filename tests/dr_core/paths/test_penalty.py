"""Penalties and the alpha that goes with them."""

from fractions import Fraction

import numpy as np
import pytest

from dr_core.paths.penalty import Penalty, correct_alpha, derive_alpha, suggest_num_nodes


@pytest.mark.parametrize("power", [2, 3, 4])
def test_marginal_is_the_difference_of_costs_to_the_last_bits_however_large_the_path(power: int) -> None:
    penalty = Penalty(power, 1.0)
    sizes = [0, 1, 2, 7, 1000, 123_456, 50_000_000]
    exact = [float(Fraction((size + 1) ** power - size**power, power)) for size in sizes]
    np.testing.assert_allclose(penalty.marginal(sizes), exact, rtol=1e-14)
    np.testing.assert_allclose(penalty.size_cost(sizes), [float(Fraction(size**power, power)) for size in sizes])


def test_the_cost_is_convex_so_that_marginals_grow() -> None:
    assert np.all(np.diff(Penalty(4, 1.0).marginal(np.arange(100))) > 0)


def test_total_is_alpha_times_the_sum_and_ignores_empty_paths() -> None:
    assert Penalty(4, 0.5).total([1, 2, 0]) == pytest.approx(0.5 * (1 / 4 + 16 / 4))


@pytest.mark.parametrize(("power", "alpha"), [(1, 1.0), (17, 1.0), (4, -1.0), (4, float("nan")), (4, float("inf"))])
def test_impossible_penalties_are_refused(power: int, alpha: float) -> None:
    with pytest.raises(ValueError, match=r"power|alpha"):
        Penalty(power, alpha)


def test_derived_alpha_follows_the_weight_and_the_cube_of_the_path() -> None:
    assert derive_alpha(10.0, 5.0) == pytest.approx(6 * 10 / 125)
    assert derive_alpha(20.0, 5.0) == pytest.approx(2 * derive_alpha(10.0, 5.0))
    assert derive_alpha(10.0, 10.0) == pytest.approx(derive_alpha(10.0, 5.0) / 8)


def test_correction_goes_the_right_way_and_no_further_than_allowed() -> None:
    assert correct_alpha(1.0, 11.0, 10.0) == pytest.approx(1.331)
    assert correct_alpha(1.0, 10.0, 11.0) == pytest.approx((10 / 11) ** 3)
    assert correct_alpha(1.0, 100.0, 10.0) == 4.0
    assert correct_alpha(1.0, 1.0, 10.0, max_factor=2.0) == 0.5


@pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
@pytest.mark.parametrize("num_items", [1, 100, 3125, 60_416, 1_477_922])
def test_suggested_width_is_the_smallest_that_holds_the_paths(num_items: int, num_layers: int) -> None:
    wanted = 2 * num_items * 3 / 40
    num_nodes = suggest_num_nodes(num_items, 3, 40, num_layers)
    assert num_nodes >= 2
    assert num_nodes**num_layers >= wanted
    assert num_nodes == 2 or (num_nodes - 1) ** num_layers < wanted


def test_arguments_that_are_not_positive_are_refused() -> None:
    for call in (
        lambda: derive_alpha(0.0, 5.0),
        lambda: derive_alpha(1.0, float("nan")),
        lambda: correct_alpha(1.0, 1.0, 0.0),
        lambda: correct_alpha(1.0, 1.0, 1.0, max_factor=0.5),
        lambda: suggest_num_nodes(0, 1, 1, 1),
    ):
        with pytest.raises(ValueError, match="must be"):
            call()
