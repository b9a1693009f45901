"""Streaming VQ beside a run: its candidates along the budget, ranked by the run's own softmax as Deep Retrieval's are."""

from __future__ import annotations

from typing import Any

import numpy as np

from dr_core.baselines.codebook import ClusterLists
from dr_core.baselines.streaming_vq import StreamingVQ, StreamingVQConfig
from dr_core.evaluation.evaluator import Point
from dr_core.evaluation.metrics import candidate_recall
from dr_core.retrieval.candidates import rerank
from pipelines.config.run import RunConfig
from pipelines.experiments.choose import Settings, choose
from pipelines.experiments.history_cut import cut_config
from pipelines.experiments.indexes import TUNED_SHARE, lists_of
from pipelines.experiments.seed_data import Measured, Points, SeedData
from pipelines.experiments.timing import median_seconds

STREAMING_VQ = StreamingVQ.name
STREAMING_VQ_SETTINGS: tuple[Settings, ...] = (
    {"items_per_cluster": 16, "epochs": 10},
    {"items_per_cluster": 4, "epochs": 10},
    {"items_per_cluster": 4, "interval_power": 0.0, "epochs": 10},
)
"""What it may choose from."""
BATCH_ROWS = 128
"""Rows whose targets are each other's negatives, as many as the two-tower model's."""


def build_streaming_vq(config: RunConfig, settings: Settings, seed: int) -> StreamingVQ:
    """Return one with the run's encoder, cut, learning rate and weight decay."""
    training = config.training
    return StreamingVQ(
        StreamingVQConfig(
            encoder=config.encoder,
            cut=cut_config(config, batch_rows=BATCH_ROWS),
            learning_rate=training.learning_rate,
            weight_decay=training.weight_decay,
            **settings,
        ),
        seed,
    )


def measure_streaming_vq(data: SeedData, settings: tuple[Settings, ...]) -> tuple[Points, list[dict[str, Any]]]:
    """Choose the settings by the truth among the validation users' candidates; measure along the curve's budgets.

    Args:
        settings: those to choose from.

    Returns:
        Its points with their lists, by ascending budget, and the record of the choice.
    """
    histories, truths = data.validation

    def fit(chosen: Settings) -> StreamingVQ:
        fitted = build_streaming_vq(data.config, chosen, data.run.seed)
        fitted.fit(data.events)
        return fitted

    def truth_at_budget(fitted: StreamingVQ) -> float:
        if not len(data.run.validation):
            return 0.0
        budget = max(1, round(TUNED_SHARE * len(data.active)))
        found = fitted.candidates(fitted.users(histories), fitted.lists(data.active), budget)
        return float(np.nanmean(candidate_recall(lists_of(found), truths)))

    choice = choose(STREAMING_VQ, settings, fit, truth_at_budget)
    lists = choice.best.lists(data.active)
    budgets = [share * len(data.active) for share in data.config.evaluation.curve_shares]
    sizes = sorted({max(1, round(budget)) for budget in (*budgets, data.served.mean_candidates)})
    points = {STREAMING_VQ: [_measure_budget(data, choice.best, lists, size) for size in sizes]}
    return points, [choice.record | {"megabytes": choice.best.megabytes()}]


def _measure_budget(data: SeedData, fitted: StreamingVQ, lists: ClusterLists, size: int) -> Measured:
    """Measure one number of candidates; the time is that of clusters, merge and ranking, encoding left out."""
    evaluator = data.evaluator
    vectors = (evaluator.vector_VE, evaluator.bias_V)
    state_UE, ranked_UE = fitted.users(evaluator.history), evaluator.user_UE.numpy()
    found = fitted.candidates(state_UE, lists, size)
    plain_Uk, _, _ = rerank(ranked_UE, found, *vectors, evaluator.k_max)
    filtered_Uk, _, _ = rerank(ranked_UE, found, *vectors, evaluator.k_max, evaluator.history)
    width = state_UE.shape[1]
    seconds = median_seconds(
        lambda both: rerank(
            np.ascontiguousarray(both[:, width:]),
            fitted.candidates(both[:, :width], lists, size),
            *vectors,
            evaluator.k_max,
        ),
        np.column_stack([state_UE, ranked_UE]),
    )
    sizes_U = np.diff(found.offsets).astype(np.float64)
    point = Point(
        STREAMING_VQ,
        float(size),
        sizes_U,
        candidate_recall(lists_of(found), evaluator.truth),
        fitted.num_clusters * (width - 1) + float(sizes_U.mean()) * evaluator.dim,
        1e6 * seconds,
    )
    return data.listed(point, plain_Uk, filtered_Uk)
