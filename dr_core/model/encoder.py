"""User encoders: a history of item ids becomes one vector per position.

Shape legend: B rows, L history length, P positions, E user dimension, C categorical and M numeric context features.
"""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from dr_core.config import Config

PAD = -1


class EncoderConfig(Config):
    """What turns a user's history into a vector. No user id: test users are unseen (paper, section 4.1)."""

    kind: Literal["gru", "mean", "decay", "attention"] = "gru"
    """`gru` is the paper's; `mean` pools the item embeddings; `decay` pools them with weights that fall with age, which suits
    short histories and items with few events; `attention` is one causal self-attentive block."""
    dim: int = Field(64, ge=1)
    """E, dimension of the item embeddings and of the user vector; cost of reranking one candidate."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Share of embedding entries dropped in training, on the history and on the user vector."""
    num_heads: int = Field(2, ge=1)
    """Attention heads; `attention` only, must divide `dim`."""
    embedding_rows: int = Field(2_000_000, ge=2)
    """H, most rows an item table may have. With more items, the rarest share the last eighth of the rows by hashing."""
    context_cardinalities: tuple[int, ...] = ()
    """Number of values of each categorical context feature (a value outside counts as unknown)."""
    num_numeric: int = Field(0, ge=0)
    """Number of numeric context features, expected on a scale of about 1."""

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.kind == "attention" and self.dim % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} must divide dim={self.dim}")
        return self


def assign_embedding_rows(counts: npt.NDArray[np.float64], embedding_rows: int) -> npt.NDArray[np.int64]:
    """Give each item an embedding row; when items outnumber rows, the rarest share hashed ones.

    Args:
        counts: [V] number of events of each item.
        embedding_rows: H.

    Returns:
        int64 [V], values in [0, min(V, H)). Identity when V <= H.
    """
    num_items = len(counts)
    if num_items <= embedding_rows:
        return np.arange(num_items, dtype=np.int64)
    num_shared = max(1, embedding_rows // 8)
    num_own = embedding_rows - num_shared
    by_frequency = np.lexsort((np.arange(num_items), -counts))
    rows = np.empty(num_items, dtype=np.int64)
    rows[by_frequency[:num_own]] = np.arange(num_own)
    tail = by_frequency[num_own:].astype(np.uint64)
    rows[by_frequency[num_own:]] = num_own + ((tail * np.uint64(11400714819323198485)) >> np.uint64(33)) % np.uint64(
        num_shared
    )
    return rows


class UserEncoder(nn.Module):
    """Base of the encoders: embeds the history, calls :meth:`pool`, adds the context.

    ``forward(history_BL, context)`` returns ``state_BLE``: the state at index t has seen ``history[0..t]`` and
    nothing later, so one pass serves every position of a row (padding, -1, stands at the end).
    """

    def __init__(self, config: EncoderConfig, num_rows: int) -> None:
        super().__init__()
        self.config = config
        self.item_embedding = nn.Embedding(num_rows + 1, config.dim, padding_idx=0)
        nn.init.normal_(self.item_embedding.weight, std=config.dim**-0.5)
        with torch.no_grad():
            self.item_embedding.weight[0].zero_()
        self.input_dropout = nn.Dropout(config.dropout)
        self.output_dropout = nn.Dropout(config.dropout)
        self.context_tables = nn.ModuleList(nn.Embedding(size + 1, config.dim) for size in config.context_cardinalities)
        self.context_numeric = nn.Linear(config.num_numeric, config.dim, bias=False) if config.num_numeric else None

    def forward(
        self, rows_BL: Tensor, context_categorical_BC: Tensor | None = None, context_numeric_BM: Tensor | None = None
    ) -> Tensor:
        """Encode every prefix of every history.

        Args:
            rows_BL: int64 embedding rows, -1 where the history has ended.
            context_categorical_BC: int64, needed when the config names cardinalities.
            context_numeric_BM: float32, needed when the config names numeric features.

        Returns:
            ``state_BLE`` float32.
        """
        mask_BL = rows_BL != PAD
        state_BLE = self.pool(self.input_dropout(self.item_embedding(rows_BL + 1)), mask_BL)
        context_BE = self._context(context_categorical_BC, context_numeric_BM)
        if context_BE is not None:
            state_BLE = state_BLE + context_BE[:, None, :]
        dropped_BLE: Tensor = self.output_dropout(state_BLE)
        return dropped_BLE

    def pool(self, embedded_BLE: Tensor, mask_BL: Tensor) -> Tensor:
        """Turn embedded histories into causal states [B, L, E]."""
        raise TypeError(f"{type(self).__name__} does not define pool()")

    def _context(self, categorical_BC: Tensor | None, numeric_BM: Tensor | None) -> Tensor | None:
        parts = []
        if len(self.context_tables):
            if categorical_BC is None:
                raise ValueError("the encoder was built with categorical context, the batch has none")
            for column, table in enumerate(self.context_tables):
                size = self.config.context_cardinalities[column]
                values_B = categorical_BC[:, column]
                known_B = (values_B >= 0) & (values_B < size)
                parts.append(table(torch.where(known_B, values_B, size)))
        if self.context_numeric is not None:
            if numeric_BM is None:
                raise ValueError("the encoder was built with numeric context, the batch has none")
            parts.append(self.context_numeric(numeric_BM[:, : self.config.num_numeric]))
        return torch.stack(parts).sum(0) if parts else None


class GRUEncoder(UserEncoder):
    """The paper's encoder (section 4.1): one GRU over the history."""

    def __init__(self, config: EncoderConfig, num_rows: int) -> None:
        super().__init__(config, num_rows)
        self.gru = nn.GRU(config.dim, config.dim, batch_first=True)
        self.projection = nn.Linear(config.dim, config.dim)

    def pool(self, embedded_BLE: Tensor, mask_BL: Tensor) -> Tensor:
        states_BLE, _ = self.gru(embedded_BLE)
        projected_BLE: Tensor = self.projection(states_BLE)
        return projected_BLE


class MeanEncoder(UserEncoder):
    """Mean of the embeddings seen so far, through one hidden layer (as YouTube DNN pools watches)."""

    def __init__(self, config: EncoderConfig, num_rows: int) -> None:
        super().__init__(config, num_rows)
        self.mlp = nn.Sequential(nn.Linear(config.dim, config.dim), nn.ReLU(), nn.Linear(config.dim, config.dim))

    def pool(self, embedded_BLE: Tensor, mask_BL: Tensor) -> Tensor:
        kept_BLE = embedded_BLE * mask_BL[..., None]
        seen_BL = mask_BL.cumsum(1).clamp_min(1)
        mean_BLE = kept_BLE.cumsum(1) / seen_BL[..., None]
        pooled_BLE: Tensor = mean_BLE + self.mlp(mean_BLE)
        return pooled_BLE


class DecayEncoder(UserEncoder):
    """Mean of the embeddings seen so far, weighted rho_e^age, through one hidden layer.

    The normalised exponential trace memory of Mozer (*Neural net architectures for temporal sequence processing*, 1993),
    a learned decay a dimension: they start between the plain mean of a long history and little more than its last item.
    """

    SLOWEST, FASTEST = -6.0, 2.0
    """Of the first and the last dimension at the start; -log rho is the softplus of it."""

    def __init__(self, config: EncoderConfig, num_rows: int) -> None:
        super().__init__(config, num_rows)
        self.rate = nn.Parameter(torch.linspace(self.SLOWEST, self.FASTEST, config.dim))
        self.mlp = nn.Sequential(nn.Linear(config.dim, config.dim), nn.ReLU(), nn.Linear(config.dim, config.dim))

    def pool(self, embedded_BLE: Tensor, mask_BL: Tensor) -> Tensor:
        places_L = torch.arange(embedded_BLE.shape[1], device=embedded_BLE.device)
        age_LL = places_L[:, None] - places_L
        log_weight_ELL = -nn.functional.softplus(self.rate)[:, None, None] * age_LL
        weight_ELL = log_weight_ELL.masked_fill(age_LL < 0, -torch.inf).softmax(-1)
        kept_BLE = embedded_BLE * mask_BL[..., None]
        pooled_BLE = torch.einsum("ets,bse->bte", weight_ELL, kept_BLE)
        state_BLE: Tensor = pooled_BLE + self.mlp(pooled_BLE)
        return state_BLE


class AttentionEncoder(UserEncoder):
    """One causal self-attention block with learned positions."""

    MAX_LENGTH = 1024

    def __init__(self, config: EncoderConfig, num_rows: int) -> None:
        super().__init__(config, num_rows)
        self.positions = nn.Embedding(self.MAX_LENGTH, config.dim)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.merge = nn.Linear(config.dim, config.dim)
        self.norm_attention = nn.LayerNorm(config.dim)
        self.norm_mlp = nn.LayerNorm(config.dim)
        self.mlp = nn.Sequential(
            nn.Linear(config.dim, 2 * config.dim), nn.ReLU(), nn.Linear(2 * config.dim, config.dim)
        )
        self.projection = nn.Linear(config.dim, config.dim)

    def pool(self, embedded_BLE: Tensor, mask_BL: Tensor) -> Tensor:
        num_rows, length, dim = embedded_BLE.shape
        if length > self.MAX_LENGTH:
            raise ValueError(f"histories of {length} items exceed the attention encoder's {self.MAX_LENGTH}")
        x_BLE = embedded_BLE + self.positions(torch.arange(length, device=embedded_BLE.device))
        heads = self.config.num_heads
        q, k, v = (
            part.view(num_rows, length, heads, dim // heads).transpose(1, 2)
            for part in self.qkv(self.norm_attention(x_BLE)).chunk(3, dim=-1)
        )
        attended = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BLE = x_BLE + self.merge(attended.transpose(1, 2).reshape(num_rows, length, dim))
        x_BLE = x_BLE + self.mlp(self.norm_mlp(x_BLE))
        projected_BLE: Tensor = self.projection(x_BLE)
        return projected_BLE


ENCODERS: dict[str, type[UserEncoder]] = {
    "gru": GRUEncoder,
    "mean": MeanEncoder,
    "decay": DecayEncoder,
    "attention": AttentionEncoder,
}


def build_encoder(config: EncoderConfig, num_rows: int) -> UserEncoder:
    """Build the encoder named by ``config.kind`` over a table of ``num_rows`` item rows."""
    return ENCODERS[config.kind](config, num_rows)
