"""The softmax over items: exact, sampled, and what the sampling corrects for."""

import numpy as np
import pytest
import torch

from dr_core.model.reranker import RerankerConfig, SoftmaxReranker

NUM_ITEMS, DIM = 400, 6
ZIPF = 1000.0 / np.arange(1, NUM_ITEMS + 1)


def reranker_of(counts: np.ndarray = ZIPF, rows: np.ndarray | None = None, **config: object) -> SoftmaxReranker:
    torch.manual_seed(11)
    rows = np.arange(len(counts)) if rows is None else rows
    model = SoftmaxReranker(
        RerankerConfig.model_validate(config),
        torch.from_numpy(rows),
        int(rows.max()) + 1,
        torch.from_numpy(counts),
        DIM,
    )
    return model.requires_grad_(False)


def states(num_states: int = 12, num_targets: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(12)
    user_NE = torch.randn(num_states, DIM, generator=generator)
    target_NT = torch.randint(0, NUM_ITEMS, (num_states, num_targets), generator=generator)
    return user_NE, target_NT, torch.rand(num_states, num_targets, generator=generator) + 0.5


def test_all_ways_to_score_agree() -> None:
    model, (user_NE, target_NT, _) = reranker_of(), states()
    vectors, bias = model.item_vectors()
    every = user_NE @ vectors.T + bias
    torch.testing.assert_close(model.score_all(user_NE), every)
    torch.testing.assert_close(model.score(user_NE, target_NT), every.gather(1, target_NT))


def test_untrained_biases_are_the_log_frequencies() -> None:
    model = reranker_of()
    shares = (ZIPF + 1) / (ZIPF + 1).sum()
    np.testing.assert_allclose(model.item_vectors()[1].exp().numpy(), shares, rtol=1e-4)


def test_full_loss_is_cross_entropy() -> None:
    model, (user_NE, target_NT, weight_NT) = reranker_of(), states()
    logits = model.score_all(user_NE)
    expected = sum(
        (torch.nn.functional.cross_entropy(logits, target_NT[:, t], reduction="none") * weight_NT[:, t]).sum()
        for t in range(target_NT.shape[1])
    )
    torch.testing.assert_close(model.loss(user_NE, target_NT, weight_NT), expected)


@pytest.mark.parametrize("loss", ["full", "sampled"])
def test_targets_of_padding_add_nothing(loss: str) -> None:
    model, (user_NE, target_NT, weight_NT) = reranker_of(loss=loss, num_negatives=50), states()
    padded = torch.cat([target_NT, torch.full((len(target_NT), 2), -1)], dim=1)
    torch.manual_seed(0)
    alone = model.loss(user_NE, target_NT, weight_NT)
    torch.manual_seed(0)
    beside = model.loss(user_NE, padded, torch.cat([weight_NT, torch.zeros(len(weight_NT), 2)], dim=1))
    torch.testing.assert_close(alone, beside)


@pytest.mark.parametrize("loss", ["full", "sampled"])
def test_doubling_a_weight_is_repeating_the_sample(loss: str) -> None:
    model, (user_NE, target_NT, weight_NT) = reranker_of(loss=loss, num_negatives=50), states()
    doubled = weight_NT.clone()
    doubled[3] *= 2
    torch.manual_seed(0)
    once = model.loss(user_NE, target_NT, doubled)
    torch.manual_seed(0)
    twice = model.loss(*(torch.cat([part, part[3:4]]) for part in (user_NE, target_NT, weight_NT)))
    torch.testing.assert_close(once, twice)


def test_sampled_loss_approaches_the_full_one_with_many_negatives() -> None:
    user_NE, target_NT, weight_NT = states()
    full = float(reranker_of().loss(user_NE, target_NT, weight_NT))

    def relative_error(num_negatives: int) -> float:
        model = reranker_of(loss="sampled", num_negatives=num_negatives)
        torch.manual_seed(13)
        draws = [float(model.loss(user_NE, target_NT, weight_NT)) for _ in range(200)]
        assert np.std(draws) > 0
        return abs(np.mean(draws) / full - 1)

    few, many = relative_error(10), relative_error(390)
    assert many < 0.01
    assert few > 2 * many


def test_sampled_partition_is_right_in_expectation() -> None:
    """exp(target logit - log p) is the estimated partition function; its mean over draws is the true one."""
    user_NE, target_NT, _ = states(num_targets=1)
    exact = reranker_of().score_all(user_NE).exp().sum(1)
    model = reranker_of(loss="sampled", num_negatives=100)
    torch.manual_seed(14)
    target_logit = model.score(user_NE, target_NT)
    estimates = torch.stack(
        [(target_logit - model._sampled_log_prob(user_NE, target_NT)).exp()[:, 0] for _ in range(500)]
    )
    torch.testing.assert_close(estimates.mean(0), exact, rtol=0.04, atol=0.0)


def test_the_positive_is_never_its_own_negative() -> None:
    """Negatives that are all the first target leave it alone in its partition, and oppose every other target."""
    model = reranker_of(loss="sampled", num_negatives=50)
    target, other = 7, 8
    model.negative_cumulative.copy_(torch.arange(NUM_ITEMS) >= target)
    model.negative_log_expected.fill_(float(np.log(50)))
    user_NE = states(1)[0]
    log_p = model._sampled_log_prob(user_NE, torch.tensor([[target, other]]))
    assert float(log_p[0, 0]) == pytest.approx(0.0, abs=1e-4)
    scores = model.score(user_NE, torch.tensor([[target, other]]))
    torch.testing.assert_close(log_p[0, 1], scores[0, 1] - scores[0].logsumexp(0))


def test_sampled_loss_has_finite_gradients_when_the_target_is_drawn() -> None:
    model = reranker_of(loss="sampled", num_negatives=300).requires_grad_(True)
    user_NE, target_NT, weight_NT = states()
    torch.manual_seed(15)
    model.loss(user_NE, torch.zeros_like(target_NT), weight_NT).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_with_no_more_items_than_negatives_nothing_is_sampled() -> None:
    user_NE, target_NT, weight_NT = states()
    sampled = reranker_of(loss="sampled", num_negatives=NUM_ITEMS)
    assert torch.equal(sampled.loss(user_NE, target_NT, weight_NT), reranker_of().loss(user_NE, target_NT, weight_NT))


def test_negatives_follow_the_configured_distribution() -> None:
    counts = np.random.default_rng(16).permutation(ZIPF)
    for power in (0.0, 0.75, 1.0):
        wanted = (counts + 1) ** power
        model = reranker_of(counts, loss="sampled", num_negatives=NUM_ITEMS - 1, popularity_power=power)
        torch.manual_seed(17)
        drawn = np.bincount(torch.cat([model._draw_negatives() for _ in range(300)]), minlength=NUM_ITEMS)
        expected = drawn.sum() * wanted / wanted.sum()
        assert np.abs(drawn - expected).max() < 6 * np.sqrt(expected.max())
        assert ((drawn - expected) ** 2 / expected).sum() == pytest.approx(NUM_ITEMS, rel=0.25)
        np.testing.assert_allclose(
            model.negative_log_expected.exp(), (NUM_ITEMS - 1) * wanted / wanted.sum(), rtol=1e-4
        )


def test_items_on_one_row_share_score_and_count() -> None:
    rows = np.arange(NUM_ITEMS) % 300
    model = reranker_of(rows=rows)
    user_NE = states()[0]
    scores = model.score_all(user_NE)
    assert torch.equal(scores[:, 0], scores[:, 300])
    assert model.output_embedding.num_embeddings == 300
    shares = np.bincount(rows, weights=ZIPF) + 1
    np.testing.assert_allclose(model.bias.exp().numpy(), shares / shares.sum(), rtol=1e-4)
