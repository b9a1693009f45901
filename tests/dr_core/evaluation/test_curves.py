import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr_core.evaluation.bootstrap import paired_bootstrap
from dr_core.evaluation.curves import CurvePoint, at_axis, paired_difference, shared_range


def curve(seed: int, num_users: int = 5, costs: tuple[float, ...] = (40.0, 10.0, 20.0)) -> list[CurvePoint]:
    generator = np.random.default_rng(seed)
    return [(cost, generator.random(num_users)) for cost in costs]


@given(seed=st.integers(0, 999), at=st.floats(10.0, 40.0))
def test_each_user_is_interpolated_as_numpy_would(seed: int, at: float) -> None:
    points = curve(seed)
    measured = at_axis(points, at)
    ordered = sorted(points, key=lambda point: point[0])
    for user in range(5):
        oracle = np.interp(at, [cost for cost, _ in ordered], [values[user] for _, values in ordered])
        assert measured[user] == pytest.approx(oracle)


@given(seed=st.integers(0, 999), at=st.floats(10.0, 40.0))
def test_the_mixture_has_the_asked_mean_cost(seed: int, at: float) -> None:
    points = [(cost, np.full(3, cost)) for cost, _ in curve(seed)]
    np.testing.assert_allclose(at_axis(points, at), at)


def test_a_points_own_cost_gives_a_copy_of_its_figures() -> None:
    points = curve(0)
    measured = at_axis(points, 20.0)
    np.testing.assert_array_equal(measured, points[2][1])
    measured[:] = 0
    assert points[2][1].any()


def test_undefined_users_spread_only_from_the_bracketing_points() -> None:
    points = [(1.0, np.array([np.nan, 0.1])), (2.0, np.array([0.5, 0.2])), (3.0, np.array([0.7, np.nan]))]
    np.testing.assert_array_equal(at_axis(points, 2.0), [0.5, 0.2])
    np.testing.assert_allclose(at_axis(points, 2.5), [0.6, np.nan])


@pytest.mark.parametrize("at", [9.99, 40.01, float("nan")])
def test_nothing_is_extrapolated(at: float) -> None:
    with pytest.raises(ValueError, match="outside the curve"):
        at_axis(curve(0), at)


def test_malformed_curves_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one point"):
        at_axis([], 1.0)
    with pytest.raises(ValueError, match="finite"):
        at_axis([(float("nan"), np.ones(2))], 1.0)
    with pytest.raises(ValueError, match="same users"):
        at_axis([(1.0, np.ones(2)), (2.0, np.ones(3))], 1.0)


def test_several_points_of_one_cost_can_be_read() -> None:
    points = [(1.0, np.array([0.0])), (2.0, np.array([0.4])), (2.0, np.array([0.9]))]
    assert at_axis(points, 2.0).tolist() == [0.4]
    assert at_axis(points, 1.5).tolist() == [0.2]


def test_equal_arms_differ_by_nothing_at_every_cost() -> None:
    seeds = [curve(0), curve(1, num_users=7)]
    assert paired_difference(seeds, seeds, 25.0, num_resamples=50) == (0.0, 0.0, 0.0)


def test_the_difference_is_the_paired_bootstrap_of_both_arms_at_that_cost() -> None:
    method, against = [curve(0), curve(1, 7)], [curve(2, costs=(5.0, 50.0)), curve(3, 7)]
    measured = paired_difference(method, against, 15.0, num_resamples=40, seed=6)
    read = [[at_axis(points, 15.0) for points in curves] for curves in (method, against)]
    assert measured == paired_bootstrap(*read, num_resamples=40, seed=6)
    assert measured[0] == pytest.approx(np.concatenate(read[0]).mean() - np.concatenate(read[1]).mean())


def test_arms_of_other_seeds_or_users_are_refused() -> None:
    with pytest.raises(ValueError, match="seeds"):
        paired_difference([curve(0)], [], 20.0)
    with pytest.raises(ValueError, match="same users"):
        paired_difference([curve(0)], [curve(0, 6)], 20.0)


def test_every_curve_can_be_read_within_the_shared_range() -> None:
    curves = [curve(0), curve(1, costs=(15.0, 90.0)), curve(2, costs=(1.0, 30.0))]
    assert shared_range(curves) == (15.0, 30.0)
    for end in shared_range(curves):
        for points in curves:
            at_axis(points, end)
    with pytest.raises(ValueError, match="share no cost"):
        shared_range([curve(0), curve(1, costs=(50.0, 60.0))])
    with pytest.raises(ValueError, match="no curves"):
        shared_range([])
