"""Whether items on one path belong together: against enumeration, and at the two ends of the scale."""

import numpy as np
import pytest
from scipy import sparse

from dr_core.evaluation.coherence import co_occurrence_lift, normalized_mutual_information


def test_mutual_information_of_equal_and_unrelated_labels() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, 20_000)
    assert normalized_mutual_information(labels, (labels * 31) % 101) == pytest.approx(1)
    assert normalized_mutual_information(labels, rng.integers(0, 5, 20_000)) < 0.01
    assert normalized_mutual_information(labels, np.zeros(20_000, dtype=np.int64)) == 0
    assert normalized_mutual_information(np.zeros(0, np.int64), np.zeros(0, np.int64)) == 0


def test_mutual_information_is_its_formula() -> None:
    rng = np.random.default_rng(1)
    left, right = rng.integers(0, 4, 50), rng.integers(0, 3, 50)
    joint = np.histogram2d(left, right, bins=(4, 3))[0] / 50
    p, q = joint.sum(1), joint.sum(0)
    mutual = sum(joint[a, b] * np.log(joint[a, b] / (p[a] * q[b])) for a in range(4) for b in range(3) if joint[a, b])
    expected = mutual / np.sqrt(-(p * np.log(p)).sum() * -(q * np.log(q)).sum())
    assert normalized_mutual_information(left, right) == pytest.approx(expected)
    assert normalized_mutual_information(right, left) == pytest.approx(expected)
    with pytest.raises(ValueError, match="50 labels"):
        normalized_mutual_information(left, right[:-1])


def test_lift_is_the_enumeration_of_pairs() -> None:
    rng = np.random.default_rng(2)
    met = (rng.random((60, 25)) < 0.2).astype(np.float32)
    paths = np.array([rng.choice(6, 2, replace=False) for _ in range(25)])
    paths[3, 1] = -1
    both, expected = 0.0, 0.0
    for path in range(6):
        items = [item for item in range(25) if path in paths[item]]
        for i in items:
            for j in items:
                if i != j:
                    both += (met[:, i] * met[:, j]).sum()
                    expected += met[:, i].sum() * met[:, j].sum() / 60
    assert co_occurrence_lift(sparse.csr_matrix(met), paths) == pytest.approx(both / expected, rel=1e-5)


def test_lift_of_planted_groups_is_far_above_that_of_random_ones() -> None:
    rng = np.random.default_rng(3)
    group = np.arange(80) // 8
    taste = rng.integers(0, 10, 500)
    met = sparse.csr_matrix((rng.random((500, 80)) < np.where(group == taste[:, None], 0.5, 0.05)).astype(np.float32))
    planted = co_occurrence_lift(met, group[:, None])
    mixed = co_occurrence_lift(met, rng.permutation(group)[:, None])
    assert planted > 2.5
    assert mixed == pytest.approx(1, abs=0.35)
    assert np.isnan(co_occurrence_lift(met, np.arange(80)[:, None]))
