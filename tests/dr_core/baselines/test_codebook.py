"""The codebook against hand computations, and the merge of its lists against sorting everything."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dr_core.baselines.codebook import ClusterLists, Codebook


def codebook(vectors: list[list[float]], weights: list[float], **settings: float | None) -> Codebook:
    chosen = {"momentum": 0.5, "starved": 5.0, **settings}
    return Codebook(torch.tensor(vectors), torch.tensor(weights, dtype=torch.float64), **chosen)  # type: ignore[arg-type]


def test_moving_averages_equal_a_hand_computation() -> None:
    """Two batches, a = 1/2: w = (w + sum of weight x vector) / 2, c = (c + sum of weights) / 2, e = w / c."""
    book = codebook([[0.0, 0.0], [4.0, 0.0]], [1.0, 2.0])
    book.observe(torch.tensor([[2.0, 0.0], [0.0, 4.0]]), torch.tensor([0, 0]), torch.tensor([3.0, 1.0]).double())
    torch.testing.assert_close(book.weight_K, torch.tensor([2.5, 1.0]).double())
    torch.testing.assert_close(book.vector_KE, torch.tensor([[6 / 5, 4 / 5], [4.0, 0.0]]))
    book.observe(torch.tensor([[8.0, 2.0], [1.0, 1.0]]), torch.tensor([1, 0]), torch.tensor([1.0, 0.5]).double())
    torch.testing.assert_close(book.weight_K, torch.tensor([1.5, 1.0]).double())
    first = [(2.5 * 6 / 5 + 0.5) / 3, (2.5 * 4 / 5 + 0.5) / 3]
    torch.testing.assert_close(book.vector_KE, torch.tensor([first, [6.0, 1.0]]))


def test_a_cluster_that_is_never_chosen_stays_and_its_weight_fades() -> None:
    book = codebook([[0.0], [9.0]], [1.0, 1.0], starved=None)
    for _ in range(3000):
        book.observe(torch.tensor([[1.0]]), torch.tensor([0]), torch.tensor([1.0]).double())
    assert book.vector_KE[1, 0] == 9.0
    assert book.weight_K[1] < 1e-300
    assert torch.isfinite(book.vector_KE).all()
    book.observe(torch.tensor([[7.0]]), torch.tensor([1]), torch.tensor([1.0]).double())
    assert book.vector_KE[1, 0] == pytest.approx(7.0)


@pytest.mark.parametrize("starved", [None, 1.0, 5.0])
def test_a_vector_goes_to_the_least_discounted_distance(starved: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors, weights = torch.randn(12, 3, generator=generator), torch.rand(12, generator=generator) ** 3
    items = torch.randn(200, 3, generator=generator)
    book = codebook(vectors.tolist(), weights.tolist(), starved=starved)
    discount = np.minimum((starved or np.inf) * weights.numpy() / weights.numpy().mean(), 1)
    square = ((items[:, None] - vectors) ** 2).sum(-1).numpy() * discount
    chosen = book.assign(items).numpy()
    np.testing.assert_allclose(square[np.arange(200), chosen], square.min(1), rtol=1e-4, atol=1e-5)


def test_the_discount_breaks_up_the_largest_cluster() -> None:
    """Seven of eight clusters start far from where nearly all vectors are."""
    generator = torch.Generator().manual_seed(1)
    start = 20 * torch.randn(8, 4, generator=generator)
    start[0] = 0
    largest = {}
    for starved in (None, 5.0):
        book = codebook(start.tolist(), [1.0] * 8, momentum=0.9, starved=starved)
        for _ in range(200):
            batch = torch.randn(64, 4, generator=generator)
            book.observe(batch, book.assign(batch), torch.ones(64).double())
        codes = book.assign(torch.randn(1000, 4, generator=generator))
        largest[starved] = int(torch.bincount(codes, minlength=8).max())
    assert largest[5.0] < 0.6 * largest[None]


@pytest.mark.parametrize("size", [1, 7, 40, 119, 120, 500])
def test_merging_equals_sorting_all_items(size: int) -> None:
    """Items by <user, cluster> + bias, whatever the clusters' sizes; some clusters are empty."""
    rng = np.random.default_rng(size)
    item_ids = np.sort(rng.choice(1000, 120, replace=False))
    code_I = rng.choice([0, 2, 3, 7, 8], 120, p=[0.5, 0.2, 0.1, 0.1, 0.1])
    bias_I = rng.standard_normal(120).astype(np.float32)
    score_UK = 2 * rng.standard_normal((15, 10)).astype(np.float32)
    found = ClusterLists.build(item_ids, code_I, bias_I, 10).merge(score_UK, size)
    assert np.diff(found.offsets).tolist() == [min(size, 120)] * 15
    for user, score_K in enumerate(score_UK):
        order = np.argsort(-(score_K[code_I] + bias_I))[:size]
        np.testing.assert_array_equal(found.item_ids[found.offsets[user] : found.offsets[user + 1]], item_ids[order])


def test_a_long_cluster_is_cut_where_another_one_is_worth_more() -> None:
    bias_I = np.array([0.0, -1.0, -2.0, -3.0, -0.5], dtype=np.float32)
    lists = ClusterLists.build(np.arange(5), np.array([0, 0, 0, 0, 1]), bias_I, 2)
    assert lists.merge(np.array([[1.0, 0.0]], dtype=np.float32), 3).item_ids.tolist() == [0, 1, 4]


def test_nobody_and_nothing_to_list() -> None:
    empty = ClusterLists.build(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32), 3)
    assert empty.merge(np.zeros((2, 3), np.float32), 4).offsets.tolist() == [0, 0, 0]
    lists = ClusterLists.build(np.arange(3), np.arange(3), np.zeros(3, np.float32), 3)
    assert lists.merge(np.zeros((0, 3), np.float32), 2).offsets.tolist() == [0]
