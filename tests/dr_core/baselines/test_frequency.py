"""The frequency estimator of the two-tower paper: unbiased, follows a change, counts a batch once, survives collisions."""

import numpy as np
import pytest

from dr_core.baselines.frequency import FrequencyConfig, FrequencyEstimator

NUM_ITEMS = 400


def stream(probability: np.ndarray, steps: int, seed: int = 0):
    """Batches that hold each item with its probability."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        yield np.flatnonzero(rng.random(len(probability)) < probability)


def estimator(**config) -> FrequencyEstimator:
    return FrequencyEstimator.empty(FrequencyConfig.model_validate({"num_slots": 1 << 14, "num_hashes": 2, **config}))


def error(found: FrequencyEstimator, probability: np.ndarray) -> float:
    return float(np.abs(found.probability(np.arange(len(probability))) - probability).mean())


@pytest.mark.parametrize("probability", [0.01, 0.1, 0.5, 1.0])
def test_the_mean_gap_is_unbiased(probability: float) -> None:
    """E[B] -> 1 / p, and the variance of B is alpha / (2 - alpha) of that of one gap (paper, section 4)."""
    rate, found = 0.05, estimator(rate=0.05, initial_gap=50.0, num_slots=1 << 18, num_hashes=1)
    for batch in stream(np.full(NUM_ITEMS, probability), int(200 / probability)):
        found.observe(batch)
    gaps = 1 / found.probability(np.arange(NUM_ITEMS))
    deviation = np.sqrt((1 - probability) / probability**2 * rate / (2 - rate))
    assert gaps.mean() == pytest.approx(1 / probability, abs=4 * deviation / np.sqrt(NUM_ITEMS) + 1e-2)
    assert gaps.std() == pytest.approx(deviation, rel=0.25, abs=1e-2)


def test_the_start_is_forgotten_geometrically() -> None:
    found = estimator(rate=0.1, initial_gap=1_000.0, num_hashes=1)
    for _ in range(30):
        found.observe(np.array([7]))
    assert 1 / found.probability(np.array([7]))[0] == pytest.approx(1 + 999 * 0.9**30)


def test_it_follows_a_switched_distribution() -> None:
    """The paper's simulation: q ~ i^2, then turned round half-way."""
    ranks = np.arange(NUM_ITEMS, dtype=float)
    before, after = (
        (weights / weights.sum() * 40).clip(0, 0.9) for weights in (ranks**2, (NUM_ITEMS - 1 - ranks) ** 2)
    )
    found = estimator(rate=0.05, initial_gap=100.0)
    for batch in stream(before, 2_000):
        found.observe(batch)
    settled, switched = error(found, before), error(found, after)
    for batch in stream(after, 2_000, seed=1):
        found.observe(batch)
    followed = error(found, after)
    assert settled < 0.2 * before.mean()
    assert switched > 0.5 * before.mean()
    assert followed < 0.35 * before.mean()


def test_repeats_in_a_batch_count_once() -> None:
    once, often = estimator(), estimator()
    for batch in stream(np.full(50, 0.3), 100):
        once.observe(batch)
        often.observe(np.repeat(batch, 3)[::-1])
    np.testing.assert_array_equal(once.gap_MH, often.gap_MH)
    np.testing.assert_array_equal(once.last_MH, often.last_MH)


def test_more_hashes_in_the_same_memory_lower_the_overestimate() -> None:
    """Collisions only ever make an item look more frequent; the least frequent slot is nearest to the truth."""
    probability = np.r_[np.full(300, 0.005), np.full(20, 0.5)]
    errors = {}
    for num_hashes in (1, 2, 4):
        found = estimator(rate=0.02, initial_gap=200.0, num_hashes=num_hashes, num_slots=1600 // num_hashes)
        for batch in stream(probability, 4_000):
            found.observe(batch)
        rare = found.probability(np.arange(300)) - 0.005
        errors[num_hashes] = rare.mean()
    assert errors[1] > errors[2] > errors[4] - 1e-3
    assert errors[4] < 0.5 * errors[1]


def test_the_state_goes_on_where_it_was() -> None:
    batches = list(stream(np.full(60, 0.2), 60))
    whole, first = estimator(), estimator()
    for batch in batches:
        whole.observe(batch)
    for batch in batches[:25]:
        first.observe(batch)
    second = FrequencyEstimator.restore(first.config, {name: value.copy() for name, value in first.arrays().items()})
    for batch in batches[25:]:
        second.observe(batch)
    np.testing.assert_array_equal(second.gap_MH, whole.gap_MH)
    assert second.step == whole.step
    with pytest.raises(ValueError, match=r"asks for \(3, 16384\)"):
        FrequencyEstimator.restore(estimator(num_hashes=3).config, first.arrays())


def test_items_spread_evenly_and_hashes_differ() -> None:
    found = estimator(num_slots=64, num_hashes=2)
    slots = [found._slots(np.arange(64_000), number) for number in range(2)]
    for each in slots:
        counts = np.bincount(each, minlength=64)
        assert ((counts - 1000) ** 2 / 1000).sum() == pytest.approx(63, abs=50)
    assert (slots[0] == slots[1]).mean() == pytest.approx(1 / 64, abs=0.004)
