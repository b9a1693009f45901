"""EASE: a linear model of an item from all others, in closed form.

Steck, *Embarrassingly Shallow Autoencoders for Sparse Data* (WWW 2019), equation 8: with P = (X'X + lambda I)^-1, B_ij =
-P_ij / P_jj and a zero diagonal.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from dr_core.arrays import FloatArray
from dr_core.baselines.base import Events, HistoryBaseline, HistoryConfig, weighted
from dr_core.item_lists import ItemLists


class EASEConfig(HistoryConfig):
    """Regularisation, and how much is inverted."""

    regularisation: float = Field(default=300.0, gt=0)
    """lambda: larger for sparser data."""
    max_items: int = Field(default=20_000, ge=1)
    """Most popular items that take part; the inverse costs max_items^3 operations and 8 max_items^2 bytes. All others can
    neither vote nor be found."""


class EASE(HistoryBaseline):
    """score(u, .) = x_u B, x_u the weights of the history's events."""

    name = "ease"
    config: EASEConfig

    def __init__(self, config: EASEConfig | None = None) -> None:
        self.config = config or EASEConfig()

    def fit(self, events: Events) -> None:
        self.num_items = events.num_items
        by_count = np.lexsort((np.arange(self.num_items), -events.counts))
        self.items = np.sort(by_count[: self.config.max_items])
        users = events.matrix[:, self.items]
        gram = (users.T @ users).toarray().astype(np.float64)
        gram[np.diag_indices_from(gram)] += self.config.regularisation
        inverse = np.linalg.inv(gram)
        weight = -inverse / np.diag(inverse)
        np.fill_diagonal(weight, 0)
        self.weight_II = weight.astype(np.float32)

    def scores(self, histories: ItemLists) -> FloatArray:
        scores = np.full((len(histories.offsets) - 1, self.num_items), -np.inf, dtype=np.float32)
        scores[:, self.items] = (
            weighted(histories, self.num_items, self.config.half_life)[:, self.items] @ self.weight_II
        )
        return scores

    def megabytes(self) -> float:
        return float(self.weight_II.nbytes) / 1e6

    def multiply_adds(self, histories: ItemLists) -> float:
        return len(histories.item_ids) / max(len(histories.offsets) - 1, 1) * len(self.items)
