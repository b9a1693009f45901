"""Beam search over the structure, in log space, with prefix probabilities (Deep Retrieval, Algorithm 1).

Shape legend: N user states, B beam, K nodes, H hidden.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dr_core.model.path_structure import PathStructure, conditioned


@dataclass(frozen=True)
class Beam:
    """The best paths of each state, in descending probability."""

    path_NB: Tensor
    """int64 path ids."""
    log_prob_NB: Tensor
    """float32 log p(c|x)."""


@torch.inference_mode()
def beam_search(model: PathStructure, user_NE: Tensor, beam: int) -> Beam:
    """Return the ``beam`` most probable paths of each user state.

    At layer d every successor of the kept prefixes is ranked by the probability of the whole prefix. With
    ``beam >= K**D`` nothing is ever pruned and the result is exhaustive. Memory is N x B x K, never K**D.

    Args:
        model: the structure model.
        user_NE: float32 user states.
        beam: B; fewer paths come back when K**D < B.

    Returns:
        :class:`Beam` with min(B, K**D) paths a state; equal probabilities stand in order of the path id.

    Raises:
        ValueError: ``beam`` < 1.
    """
    if beam < 1:
        raise ValueError(f"beam must be at least 1, was {beam}")
    num_nodes = model.space.num_nodes
    user_parts = model.user_parts(user_NE)
    tables = model.prefix_tables()
    score_NB = model.layer_log_prob(0, user_parts[0])
    path_NB = torch.arange(num_nodes, device=user_NE.device).expand(len(user_NE), -1)
    score_NB, path_NB = _keep(score_NB, path_NB, beam)
    for layer in range(1, model.space.num_layers):
        if layer == len(tables):
            user_RE = user_NE.repeat_interleave(path_NB.shape[1], dim=0)
            log_prob_NBK = model.last_log_prob(user_RE, path_NB.flatten()).view(*path_NB.shape, num_nodes)
        else:
            prefix_NB, rows = path_NB, []
            for earlier in reversed(range(layer)):
                rows.append(tables[layer][earlier][prefix_NB % num_nodes])
                prefix_NB = prefix_NB // num_nodes
            log_prob_NBK = model.layer_log_prob(layer, conditioned(user_parts[layer][:, None, :], rows))
        score_NBK = score_NB[..., None] + log_prob_NBK
        path_NBK = path_NB[..., None] * num_nodes + torch.arange(num_nodes, device=user_NE.device)
        score_NB, path_NB = _keep(score_NBK.flatten(1), path_NBK.flatten(1), beam)
    return Beam(path_NB, score_NB)


def _keep(score_NC: Tensor, path_NC: Tensor, beam: int) -> tuple[Tensor, Tensor]:
    top = score_NC.topk(min(beam, score_NC.shape[1]), dim=1)
    path_NB = path_NC.gather(1, top.indices)
    order_NB = path_NB.argsort(dim=1)
    by_path = top.values.gather(1, order_NB).sort(dim=1, descending=True, stable=True)
    return by_path.values, path_NB.gather(1, order_NB).gather(1, by_path.indices)
