"""Tiny worlds to train on: users whose next items follow from their last ones."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from dr_core.learning.trainer import Validation
from dr_core.model.objective import Batch

NUM_ITEMS = 24
SourceMaker = Callable[..., "ListSource"]


class ListSource:
    """Batches held in a list, shuffled by (seed, epoch); ``delivered`` counts what was read."""

    def __init__(self, batches: list[Batch], seed: int) -> None:
        self.held, self.seed, self.delivered = batches, seed, 0
        self.steps_per_epoch = len(batches)

    def batches(self, epoch: int, first_step: int) -> Iterator[Batch]:
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.held))
        for place in order[first_step:]:
            self.delivered += 1
            yield self.held[place]


def world(num_rows: int, seed: int) -> Batch:
    """Rows of 5 items whose targets are the successors (v + 1, v + 2) of the item at the position."""
    rng = np.random.default_rng(seed)
    history = rng.integers(0, NUM_ITEMS, (num_rows, 5))
    positions = np.tile([2, 4], (num_rows, 1))
    targets = (np.take_along_axis(history, positions, 1)[..., None] + [1, 2]) % NUM_ITEMS
    weights = rng.uniform(0.5, 1.5, targets.shape)
    return Batch(
        torch.from_numpy(history),
        torch.from_numpy(positions),
        torch.from_numpy(targets),
        torch.from_numpy(weights.astype(np.float32)),
    )


@pytest.fixture
def make_source() -> SourceMaker:
    """A function that makes the same batches for the same seed."""

    def make(num_batches: int = 4, rows: int = 16, seed: int = 0) -> ListSource:
        return ListSource([world(rows, seed * 100 + number) for number in range(num_batches)], seed)

    return make


@pytest.fixture
def validation() -> Validation:
    return Validation(world(32, 9_999), k=3, filtered=True)
