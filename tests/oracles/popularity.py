"""The most popular items, for everybody: the floor that every baseline has to beat."""

from __future__ import annotations

import numpy as np

from dr_core.arrays import FloatArray
from dr_core.baselines.base import Baseline, Events
from dr_core.item_lists import ItemLists


class Popularity(Baseline):
    """Items by the events of the training users, most first."""

    name = "popularity"

    def fit(self, events: Events) -> None:
        self.counts_V = events.counts.astype(np.float32)

    def scores(self, histories: ItemLists) -> FloatArray:
        return np.tile(self.counts_V, (len(histories.offsets) - 1, 1))

    def megabytes(self) -> float:
        return self.counts_V.nbytes / 1e6

    def multiply_adds(self, histories: ItemLists) -> float:
        return 0.0
