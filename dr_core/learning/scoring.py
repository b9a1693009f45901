"""s[v, c] of user states: beams and current paths, summed by (item, path)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dr_core.learning.states import States
from dr_core.model.objective import DeepRetrievalModel, StateBatch
from dr_core.paths.scores import (
    BlockScores,
    PathCandidates,
    ScoreRows,
    accumulate_block,
    accumulate_weights,
    from_fixed,
    to_candidates,
    top_candidates,
)
from dr_core.retrieval.compiled import CompiledPaths
from dr_core.retrieval.from_model import compiled_structure

TARGETS_PER_PASS = 4_000_000


SCORE_COLUMNS = ("item_ids", "path_ids", "scores", "is_current")


Terms = tuple[npt.NDArray[Any], ...]
"""The arguments of :func:`dr_core.paths.scores.accumulate_block`, of one batch of states."""


@torch.inference_mode()
def score_states(
    model: DeepRetrievalModel, states: States, path_VJ: npt.NDArray[np.int64], num_candidates: int
) -> PathCandidates:
    """Return s[v, c] and N_v of all states: the S best paths an item and, always, its current ones.

    The states' terms stay in memory, 16 (S + T J) bytes each; sums are made for a share of the items at a time.
    """
    model.set_item_paths(path_VJ)
    structure = compiled_structure(model.structure)
    terms = [score_batch(model, structure, batch, num_candidates) for batch in states.blocks()]
    targets, *rest = (np.concatenate(column) for column in zip(*terms, strict=True))
    num_passes = max(-(-targets.size // TARGETS_PER_PASS), 1)
    kept = []
    for share in range(num_passes):
        summed = accumulate_block(np.where(targets % num_passes == share, targets, -1), *rest)
        kept.append(
            top_candidates(
                summed.item_ids, summed.path_ids, from_fixed(summed.scores_fixed), summed.is_current, num_candidates
            )
        )
    rows = ScoreRows(*(np.concatenate([getattr(part, name) for part in kept]) for name in SCORE_COLUMNS))
    weights = np.zeros(model.num_items)
    items, totals = accumulate_weights(states.target_NT.numpy(), states.weight_NT.numpy())
    weights[items] = from_fixed(totals)
    return to_candidates(rows, weights, path_VJ)


@torch.inference_mode()
def score_batch(model: DeepRetrievalModel, structure: CompiledPaths, batch: StateBatch, num_candidates: int) -> Terms:
    """Beam-search one batch of states: what each adds to s[v, c] of its targets, their current paths included.

    Args:
        structure: the model's own, compiled.
    """
    user_NE = batch.user_NE.numpy()
    beam_NS, beam_log_prob_NS = structure.search(user_NE, num_candidates)
    own_NTJ = model.placement.groups_of(batch.target_NT).numpy()
    flat_NM = own_NTJ.reshape(len(own_NTJ), own_NTJ.shape[1] * own_NTJ.shape[2])
    own_log_prob = structure.log_prob(user_NE, flat_NM).reshape(own_NTJ.shape)
    return (
        batch.target_NT.numpy(),
        batch.weight_NT.numpy(),
        beam_NS,
        np.exp(beam_log_prob_NS),
        own_NTJ,
        np.exp(own_log_prob),
    )


def sum_terms(terms: Sequence[Terms]) -> BlockScores:
    """Sum the terms of several batches by (target, path)."""
    return accumulate_block(*(np.concatenate(column) for column in zip(*terms, strict=True)))
