"""Mixed targets: which items can be drawn, and how often."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from dr_core.learning.mixed_targets import (
    SAMPLE_STRIDE,
    ItemGroups,
    MixedTargetsConfig,
    TargetSampler,
    draw_seed,
    take_best,
    with_drawn,
)
from dr_core.model.objective import DeepRetrievalModel
from dr_core.model.reranker import SoftmaxReranker

ModelMaker = Callable[..., DeepRetrievalModel]
NUM_ITEMS, NUM_CLUSTERS, DIM = 600, 40, 8


@pytest.fixture
def reranker(make_model: ModelMaker) -> SoftmaxReranker:
    """Items in clusters, a tenth of them of large bias."""
    softmax = make_model(num_items=NUM_ITEMS, dim=DIM).reranker.requires_grad_(False)
    rng = np.random.default_rng(31)
    centres = rng.normal(size=(NUM_CLUSTERS, DIM))
    vectors = centres[clusters()] * 1.5 + rng.normal(size=(NUM_ITEMS, DIM)) * 0.3
    softmax.output_embedding.weight.copy_(torch.from_numpy(vectors))
    softmax.bias.copy_(torch.from_numpy(np.where(np.arange(NUM_ITEMS) % 10 == 0, 1.0, -1.0)))
    return softmax


def clusters() -> np.ndarray:
    return np.arange(NUM_ITEMS, dtype=np.int64) % NUM_CLUSTERS


def users(num_states: int = 8) -> torch.Tensor:
    return torch.randn(num_states, DIM, generator=torch.Generator().manual_seed(32))


def frequencies(drawn_NM: torch.Tensor) -> np.ndarray:
    return np.stack([np.bincount(row, minlength=NUM_ITEMS) / len(row) for row in drawn_NM.numpy()])


def expected_frequencies(reranker: SoftmaxReranker, config: MixedTargetsConfig) -> np.ndarray:
    score_NV = reranker.score_all(users()).double()
    top = score_NV.topk(config.best_items, dim=1)
    wanted = torch.zeros_like(score_NV)
    return wanted.scatter_(1, top.indices, torch.softmax(top.values / config.temperature, dim=1)).numpy()


@pytest.mark.parametrize(("best_items", "temperature"), [(20, 0.8), (5, 2.0)])
def test_exact_draws_follow_the_softmax_of_the_best_items(
    reranker: SoftmaxReranker, best_items: int, temperature: float
) -> None:
    config = MixedTargetsConfig(draws=20_000, best_items=best_items, temperature=temperature)
    found = frequencies(TargetSampler(reranker, config, None).sample(users(), seed=1))
    wanted = expected_frequencies(reranker, config)
    assert ((found > 0) <= (wanted > 0)).all(), "an item below the best was drawn"
    deviation = np.abs(found - wanted) / np.sqrt(np.maximum(wanted * (1 - wanted), 1e-9) / config.draws)
    assert deviation[wanted > 0].max() < 5, "off by more than five standard errors"


@pytest.mark.parametrize("kind", ["spread", "tied", "all equal", "one block of high scores", "minus infinity"])
@pytest.mark.parametrize(("num_columns", "wanted"), [(5000, 40), (5000, 4990), (5000, 5000), (7, 3), (1, 1)])
def test_the_best_are_those_of_a_stable_sort(kind: str, num_columns: int, wanted: int) -> None:
    rng = np.random.default_rng(35)
    scores = rng.normal(size=(6, num_columns)).astype(np.float32)
    if kind == "tied":
        scores = scores.round(1)
    if kind == "all equal":
        scores[:] = 2.5
    if kind == "one block of high scores":  # columns that the sample sees are the highest: its guess is far too high
        scores[:, ::SAMPLE_STRIDE] += 100
    if kind == "minus infinity":
        scores[:, num_columns // 50 :] = -np.inf
    items, values = np.empty((6, wanted), dtype=np.int64), np.empty((6, wanted), dtype=np.float32)
    take_best(scores, items, values)
    expected = np.sort(np.argsort(-scores, axis=1, kind="stable")[:, :wanted], axis=1)
    np.testing.assert_array_equal(items, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(scores, expected, 1))


def test_a_softmax_that_is_not_a_number_draws_nothing(reranker: SoftmaxReranker) -> None:
    reranker.bias.fill_(float("nan"))
    with pytest.raises(RuntimeError, match="invalid multinomial distribution"):
        TargetSampler(reranker, MixedTargetsConfig(best_items=20), None).sample(users(), seed=1)


def test_more_best_items_wanted_than_there_are(reranker: SoftmaxReranker) -> None:
    config = MixedTargetsConfig(draws=50, best_items=10 * NUM_ITEMS)
    drawn = TargetSampler(reranker, config, None).sample(users(), seed=1)
    assert int(drawn.min()) >= 0
    assert int(drawn.max()) < NUM_ITEMS


def test_groups_find_most_of_what_the_exact_softmax_draws(reranker: SoftmaxReranker) -> None:
    config = MixedTargetsConfig(draws=20_000, best_items=60, exact_below=100, probed_groups=8, always_scored=30)
    groups = ItemGroups.from_labels(clusters())
    found = frequencies(TargetSampler(reranker, config, groups).sample(users(), seed=2))
    wanted = expected_frequencies(reranker, config)
    assert (found * (wanted > 0)).sum(1).min() > 0.9, "share of the draws that are among the exact best"
    total_variation = np.abs(found - wanted).sum(1) / 2
    assert total_variation.mean() < 0.15

    scattered = ItemGroups.from_labels(np.random.default_rng(33).permutation(clusters()))
    blind = frequencies(TargetSampler(reranker, config, scattered).sample(users(), seed=2))
    assert np.abs(blind - wanted).sum(1).mean() / 2 > 2 * total_variation.mean()


@pytest.mark.parametrize("always_scored", [0, 25, NUM_ITEMS])
def test_probing_every_group_is_exact(reranker: SoftmaxReranker, always_scored: int) -> None:
    """No item counts twice, though the head's items stand in groups too."""
    config = MixedTargetsConfig(
        draws=20_000, best_items=50, exact_below=100, probed_groups=NUM_CLUSTERS, always_scored=always_scored
    )
    sampler = TargetSampler(reranker, config, ItemGroups.from_labels(clusters() % 7))
    found = frequencies(sampler.sample(users(), seed=3))
    wanted = expected_frequencies(reranker, config)
    deviation = np.abs(found - wanted) / np.sqrt(np.maximum(wanted * (1 - wanted), 1e-9) / config.draws)
    assert not found[wanted == 0].any()
    assert deviation[wanted > 0].max() < 5


@pytest.mark.parametrize("exact_below", [100, 1000])
def test_same_seed_same_draws(reranker: SoftmaxReranker, exact_below: int) -> None:
    config = MixedTargetsConfig(exact_below=exact_below, best_items=40, probed_groups=4)
    sampler = TargetSampler(reranker, config, ItemGroups.from_labels(clusters()))
    first = sampler.sample(users(), seed=5)
    torch.rand(10)
    assert first.shape == (8, config.draws)
    assert torch.equal(first, sampler.sample(users(), seed=5))
    assert not torch.equal(first, sampler.sample(users(), seed=6))


def test_many_items_need_groups(reranker: SoftmaxReranker) -> None:
    with pytest.raises(ValueError, match="groups"):
        TargetSampler(reranker, MixedTargetsConfig(exact_below=NUM_ITEMS - 1), None)


def test_groups_partition_the_items() -> None:
    labels = np.array([7, 3, 7, 9, 3, 7], dtype=np.int64)
    groups = ItemGroups.from_labels(labels)
    members = np.split(groups.items, groups.offsets[1:-1])
    assert [list(part) for part in members] == [[1, 4], [0, 2, 5], [3]]


def test_no_two_batches_of_a_run_draw_with_the_same_seed() -> None:
    """Counted in the 32 bits that a generator of torch keeps; blocks far apart and neighbours, batches before and after 4,096."""
    first = torch.rand(3, generator=torch.Generator().manual_seed(5))
    assert torch.equal(first, torch.rand(3, generator=torch.Generator().manual_seed(5 + 2**32))), "32 bits are kept"
    blocks = [*range(32), 4_095, 65_535]
    numbers = [*range(0, 3 * 4_096, 3), *range(4_090, 4_100), *range(65_500, 65_536)]
    for seed in (0, 7, 2**24):
        seeds = [draw_seed(seed, block, number) % 2**32 for block in blocks for number in set(numbers)]
        assert len(set(seeds)) == len(seeds)


def test_seeds_of_a_blocks_first_batches_are_the_ones_that_older_tables_were_drawn_with() -> None:
    for seed, block, number in ((0, 0, 0), (3, 15, 4_095), (11, 1_023, 77)):
        assert draw_seed(seed, block, number) == (seed * 1_000_003 + block) * 4096 + number


def test_drawn_items_share_a_states_weight_and_leave_out_states_that_weigh_nothing() -> None:
    targets, weights = torch.tensor([[4, 5], [6, -1]]), torch.tensor([[1.0, 3.0], [0.0, 0.0]])
    target_NT, weight_NT = with_drawn(targets, weights, torch.tensor([[1, 2, 3], [1, 2, 3]]), share=0.6)
    assert target_NT.tolist() == [[4, 5, 1, 2, 3], [6, -1, -1, -1, -1]]
    torch.testing.assert_close(weight_NT, torch.tensor([[1.0, 3.0, 2.0, 2.0, 2.0], [0.0] * 5]))
