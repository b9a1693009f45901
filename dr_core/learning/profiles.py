"""Item vectors for the initial paths: not where an item points, but which users it would be shown to.

An item's profile is the square root of its softmax probability under a sample of user states: two items are near when
the same users rank both of them high. Clusters of profiles hold items that are retrieved together, which is what a
path is for; clusters of the bare output vectors hold items of the same direction, popular and unpopular alike. One
further coordinate, how much users like the item on average, keeps items of equal popularity together.

Shape legend: N sampled states, V items, E user dimension, R dimensions kept.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dr_core.model.reranker import SoftmaxReranker

STATES_PER_BLOCK = 256


@torch.inference_mode()
def item_profiles(
    reranker: SoftmaxReranker,
    user_NE: Tensor,
    *,
    num_dimensions: int = 64,
    popularity_weight: float = 0.7,
    seed: int = 0,
) -> npt.NDArray[np.float32]:
    """Return float32 [V, R + 1]: unit rows of the profiles' leading singular directions, and the popularity coordinate.

    The V x N matrix of square roots is never held: a randomised range finder reads it block by block three times
    (Halko, Martinsson, Tropp 2011, algorithm 4.1 with one power step).

    Args:
        reranker: the frozen softmax.
        user_NE: a sample of user states.
        num_dimensions: R, singular directions kept (at most N).
        popularity_weight: weight of the last coordinate (a standard score) beside the unit-length profile.
        seed: of the range finder.
    """
    vector_VE, bias_V = reranker.item_vectors()
    rank = min(num_dimensions, len(user_NE), len(bias_V))
    generator = torch.Generator().manual_seed(seed)
    sketch_VR = torch.zeros(len(bias_V), rank)
    for start in range(0, len(user_NE), STATES_PER_BLOCK):
        root_NV = _roots(user_NE[start : start + STATES_PER_BLOCK], vector_VE, bias_V)
        sketch_VR += root_NV.T @ torch.randn(len(root_NV), rank, generator=generator)
    basis_VR = torch.linalg.qr(sketch_VR).Q
    gram_RR = torch.zeros(rank, rank)
    power_VR = torch.zeros_like(basis_VR)
    for start in range(0, len(user_NE), STATES_PER_BLOCK):
        root_NV = _roots(user_NE[start : start + STATES_PER_BLOCK], vector_VE, bias_V)
        power_VR += root_NV.T @ (root_NV @ basis_VR)
    basis_VR = torch.linalg.qr(power_VR).Q
    for start in range(0, len(user_NE), STATES_PER_BLOCK):
        seen_NR = _roots(user_NE[start : start + STATES_PER_BLOCK], vector_VE, bias_V) @ basis_VR
        gram_RR += seen_NR.T @ seen_NR
    values_R, rotation_RR = torch.linalg.eigh(gram_RR)
    profile_VR = (basis_VR @ rotation_RR) * values_R.clamp_min(0).sqrt()
    profile_VR = profile_VR / profile_VR.norm(dim=1, keepdim=True).clamp_min(1e-12)
    mean_V = vector_VE @ user_NE.mean(0) + bias_V
    standard_V = (mean_V - mean_V.mean()) / mean_V.std().clamp_min(1e-12)
    return torch.cat([profile_VR, popularity_weight * standard_V[:, None]], dim=1).numpy()


def _roots(user_NE: Tensor, vector_VE: Tensor, bias_V: Tensor) -> Tensor:
    return torch.softmax(user_NE @ vector_VE.T + bias_V, dim=1).sqrt()
