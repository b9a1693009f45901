"""Streaming VQ: an encoder of the history, vectors of the items, and one codebook that follows them while they are learned.

Bin et al., *Real-time Indexing for Large-scale Recommendation by Streaming Vector Quantization Retriever* (KDD 2025), which
replaced Deep Retrieval where that was made. A softmax over the batch is learned twice, for the item's own vector (L_aux) and
for its cluster's, passed straight through to the vector (L_ind); the bias that is part of both orders the items of a cluster.
The vectors lead and the codebook follows, so nothing pulls a vector back to its cluster. What the paper leaves open is taken
from Yi et al. (``frequency.py``, ``two_tower.py``): the batch's logits are lowered by the log of the probability that a batch
holds the item, and the interval between occurrences is its inverse.

Shape legend: B rows, L history, N user states, T targets a state, C distinct targets of a batch, U users, V items, K clusters,
E dimension.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from dr_core.arrays import FloatArray, IntArray
from dr_core.baselines.base import Events, VectorBaseline
from dr_core.baselines.codebook import ClusterLists, Codebook
from dr_core.baselines.frequency import FrequencyConfig, FrequencyEstimator
from dr_core.baselines.history_source import CutConfig, HistorySource, padded, pairs_of
from dr_core.baselines.two_tower import corrected_log_softmax
from dr_core.config import Config
from dr_core.item_lists import ItemLists
from dr_core.learning.trainer import schedule
from dr_core.model.encoder import PAD, EncoderConfig, assign_embedding_rows, build_encoder
from dr_core.model.objective import Batch
from dr_core.progress import Progress
from dr_core.retrieval.candidates import Candidates

ITEMS_AT_ONCE = 4096


class StreamingVQConfig(Config):
    """The towers, the codebook, and for how long they are trained."""

    encoder: EncoderConfig = EncoderConfig()
    """The user's tower."""
    cut: CutConfig = CutConfig()
    """Training rows."""
    items_per_cluster: int = Field(default=16, ge=1)
    """V / K: more of them cost fewer products a user and leave more to the biases."""
    momentum: float = Field(default=0.99, ge=0, lt=1)
    """Share of a cluster's moving averages that a batch leaves (alpha)."""
    starved: float | None = Field(default=5.0, ge=1)
    """s: a cluster with less than 1 / s of the mean weight seems nearer than it is, in proportion. None: none does."""
    interval_power: float = Field(default=0.5, ge=0)
    """beta: an item weighs the interval between its occurrences to this power; 0 weighs all alike, and since frequent items
    occur more often they then rule their clusters, 1 makes up for that."""
    frequency: FrequencyConfig = FrequencyConfig(rate=0.05)
    """The estimator of intervals; its first guess is the mean item's, whatever `initial_gap` says."""
    learning_rate: float = Field(default=4e-3, gt=0)
    """Peak rate of Adam; warms up over 5 % of the steps, then falls as a cosine."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay."""
    epochs: int = Field(default=10, ge=1)
    """Passes over the histories."""
    min_steps: int = Field(default=1, ge=1)
    """Steps to reach by further passes."""


class VQTowers(nn.Module):
    """The encoder of histories; the items' vectors and biases, which start from their log share of the events."""

    def __init__(self, config: EncoderConfig, events: Events) -> None:
        super().__init__()
        rows_V = assign_embedding_rows(events.counts.astype(np.float64), config.embedding_rows)
        self.rows_V = torch.from_numpy(rows_V)
        num_rows = int(rows_V.max(initial=0)) + 1
        counts_R = torch.from_numpy(np.bincount(rows_V, weights=events.counts, minlength=num_rows)) + 1
        self.encoder = build_encoder(config, num_rows)
        self.vectors = nn.Embedding(num_rows, config.dim)
        nn.init.normal_(self.vectors.weight, std=config.dim**-0.5)
        self.biases = nn.Embedding(num_rows, 1, _weight=(counts_R / counts_R.sum()).log().float()[:, None])

    def states(self, history_BL: Tensor) -> Tensor:
        """Return the states after every prefix of the histories, [B, L, E]."""
        state_BLE: Tensor = self.encoder(torch.where(history_BL == PAD, PAD, self.rows_V[history_BL.clamp_min(0)]))
        return state_BLE

    def items(self, item_C: Tensor) -> tuple[Tensor, Tensor]:
        """Return vectors [C, E] and biases [C]."""
        return self.vectors(self.rows_V[item_C]), self.biases(self.rows_V[item_C])[:, 0]


class StreamingVQ(VectorBaseline):
    """score(x, v) = <state of the history, e_v> + b_v; candidates by the score of the item's cluster + b_v."""

    name = "streaming_vq"

    def __init__(self, config: StreamingVQConfig | None = None, seed: int = 0) -> None:
        self.config, self.seed = config or StreamingVQConfig(), seed

    @property
    def num_clusters(self) -> int:
        """K."""
        return len(self.codebook.vector_KE)

    def fit(self, events: Events) -> None:
        torch.manual_seed(self.seed)
        config = self.config
        source = HistorySource(events.histories, config.cut, self.seed, events.rewards)
        self.towers = VQTowers(config.encoder, events)
        epochs = max(config.epochs, -(-config.min_steps // max(source.steps_per_epoch, 1)))
        steps = max(1, epochs * source.steps_per_epoch)
        optimizer = torch.optim.AdamW(
            self.towers.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step, steps))
        self._start(source, events.num_items)
        progress = Progress(self.name, steps)
        for epoch in range(epochs):
            for step, batch in enumerate(source.batches(epoch)):
                loss = self._loss(batch)
                if loss is not None:
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                rates.step()
                progress.at(epoch * source.steps_per_epoch + step + 1)
        self.towers.eval().requires_grad_(False)
        vector_VE, bias_V = self.towers.items(torch.arange(events.num_items))
        self.item_VE = np.column_stack([vector_VE.numpy(), bias_V.numpy()])
        blocks = [vector_VE[at : at + ITEMS_AT_ONCE] for at in range(0, events.num_items, ITEMS_AT_ONCE)]
        self.code_V: IntArray = torch.cat([self.codebook.assign(block_CE) for block_CE in blocks]).numpy()

    def _start(self, source: HistorySource, num_items: int) -> None:
        """Put the clusters on items drawn at random, and guess intervals by the first batch."""
        config = self.config
        num_clusters = max(1, num_items // config.items_per_cluster)
        drawn_K = torch.randperm(num_items)[:num_clusters]
        vector_KE = self.towers.items(drawn_K)[0].detach().clone()
        weight_K = torch.ones(num_clusters, dtype=torch.float64)
        self.codebook = Codebook(vector_KE, weight_K, config.momentum, config.starved)
        batch = next(source.batches(0), None)
        num_distinct = 1 if batch is None else len(torch.unique(batch.target_BPT))
        mean_gap = max(1.0, num_items / num_distinct)
        self.frequency = FrequencyEstimator.empty(config.frequency.model_copy(update={"initial_gap": mean_gap}))

    def _loss(self, batch: Batch) -> Tensor | None:
        """Mean over the pairs of reward x (L_aux + L_ind), the codebook moved on; None when the batch holds no pair."""
        pairs = pairs_of(batch)
        if pairs is None:
            return None
        row_N, position_N, target_NT, weight_NT, there_NT = pairs
        item_C = torch.unique(target_NT[there_NT])
        own_NT = torch.searchsorted(item_C, target_NT.clamp_min(0).contiguous()).clamp_max(len(item_C) - 1)
        self.frequency.observe(item_C.numpy())
        probability_C = torch.from_numpy(self.frequency.probability(item_C.numpy()))
        state_NE = self.towers.states(batch.history_BL)[row_N, position_N]
        vector_CE, bias_C = self.towers.items(item_C)
        code_C = self.codebook.assign(vector_CE.detach())
        coded_CE = vector_CE + (self.codebook.vector_KE[code_C] - vector_CE).detach()
        losses = [
            -(corrected_log_softmax(state_NE @ of_CE.T + bias_C, own_NT, probability_C.log().float()) * weight_NT).sum()
            for of_CE in (vector_CE, coded_CE)
        ]
        self.codebook.observe(vector_CE.detach(), code_C, probability_C**-self.config.interval_power)
        return torch.stack(losses).sum() / there_NT.sum()

    def users(self, histories: ItemLists) -> FloatArray:
        rows, lengths = padded(histories, self.config.cut.history_length)
        with torch.inference_mode():
            state_ULE = self.towers.states(torch.from_numpy(rows))
            last_U = torch.from_numpy(np.maximum(lengths - 1, 0))
            state_UE = state_ULE[torch.arange(len(rows)), last_U].numpy()
        return np.column_stack([state_UE, np.ones(len(state_UE), dtype=np.float32)])

    def megabytes(self) -> float:
        return super().megabytes() + self.codebook.vector_KE.numpy().nbytes / 1e6

    def lists(self, active: IntArray) -> ClusterLists:
        """Return the clusters' lists of the items that may be returned, int64, ascending."""
        return ClusterLists.build(active, self.code_V[active], self.item_VE[active, -1], self.num_clusters)

    def candidates(self, user_UE: FloatArray, lists: ClusterLists, size: int) -> Candidates:
        """Return the ``size`` best items of each user by the score of their cluster + their bias, best first.

        Args:
            user_UE: float32, from :meth:`users`.
            lists: from :meth:`lists`.
        """
        return lists.merge(user_UE[:, :-1] @ self.codebook.vector_KE.numpy().T, size)
