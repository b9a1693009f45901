"""Item profiles: items that the same users rank high are near."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from dr_core.learning.profiles import item_profiles
from dr_core.model.objective import DeepRetrievalModel
from dr_core.model.reranker import SoftmaxReranker

NUM_ITEMS, NUM_STATES = 40, 300


@pytest.fixture
def reranker(make_model: Callable[..., DeepRetrievalModel]) -> SoftmaxReranker:
    """Item 1 is item 0 again; item 2 has its direction but is liked a hundred times less."""
    softmax = make_model(num_items=NUM_ITEMS).reranker.requires_grad_(False)
    for copy in (1, 2):
        softmax.output_embedding.weight[copy] = softmax.output_embedding.weight[0]
        softmax.bias[copy] = softmax.bias[0]
    softmax.bias[2] -= float(np.log(100))
    return softmax


def states() -> torch.Tensor:
    return torch.randn(NUM_STATES, 8, generator=torch.Generator().manual_seed(17))


def test_all_directions_keep_the_angles_between_the_items_probabilities(reranker: SoftmaxReranker) -> None:
    profiles = item_profiles(reranker, states(), num_dimensions=NUM_ITEMS, popularity_weight=0.5)
    assert profiles.shape == (NUM_ITEMS, NUM_ITEMS + 1)
    assert profiles.dtype == np.float32
    root_VN = torch.softmax(reranker.score_all(states()).double(), dim=1).sqrt().T
    unit_VN = (root_VN / root_VN.norm(dim=1, keepdim=True)).numpy()
    np.testing.assert_allclose(profiles[:, :-1] @ profiles[:, :-1].T, unit_VN @ unit_VN.T, atol=2e-3)


def test_few_directions_are_the_leading_ones(reranker: SoftmaxReranker) -> None:
    """Angles are near those under the exact singular vectors (randomised, so not the same)."""
    rank = 5
    profiles = item_profiles(reranker, states(), num_dimensions=rank)[:, :-1]
    np.testing.assert_allclose(np.linalg.norm(profiles, axis=1), 1.0, rtol=1e-4)
    root_VN = torch.softmax(reranker.score_all(states()).double(), dim=1).sqrt().T.numpy()
    left, values, _ = np.linalg.svd(root_VN, full_matrices=False)
    exact = left[:, :rank] * values[:rank]
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    assert np.abs(profiles @ profiles.T - exact @ exact.T).mean() < 0.1


def test_the_last_coordinate_is_how_much_users_like_the_item(reranker: SoftmaxReranker) -> None:
    profiles = item_profiles(reranker, states(), popularity_weight=0.7)
    mean_V = reranker.score_all(states()).mean(0).numpy()
    standard = (mean_V - mean_V.mean()) / mean_V.std(ddof=1)
    np.testing.assert_allclose(profiles[:, -1], 0.7 * standard, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(profiles[0], profiles[1], atol=1e-3)
    np.testing.assert_allclose(profiles[0, :-1], profiles[2, :-1], atol=2e-2)
    assert profiles[0, -1] - profiles[2, -1] > 0.3


def test_same_seed_same_profiles(reranker: SoftmaxReranker) -> None:
    first = item_profiles(reranker, states(), num_dimensions=6, seed=1)
    torch.rand(3)
    np.testing.assert_array_equal(first, item_profiles(reranker, states(), num_dimensions=6, seed=1))
