"""Rerankers: what orders the items a beam returned. Behind one interface, trained with the structure (paper, 2.3).

Shape legend: N user states, T targets a state, E user dimension, V items, R embedding rows, C sampled negatives.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dr_core.config import Config
from dr_core.model.partition import log_partition

ITEMS_AT_ONCE = 2**16
"""Items whose scores are held for every state that asks for its best."""


class RerankerConfig(Config):
    """How items are scored against a user and how that score is trained."""

    loss: Literal["full", "sampled"] = "full"
    """`full` is the softmax over all items, exact and O(V) a state; `sampled` scores shared negatives only."""
    num_negatives: int = Field(4096, ge=1)
    """Negatives shared by a batch; `sampled` only."""
    popularity_power: float = Field(0.75, ge=0, le=1)
    """Negatives are drawn by their counts to this power: 0 is uniform, 1 follows the log."""


class SoftmaxReranker(nn.Module):
    """The softmax over items: score(x, v) = <x, e_v> + b_v (Deep Retrieval, section 2.3).

    Items share rows of the output table through ``item_rows`` when there are more items than rows.
    """

    item_rows: Tensor
    negative_log_expected: Tensor
    negative_cumulative: Tensor

    def __init__(self, config: RerankerConfig, item_rows: Tensor, num_rows: int, counts_V: Tensor, dim: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("item_rows", item_rows, persistent=False)
        self.output_embedding = nn.Embedding(num_rows, dim)
        nn.init.normal_(self.output_embedding.weight, std=dim**-0.5)
        row_counts = torch.zeros(num_rows, dtype=torch.float64).index_add_(0, item_rows, counts_V.double())
        bias_R1 = torch.log((row_counts + 1) / (row_counts + 1).sum()).float()[:, None]
        self.output_bias = nn.Embedding(num_rows, 1, _weight=bias_R1)
        weights = (row_counts + 1).pow(config.popularity_power)
        self.register_buffer("negative_cumulative", torch.cumsum(weights / weights.sum(), 0))
        expected = (weights / weights.sum() * config.num_negatives).log()
        self.register_buffer("negative_log_expected", expected.float())

    @property
    def bias(self) -> Tensor:
        """Biases of the embedding rows, [R]."""
        bias_R: Tensor = self.output_bias.weight[:, 0]
        return bias_R

    @property
    def samples_negatives(self) -> bool:
        """Whether a training step touches only some of the rows."""
        return self.config.loss == "sampled" and self.output_embedding.num_embeddings > self.config.num_negatives

    def score(self, user_NE: Tensor, item_NC: Tensor) -> Tensor:
        """Score C items a state: float32 [N, C] for int64 item ids [N, C]."""
        rows_NC = self.item_rows[item_NC]
        return _scores(user_NE, self.output_embedding(rows_NC), self.output_bias(rows_NC))

    def score_all(self, user_NE: Tensor) -> Tensor:
        """Score every item: float32 [N, V], the brute force that retrieval is compared with."""
        vectors, bias = self.item_vectors()
        return user_NE @ vectors.T + bias

    def best(self, user_NE: Tensor, k: int) -> Tensor:
        """Return each state's best items, best first, int64 [N, min(k, V)]; a block of the items is held at a time."""
        score_NK, item_NK = user_NE.new_empty(len(user_NE), 0), self.item_rows.new_empty(len(user_NE), 0)
        for start in range(0, len(self.item_rows), ITEMS_AT_ONCE):
            rows_C = self.item_rows[start : start + ITEMS_AT_ONCE]
            items_C = torch.arange(start, start + len(rows_C), device=rows_C.device)
            block_NC = user_NE @ self.output_embedding.weight[rows_C].T + self.bias[rows_C]
            score_NC = torch.cat([score_NK, block_NC], dim=1)
            item_NC = torch.cat([item_NK, items_C.expand(len(user_NE), -1)], dim=1)
            score_NK, where_NK = score_NC.topk(min(k, score_NC.shape[1]), dim=1)
            item_NK = item_NC.gather(1, where_NK)
        return item_NK

    def item_vectors(self) -> tuple[Tensor, Tensor]:
        """Return the items' vectors [V, E] and biases [V]."""
        return self.output_embedding.weight[self.item_rows], self.bias[self.item_rows]

    def loss(self, user_NE: Tensor, target_NT: Tensor, weight_NT: Tensor) -> Tensor:
        """Return sum of w * -log p(y|x), p being the full or the sampled softmax."""
        target_rows_NT = self.item_rows[target_NT.clamp_min(0)]
        if self.samples_negatives:
            log_p_NT = self._sampled_log_prob(user_NE, target_rows_NT)
        else:
            target_NT = _scores(user_NE, self.output_embedding(target_rows_NT), self.output_bias(target_rows_NT))
            log_p_NT = target_NT - log_partition(user_NE, self.output_embedding.weight, self.bias)[:, None]
        return -(log_p_NT * weight_NT).sum()

    def _sampled_log_prob(self, user_NE: Tensor, rows_NT: Tensor) -> Tensor:
        """log p(y | x, y and the negatives), each negative's logit corrected by -log of its expected count.

        Sampled with replacement. A negative that is the target itself is masked for that target (an accidental hit):
        its mass is what the target's own, uncorrected logit already stands for. Nothing here costs O(R).
        """
        sampled_C, rows_NT = self._draw_negatives(), rows_NT.contiguous()
        # One look-up for both: the gradient of a table is as large as the table.
        looked_up = torch.cat([sampled_C, rows_NT.flatten()])
        sizes = [len(sampled_C), rows_NT.numel()]
        vector_CE, vector_SE = self.output_embedding(looked_up).split(sizes)
        bias_C1, bias_S1 = self.output_bias(looked_up).split(sizes)
        target_NT = _scores(user_NE, vector_SE.view(*rows_NT.shape, -1), bias_S1.view(*rows_NT.shape, 1))
        corrected_C = bias_C1[:, 0] - self.negative_log_expected[sampled_C]
        total_N1 = log_partition(user_NE, vector_CE, corrected_C)[:, None]
        # Remove the accidental hits of each target from its own partition: count x corrected weight of that row.
        count_NT = torch.searchsorted(sampled_C, rows_NT, right=True) - torch.searchsorted(sampled_C, rows_NT)
        hit_NT = count_NT.float().log() + target_NT - self.negative_log_expected[rows_NT]
        rest_NT = total_N1 + torch.log1p(-(hit_NT - total_N1).clamp_max(-1e-6).exp())
        log_p_NT: Tensor = target_NT - torch.logaddexp(target_NT, rest_NT)
        return log_p_NT

    def _draw_negatives(self) -> Tensor:
        """Draw rows with replacement, [C] ascending."""
        cumulative_R = self.negative_cumulative
        point_C = torch.rand(self.config.num_negatives, dtype=torch.float64, device=cumulative_R.device)
        row_C = torch.searchsorted(cumulative_R, point_C * cumulative_R[-1], right=True)
        row_C = row_C.clamp_max(len(cumulative_R) - 1)
        return torch.sort(row_C).values


def _scores(user_NE: Tensor, vector_NCE: Tensor, bias_NC1: Tensor) -> Tensor:
    """Return <x, e> + b for C items of each state, [N, C]."""
    return torch.einsum("ne,nce->nc", user_NE, vector_NCE) + bias_NC1[..., 0]
