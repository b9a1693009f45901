"""Mixed targets: items drawn from the softmax itself, beside the true events.

A share of the training targets is sampled from softmax(score / temperature) restricted to a state's best items. It
denoises the tail: an item with three events learns from every state that would rank it high (docs/decisions.md).

With many items the best ones are not found by scoring all of them: the softmax's items are grouped (the leaves of the
initial paths), groups are ranked by the score of their mean vector, and only the items of the best groups, with a
head of items that suit everybody, are scored. The cost a state then grows with the number of groups, not with V.

Shape legend: N states, V items, E user dimension, G groups, C candidates a state, M draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from pydantic import Field
from torch import Tensor

from dr_core.config import Config
from dr_core.model.reranker import SoftmaxReranker

STATES_AT_ONCE = 64
"""States whose scores of all items are held: 25 MB with 100,000 items."""
BATCHES_PER_TURN = 4096
"""Batches of a block that have consecutive seeds."""
MOST_BLOCKS = 65_536
"""Blocks whose batches all have seeds of their own."""
SAMPLE_STRIDE = 16
"""A state's threshold is guessed from one in so many of its scores."""


class MixedTargetsConfig(Config):
    """How many training targets come from the softmax itself."""

    share: float = Field(0.5, ge=0, lt=1)
    """Share of the total target weight that sampled items carry; 0 trains on true events alone. More, with more draws,
    where the softmax knows items better than their few events do (docs/decisions.md)."""
    draws: int = Field(8, ge=1)
    """Items drawn a user state, with replacement."""
    best_items: int = Field(300, ge=1)
    """Only a state's best items can be drawn. What lies beyond them the structure learns from true events alone: take more
    where the softmax is flat and lists are long (docs/decisions.md)."""
    temperature: float = Field(0.8, gt=0)
    """Divides the scores before the softmax; below 1 favours a state's very best items."""
    exact_below: int = Field(100_000, ge=1)
    """With at most this many items every item is scored; above, only those of the best groups, whose vectors have to be
    gathered: with 54,000 items that takes 2.7 times as long as scoring all."""
    probed_groups: int = Field(96, ge=1)
    """Groups of items scored a state, above `exact_below`."""
    always_scored: int = Field(2048, ge=0)
    """Items with the largest bias, scored for every state above `exact_below`."""


@dataclass(frozen=True)
class ItemGroups:
    """Disjoint groups of items as CSR: ``items[offsets[g]:offsets[g+1]]``."""

    offsets: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]

    @staticmethod
    def from_labels(labels: npt.NDArray[np.int64]) -> ItemGroups:
        """Group items by an int64 [V] label (for example the first path of each)."""
        order = np.argsort(labels, kind="stable")
        _, starts = np.unique(labels[order], return_index=True)
        return ItemGroups(np.append(starts, len(labels)).astype(np.int64), order.astype(np.int64))


class TargetSampler:
    """Draws items from the softmax of a state's best items.

    Args:
        reranker: the frozen softmax.
        config: how many, how hot, how far to look.
        groups: needed when there are more than ``config.exact_below`` items.

    Raises:
        ValueError: many items and no groups.
    """

    def __init__(self, reranker: SoftmaxReranker, config: MixedTargetsConfig, groups: ItemGroups | None) -> None:
        vectors, bias = reranker.item_vectors()
        self.config = config
        self.vector_VE = torch.cat([vectors, bias[:, None]], dim=1).detach()
        self.exact = len(vectors) <= config.exact_below
        if self.exact:
            return
        if groups is None:
            raise ValueError(f"{len(vectors)} items are more than exact_below={config.exact_below}: groups are needed")
        sizes = np.diff(groups.offsets)
        self.member_GS = torch.full((len(sizes), int(sizes.max())), -1, dtype=torch.int64)
        slots = np.arange(len(groups.items)) - np.repeat(groups.offsets[:-1], sizes)
        self.member_GS[np.repeat(np.arange(len(sizes)), sizes), slots] = torch.from_numpy(groups.items)
        # A group is ranked by the mean score of its items: the score of their mean vector and mean bias.
        group_V = torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes))
        item_V = torch.from_numpy(groups.items)
        size_G = torch.from_numpy(sizes)
        mean_GE = torch.zeros(len(sizes), self.vector_VE.shape[1]).index_add_(0, group_V, self.vector_VE[item_V])
        self.centre_GE = mean_GE / size_G[:, None]
        self.head_H = bias.detach().argsort(descending=True, stable=True)[: config.always_scored]

    @torch.inference_mode()
    def sample(self, user_NE: Tensor, seed: int) -> Tensor:
        """Draw ``draws`` items a state, int64 [N, M]; the same for the same states and seed."""
        query_NE = torch.cat([user_NE, torch.ones(len(user_NE), 1)], dim=1)
        score_NC, item_NC = self._best(query_NE)
        generator = torch.Generator().manual_seed(seed)
        weight_NC = torch.softmax(score_NC / self.config.temperature, dim=1)
        drawn_NM = torch.multinomial(weight_NC, self.config.draws, replacement=True, generator=generator)
        return item_NC.gather(1, drawn_NM)

    def _best(self, query_NE: Tensor) -> tuple[Tensor, Tensor]:
        if self.exact:
            return self._best_of_all(query_NE)
        num_probes = min(self.config.probed_groups, len(self.centre_GE))
        group_NG = (query_NE @ self.centre_GE.T).topk(num_probes, dim=1).indices
        member_NC = self.member_GS[group_NG].flatten(1)
        vectors_NCE = self.vector_VE[member_NC.clamp_min(0)]
        score_NC = torch.einsum("ne,nce->nc", query_NE, vectors_NCE)
        in_head = torch.isin(member_NC, self.head_H)
        score_NC = score_NC.masked_fill((member_NC < 0) | in_head, -torch.inf)
        score_NC = torch.cat([score_NC, query_NE @ self.vector_VE[self.head_H].T], dim=1)
        item_NC = torch.cat([member_NC.clamp_min(0), self.head_H.expand(len(query_NE), -1)], dim=1)
        top = score_NC.topk(min(self.config.best_items, score_NC.shape[1]), dim=1)
        return top.values, item_NC.gather(1, top.indices)

    def _best_of_all(self, query_NE: Tensor) -> tuple[Tensor, Tensor]:
        num_states, num_items = len(query_NE), len(self.vector_VE)
        item_NC = np.zeros((num_states, min(self.config.best_items, num_items)), dtype=np.int64)
        value_NC = np.full(item_NC.shape, np.nan, dtype=np.float32)
        score = torch.empty(min(STATES_AT_ONCE, num_states), num_items)
        for start in range(0, num_states, STATES_AT_ONCE):
            some_NE = query_NE[start : start + STATES_AT_ONCE]
            score_NV = torch.mm(some_NE, self.vector_VE.T, out=score[: len(some_NE)])
            rows = slice(start, start + len(some_NE))
            take_best(score_NV.numpy(), item_NC[rows], value_NC[rows])
        return torch.from_numpy(value_NC), torch.from_numpy(item_NC)


def draw_seed(seed: int, block: int, number: int) -> int:
    """Return the seed with which a batch draws.

    A generator of torch keeps 32 bits of its seed. Within them no two batches of a run have the same seed, up to 65,536
    blocks and as many batches a block (16 million rows of 256 a batch).

    Args:
        seed: of the run.
        block: of the samples.
        number: of the batch in its block, from 0.
    """
    turn, place = divmod(number, BATCHES_PER_TURN)
    return (seed * 1_000_003 + block + turn * MOST_BLOCKS) * BATCHES_PER_TURN + place


def with_drawn(target_NT: Tensor, weight_NT: Tensor, drawn_NM: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Put drawn items beside a state's targets.

    Args:
        target_NT: item ids, int64; -1 pads.
        weight_NT: their weights, float32; 0 for pads.
        drawn_NM: item ids that were drawn, int64.
        share: of a state's new total weight, carried by the drawn items in equal parts.

    Returns:
        Targets [N, T + M] and weights [N, T + M]; a state whose targets weigh nothing gets -1 and 0.
    """
    num_draws = drawn_NM.shape[1]
    weight_N1 = weight_NT.sum(1, keepdim=True) * (share / (1 - share) / num_draws)
    return (
        torch.cat([target_NT, drawn_NM.masked_fill(weight_N1 == 0, -1)], 1),
        torch.cat([weight_NT, weight_N1.expand(-1, num_draws)], 1),
    )


@njit(cache=True)
def columns_from(scores, threshold, column_V):  # type: ignore[no-untyped-def]
    """Write the columns that score no less than a threshold to the front of ``column_V``; return their number."""
    count = 0
    for column in range(len(scores)):
        column_V[count] = column
        count += scores[column] >= threshold
    return count


@njit(cache=True)
def take_best(score_NV, item_NC, value_NC):  # type: ignore[no-untyped-def]
    """Fill in the C <= V highest scores of each row and their columns, by column; of equal scores the first columns'. A row with
    less than C numbers, others being NaN, is left as it is.

    A threshold guessed from a sample leaves a little more than C columns to select from: the row is passed over once,
    where a general top-k sorts what it finds as well and takes three to five times as long.
    """
    num_columns, wanted = score_NV.shape[1], item_NC.shape[1]
    column_V = np.empty(num_columns, dtype=np.int64)
    for row in range(len(score_NV)):
        scores = score_NV[row]
        sample = scores[::SAMPLE_STRIDE].copy()
        share = wanted / num_columns * len(sample)
        rank = int(share + 4 * np.sqrt(share)) + 1
        threshold = np.float32(-np.inf)
        if rank < len(sample):
            threshold = np.partition(sample, len(sample) - rank)[len(sample) - rank]
        count = columns_from(scores, threshold, column_V)
        if count < wanted:
            count = columns_from(scores, np.float32(-np.inf), column_V)
        if count < wanted:
            continue
        passed = scores[column_V[:count]]
        lowest = np.partition(passed, count - wanted)[count - wanted]
        ties = wanted - (passed > lowest).sum()
        place = 0
        for candidate in range(count):
            value = passed[candidate]
            is_tie = value == lowest
            if value > lowest or (is_tie and ties > 0):
                item_NC[row, place], value_NC[row, place] = column_V[candidate], value
                ties -= is_tie
                place += 1
