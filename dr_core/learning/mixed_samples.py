"""Samples in memory with targets drawn from the softmax beside their own (:mod:`dr_core.learning.mixed_targets`)."""

from __future__ import annotations

from dataclasses import replace

import torch

from dr_core.arrays import IntArray
from dr_core.learning.mixed_targets import ItemGroups, MixedTargetsConfig, TargetSampler
from dr_core.learning.states import States
from dr_core.model.objective import Batch, DeepRetrievalModel


def mixed_samples(
    model: DeepRetrievalModel, samples: Batch, states: States, path_VJ: IntArray, config: MixedTargetsConfig, seed: int
) -> Batch:
    """Return samples in which every position has ``config.draws`` more targets, carrying ``config.share`` of its weight.

    Args:
        model: its softmax is drawn from.
        samples: of B rows and P positions.
        states: the same samples encoded, in the same order.
        path_VJ: int64 [V, J], the initial paths; their first ones group the items where there are too many to score all.
        config: how many are drawn, and from which.
        seed: of the draws.
    """
    groups = ItemGroups.from_labels(path_VJ[:, 0]) if model.num_items > config.exact_below else None
    mixed = states.mixed(TargetSampler(model.reranker, config, groups), seed)
    used_BP = samples.position_BP >= 0
    shape = (*used_BP.shape, mixed.target_NT.shape[1])
    target_BPT, weight_BPT = torch.full(shape, -1, dtype=torch.int64), torch.zeros(shape)
    target_BPT[used_BP], weight_BPT[used_BP] = mixed.target_NT, mixed.weight_NT
    return replace(samples, target_BPT=target_BPT, weight_BPT=weight_BPT)
