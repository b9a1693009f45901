"""The whole model and its objective Q = Q_str + Q_softmax (Deep Retrieval, sections 2.1 to 2.3).

Shape legend: B rows, L history length, P positions a row, T targets a position, N = B x P states, J paths an item,
D layers, E user dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dr_core.model.encoder import PAD, EncoderConfig, assign_embedding_rows, build_encoder
from dr_core.model.energy_structure import EnergyStructure
from dr_core.model.path_mapping import PathMapping
from dr_core.model.reranker import RerankerConfig, SoftmaxReranker
from dr_core.model.structure_config import StructureConfig
from dr_core.model.structures import PathModel, build_structure
from dr_core.paths.space import PathSpace


@dataclass(frozen=True)
class Batch:
    """One batch of samples; see the ``samples`` table."""

    history_BL: Tensor
    """int64 item ids, oldest first, -1 at the end."""
    position_BP: Tensor
    """int64 indices into the history; the state there has seen ``history[0..t]``. -1 is no position."""
    target_BPT: Tensor
    """int64 item ids, -1 is no target."""
    weight_BPT: Tensor
    """float32, 0 where there is no target."""
    context_categorical_BC: Tensor | None = None
    context_numeric_BM: Tensor | None = None

    def __len__(self) -> int:
        return len(self.history_BL)

    def to(self, device: torch.device) -> Batch:
        """Copy the batch to a device."""
        return self._each(lambda value: value.to(device))

    def share(self, rank: int, world: int) -> Batch:
        """Return every ``world``-th row from ``rank`` on: the shares of all ranks are the batch."""
        return self._each(lambda value: value[rank::world])

    def rows(self, chosen: Tensor) -> Batch:
        """Return some rows, int64 [n]; trailing history columns that none of them uses are dropped."""
        batch = self._each(lambda value: value[chosen])
        longest = max(1, int((batch.history_BL != PAD).sum(1).max())) if len(batch) else 1
        return replace(batch, history_BL=batch.history_BL[:, :longest])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        changed: dict[str, Any] = {name: None if value is None else change(value) for name, value in vars(self).items()}
        return Batch(**changed)


@dataclass(frozen=True)
class StateBatch:
    """User states computed once by a frozen encoder, with their targets: what controls are trained on."""

    user_NE: Tensor
    target_NT: Tensor
    weight_NT: Tensor

    def __len__(self) -> int:
        return len(self.user_NE)

    def to(self, device: torch.device) -> StateBatch:
        """Copy the batch to a device."""
        return StateBatch(*(value.to(device) for value in vars(self).values()))


def batch_from_arrays(columns: dict[str, npt.NDArray[np.generic]]) -> Batch:
    """Build a batch from the columns of the ``samples`` table (2-D arrays, targets flattened row-major).

    Trailing history columns that no row uses are dropped: they would be padding only.
    """
    position_BP = np.array(columns["positions"], dtype=np.int64)
    num_rows, num_positions = position_BP.shape
    longest = max(1, int(columns["length"].max())) if num_rows else 1
    shape = (num_rows, num_positions, -1)
    return Batch(
        torch.from_numpy(np.array(columns["history"][:, :longest], dtype=np.int64)),
        torch.from_numpy(position_BP),
        torch.from_numpy(np.array(columns["targets"], dtype=np.int64).reshape(shape)),
        torch.from_numpy(np.array(columns["weights"], dtype=np.float32).reshape(shape)),
        torch.from_numpy(np.array(columns["context_categorical"], dtype=np.int64)),
        torch.from_numpy(np.array(columns["context_numeric"], dtype=np.float32)),
    )


class DeepRetrievalModel(nn.Module):
    """Encoder, structure model and softmax reranker over one set of items.

    Args:
        encoder, structure, reranker: configurations.
        space: K and D.
        counts_V: float64 [V] events an item (weights of negatives and start of the biases; rows when V > H).
        item_rows_V: int64 [V] embedding rows, by default those of :func:`assign_embedding_rows`.
    """

    item_rows: Tensor

    def __init__(
        self,
        encoder: EncoderConfig,
        structure: StructureConfig,
        reranker: RerankerConfig,
        space: PathSpace,
        counts_V: npt.NDArray[np.float64],
        item_rows_V: npt.NDArray[np.int64] | None = None,
    ) -> None:
        super().__init__()
        if item_rows_V is None:
            item_rows_V = assign_embedding_rows(counts_V, encoder.embedding_rows)
        rows = torch.from_numpy(item_rows_V)
        num_rows = min(len(counts_V), encoder.embedding_rows)
        self.register_buffer("item_rows", rows)
        self.encoder = build_encoder(encoder, num_rows)
        self.reranker = SoftmaxReranker(reranker, rows, num_rows, torch.from_numpy(counts_V), encoder.dim)
        self.structure: PathModel = build_structure(structure, space, encoder.dim)
        self.placement = PathMapping(np.empty((0, 0), np.int64))

    @property
    def num_items(self) -> int:
        """V."""
        return len(self.item_rows)

    @property
    def space(self) -> PathSpace:
        """K and D."""
        return self.structure.space

    def set_item_paths(self, path_VJ: npt.NDArray[np.int64]) -> None:
        """Fix pi for the next E-step: int64 path ids [V, J], -1 = none."""
        if path_VJ.shape[0] != self.num_items:
            raise ValueError(f"item_paths has {path_VJ.shape[0]} items, the model {self.num_items}")
        self.placement = PathMapping(path_VJ).to(self.item_rows.device)

    @property
    def starts_by_formula(self) -> bool:
        """Whether the structure can start from softmax, placement and user states."""
        return isinstance(self.structure, EnergyStructure)

    def start_structure(self, user_NE: Tensor) -> None:
        """Start a structure of energies from the softmax, the placement and some user states, float32 [N, E].

        Also one that was fitted to another placement: what it learned of paths whose items have moved takes more passes to
        forget than to learn anew (docs/decisions.md). A product of layers stays as it is.
        """
        if isinstance(self.structure, EnergyStructure):
            self.structure.start(user_NE.mean(0), *self.reranker.item_vectors(), self.placement.path_VJ)

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the user states of a batch's real positions [N, E], with their targets and weights [N, T]."""
        rows_BL = torch.where(batch.history_BL == PAD, PAD, self.item_rows[batch.history_BL.clamp_min(0)])
        state_BLE = self.encoder(rows_BL, batch.context_categorical_BC, batch.context_numeric_BM)
        used_BP = batch.position_BP >= 0
        where_BP1 = batch.position_BP.clamp_min(0)[..., None].expand(-1, -1, state_BLE.shape[-1])
        state_BPE = state_BLE.gather(1, where_BP1)
        return state_BPE[used_BP], batch.target_BPT[used_BP], batch.weight_BPT[used_BP]

    def encode_last(self, history_BL: Tensor, length_B: Tensor, context: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return the user state after each whole history, [B, E]."""
        rows_BL = torch.where(history_BL == PAD, PAD, self.item_rows[history_BL.clamp_min(0)])
        state_BLE = self.encoder(rows_BL, *(context or (None, None)))
        where_B1E = (length_B.clamp_min(1) - 1)[:, None, None].expand(-1, 1, state_BLE.shape[-1])
        last_BE: Tensor = state_BLE.gather(1, where_B1E)[:, 0]
        return last_BE

    @torch.no_grad()
    def recall(self, batch: Batch, k: int, *, filtered: bool) -> Tensor:
        """Return the share of each state's targets among the softmax's best k of all items, [N]; states without any left out.

        Args:
            batch: states and targets.
            k: items taken.
            filtered: whether items that a state has seen are passed over.
        """
        user_NE, target_NT, _ = self.encode(batch)
        best_NK = self.reranker.best(user_NE, k + (batch.history_BL.shape[1] if filtered else 0))
        if filtered:
            row_N, slot_N = (batch.position_BP >= 0).nonzero(as_tuple=True)
            places_L = torch.arange(batch.history_BL.shape[1], device=row_N.device)
            is_seen_NL = places_L <= batch.position_BP[row_N, slot_N][:, None]
            history_NL = batch.history_BL[row_N].masked_fill(~is_seen_NL, PAD)
            fresh_NK = ~(best_NK[..., None] == history_NL[:, None]).any(-1)
            best_NK = best_NK.masked_fill(~fresh_NK | (fresh_NK.cumsum(1) > k), -1)
        real_NT = target_NT >= 0
        hit_NT = (target_NT[..., None] == best_NK[:, None]).any(-1) & real_NT
        real_N = real_NT.sum(1)
        return (hit_NT.sum(1) / real_N)[real_N > 0]

    def forward(
        self, batch: Batch | StateBatch, use_structure: bool, use_softmax: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the summed losses -Q_str and -Q_softmax of a batch and the sum of its weights."""
        if isinstance(batch, StateBatch):
            user_NE, target_NT, weight_NT = batch.user_NE, batch.target_NT, batch.weight_NT
        else:
            user_NE, target_NT, weight_NT = self.encode(batch)
        zero = user_NE.sum() * 0.0
        loss_structure = zero
        if use_structure:
            loss_structure = self.structure.loss(user_NE, target_NT, weight_NT, self.placement)
        loss_softmax = self.reranker.loss(user_NE, target_NT, weight_NT) if use_softmax else zero
        return loss_structure, loss_softmax, weight_NT.sum()
