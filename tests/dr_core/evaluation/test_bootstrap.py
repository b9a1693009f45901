import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr_core.evaluation import bootstrap
from dr_core.evaluation.bootstrap import bootstrap_interval, bootstrap_means, paired_bootstrap


def test_the_interval_covers_the_true_mean_at_about_its_level() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        low, high = bootstrap_interval(generator.beta(2, 5, size=150), num_resamples=300, seed=trial, level=0.9)
        covered += low <= 2 / 7 <= high
    assert 0.84 <= covered / 300 <= 0.95


def test_the_interval_has_the_width_of_the_normal_approximation() -> None:
    values = np.random.default_rng(1).normal(0.3, 0.2, size=4000)
    low, high = bootstrap_interval(values, num_resamples=4000, seed=0)
    standard_error = values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - 1.96 * standard_error, abs=0.15 * standard_error)
    assert high == pytest.approx(values.mean() + 1.96 * standard_error, abs=0.15 * standard_error)


def test_all_samples_of_three_users_are_equally_likely() -> None:
    means = bootstrap_means(np.array([0.0, 1.0, 10.0]), num_resamples=54_000, seed=3)
    oracle = np.sort([(a + b + c) / 3 for a in (0, 1, 10) for b in (0, 1, 10) for c in (0, 1, 10)])
    for value in np.unique(oracle):
        expected = np.isclose(oracle, value).mean()
        assert np.isclose(means, value).mean() == pytest.approx(expected, abs=0.01)


@given(values=st.lists(st.floats(-1, 1), min_size=1, max_size=20), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_equal_arms_differ_by_exactly_nothing(values: list[float], seed: int) -> None:
    values_a = np.array(values)
    assert paired_bootstrap(values_a, values_a.copy(), num_resamples=20, seed=seed) == (0.0, 0.0, 0.0)


def test_a_constant_difference_has_no_width() -> None:
    values_a = np.random.default_rng(0).random(50)
    np.testing.assert_allclose(paired_bootstrap(values_a + 0.25, values_a, num_resamples=50), (0.25, 0.25, 0.25))


def test_pairing_narrows_the_interval_of_arms_that_move_together() -> None:
    generator = np.random.default_rng(2)
    shared = generator.random(400)
    method, against = shared + generator.normal(0.02, 0.01, 400), shared
    _, low, high = paired_bootstrap(method, against)
    unpaired_low, unpaired_high = bootstrap_interval(method)
    assert 0 < low < high
    assert high - low < 0.2 * (unpaired_high - unpaired_low)


def test_seeds_are_concatenated_and_undefined_users_left_out() -> None:
    blocks = [np.array([0.1, np.nan, 0.5]), np.array([0.9, 0.3])]
    together = np.array([0.1, 0.5, 0.9, 0.3])
    assert bootstrap_interval(blocks, seed=4) == bootstrap_interval(together, seed=4)
    other = [np.array([0.0, 0.2, np.nan]), np.array([0.4, 0.3])]
    assert paired_bootstrap(blocks, other)[0] == pytest.approx((0.1 + 0.5 + 0.0) / 3)


def test_the_same_seed_draws_the_same_whatever_else_is_drawn() -> None:
    values = np.random.default_rng(0).random(100)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_chunks_of_one_sample_still_give_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(200)
    whole = bootstrap_interval(values, num_resamples=3000)
    monkeypatch.setattr(bootstrap, "_CHUNK_CELLS", 1)
    np.testing.assert_allclose(bootstrap_interval(values, num_resamples=3000), whole, atol=0.01)


def test_what_cannot_be_resampled_is_refused() -> None:
    values = np.ones(3)
    with pytest.raises(ValueError, match="no user"):
        bootstrap_interval(np.array([np.nan]))
    with pytest.raises(ValueError, match="no user"):
        bootstrap_interval([])
    with pytest.raises(ValueError, match="level"):
        bootstrap_interval(values, level=1.0)
    with pytest.raises(ValueError, match="num_resamples"):
        bootstrap_interval(values, num_resamples=0)
    with pytest.raises(ValueError, match="same users"):
        paired_bootstrap([values, values], [np.ones(2), np.ones(4)])
    with pytest.raises(ValueError, match="vector"):
        bootstrap_interval(np.ones((2, 2)))
