"""Mult-VAE: a variational autoencoder of a user's whole set of items, with a multinomial likelihood.

Liang et al., *Variational Autoencoders for Collaborative Filtering* (WWW 2018): L2-normalised input with dropout, one hidden
layer on either side, KL term annealed up to ``beta``; the mean of q(z|x) is used to answer.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from scipy import sparse
from torch import Tensor, nn
from torch.nn.functional import embedding

from dr_core.arrays import FloatArray
from dr_core.baselines.base import Events, HistoryBaseline, HistoryConfig, weighted
from dr_core.item_lists import ItemLists
from dr_core.model.partition import log_partition
from dr_core.progress import Progress


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
    """Encoder and decoder. What users have met stays in lists: neither input nor likelihood is ever a row of all items."""

    def __init__(self, config: MultVAEConfig, num_items: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.items = nn.EmbeddingBag(num_items, config.hidden, mode="sum")
        nn.init.uniform_(self.items.weight, -(num_items**-0.5), num_items**-0.5)
        self.bias = nn.Parameter(torch.zeros(config.hidden))
        self.mean = nn.Linear(config.hidden, config.latent)
        self.log_variance = nn.Linear(config.hidden, config.latent)
        self.decoder = nn.Sequential(nn.Linear(config.latent, config.hidden), nn.Tanh())
        self.output = nn.Linear(config.hidden, num_items)

    def encode(self, users: sparse.csr_matrix) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of q(z|x), each [U, Z], of rows [U, items] of length 1."""
        item_ids, offsets = (torch.from_numpy(part.astype(np.int64)) for part in (users.indices, users.indptr[:-1]))
        weights = self.dropout(torch.from_numpy(users.data))
        hidden = torch.tanh(self.items(item_ids, offsets, per_sample_weights=weights) + self.bias)
        return self.mean(hidden), self.log_variance(hidden)

    def loss(self, users: sparse.csr_matrix, beta: float) -> Tensor:
        """Return the mean over the users of beta times the KL divergence less log p of all that a user has met."""
        mean_UZ, log_variance_UZ = self.encode(users)
        hidden_UH = self.decoder(mean_UZ + torch.randn_like(mean_UZ) * torch.exp(0.5 * log_variance_UZ))
        total_U = log_partition(hidden_UH, self.output.weight, self.output.bias)
        item = torch.from_numpy(users.indices.astype(np.int64))
        owner = torch.from_numpy(np.repeat(np.arange(users.shape[0]), np.diff(users.indptr)))
        logits = (embedding(owner, hidden_UH) * embedding(item, self.output.weight)).sum(1) + self.output.bias[item]
        divergence_U = -0.5 * (1 + log_variance_UZ - mean_UZ.pow(2) - log_variance_UZ.exp()).sum(1)
        return (beta * divergence_U.sum() - (logits - total_U[owner]).sum()) / users.shape[0]


def _normalised(users: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return the rows with length 1, float32; rows of zeros, such as of events too long ago, stay."""
    lengths = np.sqrt(np.asarray(users.multiply(users).sum(1), dtype=np.float32).ravel()).clip(1e-12)
    scaled = users.astype(np.float32, copy=True)
    scaled.data /= np.repeat(lengths, np.diff(users.indptr))
    return scaled


class MultVAE(HistoryBaseline):
    """score(u, .) = the decoder's logits at the mean of q(z | history)."""

    name = "mult_vae"
    config: MultVAEConfig

    def __init__(self, config: MultVAEConfig | None = None, seed: int = 0) -> None:
        self.config, self.seed = config or MultVAEConfig(), seed

    def fit(self, events: Events) -> None:
        torch.manual_seed(self.seed)
        config, self.num_items = self.config, events.num_items
        by_count = np.lexsort((np.arange(self.num_items), -events.counts))
        self.items = np.sort(by_count[: config.max_items])
        users = _normalised(events.matrix[:, self.items])
        self.network = _Network(config, len(self.items))
        optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate, fused=True)
        steps_an_epoch = -(-users.shape[0] // config.batch_users)
        full_at = max(1, config.epochs * steps_an_epoch // 3)
        step = 0
        progress = Progress(self.name, config.epochs * steps_an_epoch)
        self.network.train()
        for epoch in range(config.epochs):
            order = np.random.default_rng((self.seed, epoch)).permutation(users.shape[0])
            for start in range(0, len(order), config.batch_users):
                batch = users[order[start : start + config.batch_users]]
                optimizer.zero_grad()
                self.network.loss(batch, config.beta * min(1.0, step / full_at)).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                step += 1
                progress.at(step)
        self.network.eval().requires_grad_(False)

    def scores(self, histories: ItemLists) -> FloatArray:
        users = _normalised(weighted(histories, self.num_items, self.config.half_life)[:, self.items])
        scores = np.full((users.shape[0], self.num_items), -np.inf, dtype=np.float32)
        with torch.inference_mode():
            scores[:, self.items] = self.network.output(self.network.decoder(self.network.encode(users)[0])).numpy()
        return scores

    def megabytes(self) -> float:
        return float(sum(parameter.numel() for parameter in self.network.parameters())) * 4 / 1e6

    def multiply_adds(self, histories: ItemLists) -> float:
        return float(self.config.hidden * (self.config.latent + len(self.items)))
