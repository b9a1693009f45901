"""Field-aware factorisation: every value of a user's field has one vector for each field of an item, and the other way round.

Juan et al., *Field-aware Factorization Machines for CTR Prediction* (RecSys 2016). Only the terms between a user's and an
item's fields are kept, with a bias an item: terms within the user order nothing. The sum over all pairs of fields is one
inner product of concatenated vectors, which is how an index serves it (Deep Retrieval, section 5: FFM with HNSW, the
baseline of its live experiment).

Shape legend: B rows, L history, P positions, N user states, T targets a state, C sampled items, V items, F user fields, G
item fields, M dimension of a pair of fields.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import embedding

from dr_core.arrays import FloatArray
from dr_core.baselines.base import Events, ItemFeatures, VectorBaseline
from dr_core.baselines.history_source import CutConfig, HistorySource, padded
from dr_core.baselines.value_table import ValueTable
from dr_core.config import Config
from dr_core.item_lists import ItemLists
from dr_core.model.objective import Batch
from dr_core.model.partition import log_partition
from dr_core.progress import Progress

USERS_AT_ONCE = 512


class FFMConfig(Config):
    """Sizes, and for how long it is trained."""

    pair_dim: int = Field(default=32, ge=1)
    """M, dimension in which one field of the user meets one field of the item."""
    cut: CutConfig = CutConfig(batch_rows=128)
    """Training rows."""
    num_negatives: int = Field(default=1024, ge=1)
    """Items drawn uniformly that a step's targets are told apart from."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Rate of Adam."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Decoupled weight decay."""
    epochs: int = Field(default=15, ge=1)
    """Passes over the histories."""


class Fields(nn.Module):
    """The tables. User fields: items met, last item met, then the values of each feature met. Item fields: id, features."""

    def __init__(self, config: FFMConfig, num_items: int, features: ItemFeatures, log_share_V: Tensor) -> None:
        super().__init__()
        names = sorted(features.values)
        self.num_item_fields, num_user_fields = 1 + len(names), 2 + len(names)
        on_user_side, on_item_side = self.num_item_fields * config.pair_dim, num_user_fields * config.pair_dim
        self.met, self.last, self.item_id = (
            nn.Embedding(num_items, width) for width in (on_user_side, on_user_side, on_item_side)
        )
        for table in (self.met, self.last, self.item_id):
            nn.init.normal_(table.weight, std=table.embedding_dim**-0.5)
        self.values_met, self.item_values = (
            nn.ModuleList(ValueTable(features.values[name], features.num_values[name], width) for name in names)
            for width in (on_user_side, on_item_side)
        )
        self.bias = nn.Embedding(num_items, 1, _weight=log_share_V[:, None])

    def states(self, history_BL: Tensor) -> Tensor:
        """Return [B, L, F * G * M]: at t, of the user who has met history[0..t]."""
        distinct, place_BL = torch.unique(history_BL.clamp_min(0), return_inverse=True)
        met_BL1 = (history_BL >= 0)[..., None]
        seen_BL1 = met_BL1.cumsum(1).clamp_min(1)
        averaged = [self.met(distinct), *(table(distinct) for table in self.values_met)]
        fields = [(part[place_BL] * met_BL1).cumsum(1) / seen_BL1 for part in averaged]
        return torch.cat([*fields, self.last(distinct)[place_BL] * met_BL1], 2)

    def items(self, item_C: Tensor) -> Tensor:
        """Return [C, F * G * M], laid out as the states are."""
        fields = torch.stack([self.item_id(item_C), *(table(item_C) for table in self.item_values)], 1)
        by_pair: Tensor = fields.view(len(item_C), self.num_item_fields, self.num_item_fields + 1, -1)
        return by_pair.transpose(1, 2).flatten(1)


class FFM(VectorBaseline):
    """score(u, v) = b_v + sum over pairs of fields <w of the user's values for the item's field, w of the item's for the user's>."""

    name = "ffm"

    def __init__(self, config: FFMConfig | None = None, seed: int = 0) -> None:
        self.config, self.seed = config or FFMConfig(), seed

    def fit(self, events: Events) -> None:
        torch.manual_seed(self.seed)
        config, num_items = self.config, events.num_items
        share_V = (events.counts + 1) / (events.counts + 1).sum()
        features = events.features or ItemFeatures.none(num_items)
        self.fields = Fields(config, num_items, features, torch.from_numpy(np.log(share_V)).float())
        optimizer = torch.optim.AdamW(
            self.fields.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        source = HistorySource(events.histories, config.cut, self.seed, events.rewards)
        progress = Progress(self.name, config.epochs * source.steps_per_epoch)
        for epoch in range(config.epochs):
            for step, batch in enumerate(source.batches(epoch)):
                loss = self._loss(batch, num_items)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                progress.at(epoch * source.steps_per_epoch + step + 1)
        self.fields.eval().requires_grad_(False)
        everything = torch.arange(num_items)
        self.item_VE = torch.cat([self.fields.items(everything), self.fields.bias(everything)], 1).numpy()

    def _loss(self, batch: Batch, num_items: int) -> Tensor:
        """Mean over the targets of -log of their share against the negatives, an accidental hit left out."""
        row_N, place_N = torch.nonzero(batch.position_BP >= 0, as_tuple=True)
        target_NT, weight_NT = batch.target_BPT[row_N, place_N], batch.weight_BPT[row_N, place_N]
        state_NE = self.fields.states(batch.history_BL)[row_N, batch.position_BP[row_N, place_N]]
        negative_C = torch.unique(torch.randint(num_items, (self.config.num_negatives,)))
        scale = float(np.log(num_items / len(negative_C)))
        distinct, place_NT = torch.unique(target_NT.clamp_min(0), return_inverse=True)
        # One look-up for both: the gradient of a table is as large as the table.
        looked_up, sizes = torch.cat([negative_C, distinct]), [len(negative_C), len(distinct)]
        vector_CE, own_SE = torch.split(self.fields.items(looked_up), sizes)
        bias_C1, own_S1 = torch.split(self.fields.bias(looked_up), sizes)
        total_N1 = log_partition(state_NE, vector_CE, bias_C1[:, 0] + scale)[:, None]
        own_NT = torch.einsum("ne,nte->nt", state_NE, embedding(place_NT, own_SE)) + embedding(place_NT, own_S1)[..., 0]
        column_NT = torch.searchsorted(negative_C, target_NT.contiguous()).clamp_max(len(negative_C) - 1)
        drawn_NT = negative_C[column_NT] == target_NT
        share_NT = torch.where(drawn_NT, (own_NT + scale - total_N1).exp().clamp_max(1 - 1e-6), 0.0)
        rest_NT = total_N1 + torch.log1p(-share_NT)
        log_prob_NT = own_NT - torch.logaddexp(own_NT, rest_NT)
        loss: Tensor = -(log_prob_NT * weight_NT).sum() / (target_NT >= 0).sum().clamp_min(1)
        return loss

    def users(self, histories: ItemLists) -> FloatArray:
        rows, lengths = padded(histories, self.config.cut.history_length)
        states = [np.empty((0, self.item_VE.shape[1]), dtype=np.float32)]
        with torch.inference_mode():
            for at in range(0, len(rows), USERS_AT_ONCE):
                state_BLE = self.fields.states(torch.from_numpy(rows[at : at + USERS_AT_ONCE]))
                last = torch.from_numpy(np.maximum(lengths[at : at + USERS_AT_ONCE] - 1, 0))
                state = state_BLE[torch.arange(len(last)), last].numpy()
                states.append(np.column_stack([state, np.ones(len(state), dtype=np.float32)]))
        return np.concatenate(states)
