"""Mult-VAE: a variational autoencoder of a user's whole set of items, with a multinomial likelihood.

Liang et al., *Variational Autoencoders for Collaborative Filtering* (WWW 2018): L2-normalised input with dropout, one hidden
layer on either side, KL term annealed up to ``beta``; the mean of q(z|x) is used to answer.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from dr_core.evaluation.metrics import ItemLists
from dr_core.peers.base import Events, FloatArray, HistoryConfig, Peer, weighted


class MultVAEConfig(HistoryConfig):
    """Sizes and schedule."""

    hidden: int = Field(default=600, ge=1)
    """Units of the hidden layers."""
    latent: int = Field(default=200, ge=1)
    """Dimension of z."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """Share of a user's items hidden from the encoder."""
    beta: float = Field(default=0.2, ge=0)
    """Weight of the KL term once it is fully in."""
    epochs: int = Field(default=60, ge=1)
    """Passes over the users; the KL term is fully in after a third of them."""
    max_items: int = Field(default=20_000, ge=1)
    """Most popular items that take part, since a step costs as much as there are items. All others can neither be seen nor
    found."""
    batch_users: int = Field(default=256, ge=1)
    """Users a step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Rate of Adam."""


class _Network(nn.Module):
    def __init__(self, config: MultVAEConfig, num_items: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.encoder = nn.Sequential(nn.Linear(num_items, config.hidden), nn.Tanh())
        self.mean = nn.Linear(config.hidden, config.latent)
        self.log_variance = nn.Linear(config.hidden, config.latent)
        self.decoder = nn.Sequential(
            nn.Linear(config.latent, config.hidden), nn.Tanh(), nn.Linear(config.hidden, num_items)
        )

    def forward(self, item_UV: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [U, V] and the KL divergence of each user [U]."""
        hidden = self.encoder(self.dropout(nn.functional.normalize(item_UV)))
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        z = mean
        if self.training:
            z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        divergence = -0.5 * (1 + log_variance - mean.pow(2) - log_variance.exp()).sum(1)
        return self.decoder(z), divergence


class MultVAE(Peer):
    """score(u, .) = the decoder's logits at the mean of q(z | history)."""

    name = "mult_vae"

    def __init__(self, config: MultVAEConfig | None = None, seed: int = 0) -> None:
        self.config, self.seed = config or MultVAEConfig(), seed

    def fit(self, events: Events) -> None:
        torch.manual_seed(self.seed)
        config, self.num_items = self.config, events.num_items
        by_count = np.lexsort((np.arange(self.num_items), -events.counts))
        self.items = np.sort(by_count[: config.max_items])
        users = events.matrix[:, self.items]
        self.network = _Network(config, len(self.items))
        optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate, fused=True)
        steps_an_epoch = -(-users.shape[0] // config.batch_users)
        full_at = max(1, config.epochs * steps_an_epoch // 3)
        step = 0
        for epoch in range(config.epochs):
            order = np.random.default_rng((self.seed, epoch)).permutation(users.shape[0])
            for start in range(0, len(order), config.batch_users):
                item_UV = torch.from_numpy(users[order[start : start + config.batch_users]].toarray())
                self.network.train()
                logits, divergence = self.network(item_UV)
                likelihood = (torch.log_softmax(logits, 1) * item_UV).sum(1)
                weight = config.beta * min(1.0, step / full_at)
                loss = (weight * divergence - likelihood).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
        self.network.eval().requires_grad_(False)

    def scores(self, histories: ItemLists) -> FloatArray:
        users = weighted(histories, self.num_items, self.config.half_life)[:, self.items]
        scores = np.full((users.shape[0], self.num_items), -np.inf, dtype=np.float32)
        with torch.inference_mode():
            scores[:, self.items] = self.network(torch.from_numpy(users.toarray()))[0].numpy()
        return scores

    def megabytes(self) -> float:
        return float(sum(parameter.numel() for parameter in self.network.parameters())) * 4 / 1e6

    def multiply_adds(self, histories: ItemLists) -> float:
        return float(self.config.hidden * (self.config.latent + len(self.items)))
