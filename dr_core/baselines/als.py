"""Implicit matrix factorisation by alternating least squares, from the library ``implicit``.

Hu, Koren and Volinsky, *Collaborative Filtering for Implicit Feedback Datasets* (ICDM 2008).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field
from threadpoolctl import threadpool_limits

from dr_core.arrays import FloatArray
from dr_core.baselines.base import Events, HistoryBaseline, HistoryConfig, VectorBaseline, weighted
from dr_core.item_lists import ItemLists


class ALSConfig(HistoryConfig):
    """Size and fit of the factors."""

    factors: int = Field(default=64, ge=1)
    """Dimension of user and item factors."""
    regularisation: float = Field(default=0.05, ge=0)
    """lambda, pulls the factors to 0."""
    alpha: float = Field(default=5.0, gt=0)
    """Confidence of an event is 1 + alpha."""
    iterations: int = Field(default=15, ge=1)
    """Passes over users and items."""


class ALS(VectorBaseline, HistoryBaseline):
    """score(u, j) = <p_u, q_j>; p_u of a new user solves its least squares against the learned q.

    With a half life, the confidence of an old event falls below that of an item never met: towards nothing known.
    """

    name = "als"
    config: ALSConfig

    def __init__(self, config: ALSConfig | None = None, seed: int = 0) -> None:
        self.config, self.seed = config or ALSConfig(), seed

    def fit(self, events: Events) -> None:
        from implicit.cpu.als import AlternatingLeastSquares

        config = self.config
        with threadpool_limits(1, "blas"):  # implicit warns of, and suffers from, a BLAS with threads of its own
            self.model = AlternatingLeastSquares(
                factors=config.factors,
                regularization=config.regularisation,
                alpha=config.alpha,
                iterations=config.iterations,
                random_state=self.seed,
                num_threads=1,
            )
            self.model.fit(events.matrix, show_progress=False)
        self.item_VE = np.asarray(self.model.item_factors, dtype=np.float32)

    def users(self, histories: ItemLists) -> FloatArray:
        event_UV = weighted(histories, len(self.item_VE), self.config.half_life)
        return np.asarray(self.model.recalculate_user(np.arange(event_UV.shape[0]), event_UV), dtype=np.float32)
