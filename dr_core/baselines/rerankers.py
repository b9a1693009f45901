"""Other rerankers of Deep Retrieval's candidates than its softmax: what its live system used, and a little more.

Deep Retrieval, section 2.3: "we use logistic regression in our live system". Both learn, from candidates that the beam found
for users whose next events are known, which of them they chose.

Shape legend: N candidates of all users together, U users, V items, E user dimension, F features.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn

from dr_core.arrays import FloatArray, IntArray
from dr_core.config import Config
from dr_core.item_lists import ItemLists
from dr_core.retrieval.candidates import Candidates


class CandidateRerankerConfig(Config):
    """How a reranker is trained."""

    hidden: int = Field(default=64, ge=1)
    """Units of the hidden layer; `mlp` only."""
    epochs: int = Field(default=5, ge=1)
    """Passes over the candidates."""
    batch: int = Field(default=4096, ge=1)
    """Candidates a step."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Rate of Adam."""


class CandidateReranker:
    """p(met | user, candidate) from crosses of the user's and the item's vector, and from what retrieval knows already.

    Features: x * e_v elementwise, b_v, <x, e_v> + b_v, log p(path|x) of the path that led to the item, log of the item's
    events; the ``mlp`` sees x and e_v as well.

    Args:
        vector_VE, bias_V: of the softmax.
        counts_V: training events an item.
    """

    def __init__(
        self,
        kind: Literal["logistic", "mlp"],
        vector_VE: FloatArray,
        bias_V: FloatArray,
        counts_V: npt.NDArray[np.float64],
        config: CandidateRerankerConfig | None = None,
        seed: int = 0,
    ) -> None:
        self.kind, self.config, self.seed = kind, config or CandidateRerankerConfig(), seed
        self.vector_VE, self.bias_V = torch.from_numpy(vector_VE), torch.from_numpy(bias_V)
        self.log_count_V = torch.from_numpy(np.log1p(counts_V)).float()
        torch.manual_seed(seed)
        dim = vector_VE.shape[1]
        width = dim + 4 if kind == "logistic" else 3 * dim + 4
        layers: list[nn.Module] = [nn.BatchNorm1d(width)]
        if kind == "mlp":
            layers += [nn.Linear(width, self.config.hidden), nn.ReLU(), nn.Linear(self.config.hidden, 1)]
        else:
            layers += [nn.Linear(width, 1)]
        self.network = nn.Sequential(*layers)

    def features(self, user_NE: Tensor, item_N: Tensor, log_prob_N: Tensor) -> Tensor:
        """Return float32 [N, F]."""
        vector_NE, bias_N1 = self.vector_VE[item_N], self.bias_V[item_N][:, None]
        cross_NE = user_NE * vector_NE
        score_N1 = cross_NE.sum(1, keepdim=True) + bias_N1
        parts = [cross_NE, bias_N1, score_N1, log_prob_N[:, None], self.log_count_V[item_N][:, None]]
        return torch.cat(parts if self.kind == "logistic" else [*parts, user_NE, vector_NE], 1)

    def fit(
        self, user_UE: FloatArray, found: Candidates, log_prob_UB: FloatArray, is_chosen_N: npt.NDArray[np.bool_]
    ) -> None:
        """Learn which candidates are met.

        Args:
            found: the users' candidates.
            log_prob_UB: of the beam that found them.
            is_chosen_N: bool [N], whether each candidate is among the user's later events.
        """
        row_N, log_prob_N = _of_candidates(found, log_prob_UB)
        users, items, labels = (
            torch.from_numpy(user_UE),
            torch.from_numpy(found.item_ids),
            torch.from_numpy(is_chosen_N).float(),
        )
        optimizer = torch.optim.Adam(self.network.parameters(), lr=self.config.learning_rate, fused=True)
        self.network.train()
        for epoch in range(self.config.epochs):
            order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(self.seed * 1009 + epoch))
            for chosen in torch.split(order, self.config.batch):
                if len(chosen) < 2:
                    continue
                logit = self.network(self.features(users[row_N[chosen]], items[chosen], log_prob_N[chosen]))[:, 0]
                loss = nn.functional.binary_cross_entropy_with_logits(logit, labels[chosen])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        self.network.eval().requires_grad_(False)

    @torch.inference_mode()
    def rank(
        self, user_UE: FloatArray, found: Candidates, log_prob_UB: FloatArray, k: int, excluded: ItemLists | None
    ) -> IntArray:
        """Return the k candidates most likely met, int64 [U, k], -1 where there are fewer; ties as the beam found them."""
        row_N, log_prob_N = _of_candidates(found, log_prob_UB)
        users, items = torch.from_numpy(user_UE), torch.from_numpy(found.item_ids)
        logits = [np.empty(0, dtype=np.float32)] + [
            self.network(self.features(users[row_N[chosen]], items[chosen], log_prob_N[chosen]))[:, 0].numpy()
            for chosen in torch.split(torch.arange(len(items)), 65_536)
        ]
        logit_N = np.concatenate(logits)
        answer = np.full((len(user_UE), k), -1, dtype=np.int64)
        for user, (start, end) in enumerate(zip(found.offsets[:-1], found.offsets[1:], strict=True)):
            ranked = found.item_ids[start:end][np.argsort(-logit_N[start:end], kind="stable")]
            if excluded is not None:
                history = excluded.item_ids[excluded.offsets[user] : excluded.offsets[user + 1]]
                ranked = ranked[~np.isin(ranked, history)]
            answer[user, : min(k, len(ranked))] = ranked[:k]
        return answer

    def multiply_adds(self) -> float:
        """Return those of scoring one candidate."""
        return float(self.vector_VE.shape[1]) + sum(
            layer.weight.numel() for layer in self.network if isinstance(layer, nn.Linear)
        )


def _of_candidates(found: Candidates, log_prob_UB: FloatArray) -> tuple[Tensor, Tensor]:
    """Return each candidate's user int64 [N] and the log probability of the path that led to it, float32 [N]."""
    row_N = np.repeat(np.arange(len(found.offsets) - 1), np.diff(found.offsets))
    return torch.from_numpy(row_N), torch.from_numpy(log_prob_UB[row_N, found.beam_slots])
