"""User encoders in numpy: what serves one history or a few without a deep-learning library.

The modules of :mod:`dr_core.model.encoder` learn and define what is computed here; the state after the last item is all
that serving needs of them. Shape legend: U users, L history length, E user dimension, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from dr_core.arrays import AnyFloatArray, AnyIntArray, BoolArray, FloatArray, IntArray
from dr_core.item_lists import ItemLists

HISTORIES_AT_ONCE = 512
_NORM_EPSILON = np.float32(1e-5)

Tensors = Mapping[str, FloatArray]
"""An encoder's parameters by the names that they have in its module."""


class Encoder(Protocol):
    """Anything that turns histories into user states."""

    @property
    def num_items(self) -> int:
        """V, items known."""

    def encode(self, histories: ItemLists) -> FloatArray:
        """Return the state after each whole history, float32 [U, E]; unknown items are left out, an empty history is
        encoded as padding."""


class ArrayEncoder:
    """An encoder over its parameters as arrays, which may be mapped from a file: of the item table only the rows of the
    items asked for are read.

    Args:
        kind: of :class:`dr_core.model.encoder.EncoderConfig`.
        tensors: the encoder's parameters.
        item_rows: int64 [V], row of each item in the table, which has the padding's row before them.
        max_length: L, most recent items of a history that count.
        num_heads: of an attention encoder.
    """

    def __init__(
        self, kind: str, tensors: Tensors, item_rows: AnyIntArray, *, max_length: int, num_heads: int = 1
    ) -> None:
        self.pool, self.tensors, self.item_rows = _POOLS[kind], tensors, item_rows
        self.max_length, self.num_heads = max_length, num_heads

    @property
    def num_items(self) -> int:
        """V."""
        return len(self.item_rows)

    def encode(self, histories: ItemLists) -> FloatArray:
        """Return the state after each whole history, as :func:`dr_core.model.histories.encode_histories` does but for
        the rounding of sums."""
        table = self.tensors["item_embedding.weight"]
        item_UL, length_U = histories.known(self.num_items).last(self.max_length)
        states = np.empty((histories.num_users, table.shape[1]), dtype=np.float32)
        for start in range(0, len(item_UL), HISTORIES_AT_ONCE):
            block = slice(start, start + HISTORIES_AT_ONCE)
            row_UL = np.where(item_UL[block] >= 0, self.item_rows[np.maximum(item_UL[block], 0)] + 1, 0)
            states[block] = self.pool(table[row_UL], length_U[block], self.tensors, self.num_heads)
        return states


def _gru(embedded_ULE: FloatArray, length_U: IntArray, tensors: Tensors, num_heads: int) -> FloatArray:
    dim = embedded_ULE.shape[2]
    gates_UL3E = embedded_ULE @ tensors["gru.weight_ih_l0"].T + tensors["gru.bias_ih_l0"]
    recurrent, bias = tensors["gru.weight_hh_l0"].T, tensors["gru.bias_hh_l0"]
    state_UE = np.zeros((len(embedded_ULE), dim), dtype=np.float32)
    for place in range(embedded_ULE.shape[1]):
        own_U3E, before_U3E = gates_UL3E[:, place], state_UE @ recurrent + bias
        reset_UE, update_UE = np.split(_sigmoid(own_U3E[:, : 2 * dim] + before_U3E[:, : 2 * dim]), 2, axis=1)
        new_UE = np.tanh(own_U3E[:, 2 * dim :] + reset_UE * before_U3E[:, 2 * dim :])
        is_reached_U1 = (place < np.maximum(length_U, 1))[:, None]
        state_UE = np.where(is_reached_U1, (1 - update_UE) * new_UE + update_UE * state_UE, state_UE)
    return _linear(state_UE, tensors, "projection")


def _mean(embedded_ULE: FloatArray, length_U: IntArray, tensors: Tensors, num_heads: int) -> FloatArray:
    summed_UE = (embedded_ULE * _is_held(embedded_ULE, length_U)[..., None]).sum(axis=1)
    mean_UE = summed_UE / np.maximum(length_U, 1)[:, None].astype(np.float32)
    pooled_UE: FloatArray = mean_UE + _mlp(mean_UE, tensors)
    return pooled_UE


def _decay(embedded_ULE: FloatArray, length_U: IntArray, tensors: Tensors, num_heads: int) -> FloatArray:
    age_UL = np.maximum(length_U, 1)[:, None] - 1 - np.arange(embedded_ULE.shape[1])
    log_weight_ULE = -np.logaddexp(tensors["rate"], np.float32(0)) * age_UL[..., None].astype(np.float32)
    weight_ULE = _softmax(np.where(age_UL[..., None] >= 0, log_weight_ULE, -np.inf), axis=1)
    mean_UE = (weight_ULE * embedded_ULE * _is_held(embedded_ULE, length_U)[..., None]).sum(axis=1)
    pooled_UE: FloatArray = mean_UE + _mlp(mean_UE, tensors)
    return pooled_UE


def _attention(embedded_ULE: FloatArray, length_U: IntArray, tensors: Tensors, num_heads: int) -> FloatArray:
    num_users, length, dim = embedded_ULE.shape
    last_U = np.maximum(length_U, 1) - 1
    x_ULE = embedded_ULE + tensors["positions.weight"][:length]
    q_ULE, k_ULE, v_ULE = np.split(_linear(_norm(x_ULE, tensors, "norm_attention"), tensors, "qkv"), 3, axis=-1)
    q_UHE = q_ULE[np.arange(num_users), last_U].reshape(num_users, num_heads, -1)
    k_ULHE, v_ULHE = (part.reshape(num_users, length, num_heads, -1) for part in (k_ULE, v_ULE))
    score_UHL = np.einsum("uhe,ulhe->uhl", q_UHE, k_ULHE) / np.float32((dim // num_heads) ** 0.5)
    is_seen_UL = np.arange(length) <= last_U[:, None]
    weight_UHL = _softmax(np.where(is_seen_UL[:, None], score_UHL, -np.inf), axis=-1)
    attended_UE = np.einsum("uhl,ulhe->uhe", weight_UHL, v_ULHE).reshape(num_users, dim)
    x_UE = x_ULE[np.arange(num_users), last_U] + _linear(attended_UE, tensors, "merge")
    x_UE = x_UE + _mlp(_norm(x_UE, tensors, "norm_mlp"), tensors)
    return _linear(x_UE, tensors, "projection")


_POOLS: dict[str, Callable[[FloatArray, IntArray, Tensors, int], FloatArray]] = {
    "gru": _gru,
    "mean": _mean,
    "decay": _decay,
    "attention": _attention,
}


def _is_held(embedded_ULE: FloatArray, length_U: IntArray) -> BoolArray:
    is_held_UL: BoolArray = np.arange(embedded_ULE.shape[1]) < length_U[:, None]
    return is_held_UL


def _linear(x: FloatArray, tensors: Tensors, name: str) -> FloatArray:
    mapped: FloatArray = x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]
    return mapped


def _mlp(x: FloatArray, tensors: Tensors) -> FloatArray:
    return _linear(np.maximum(_linear(x, tensors, "mlp.0"), np.float32(0)), tensors, "mlp.2")


def _norm(x: FloatArray, tensors: Tensors, name: str) -> FloatArray:
    centred = x - x.mean(axis=-1, keepdims=True)
    scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + _NORM_EPSILON)
    normed: FloatArray = centred / scale * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]
    return normed


def _sigmoid(x: FloatArray) -> FloatArray:
    half: FloatArray = np.tanh(np.float32(0.5) * x)  # in this form nothing overflows
    return np.float32(0.5) * (half + np.float32(1))


def _softmax(x: AnyFloatArray, axis: int) -> FloatArray:
    power = np.exp(x - x.max(axis=axis, keepdims=True))
    weights: FloatArray = (power / power.sum(axis=axis, keepdims=True)).astype(np.float32)
    return weights
