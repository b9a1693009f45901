"""Small random M-step problems shared by the tests of this folder."""

from collections.abc import Callable

import numpy as np
import pytest

from dr_core.paths.scores import PathCandidates

CandidatesMaker = Callable[..., PathCandidates]


@pytest.fixture
def make_candidates() -> CandidatesMaker:
    """A function that draws candidates; rows are sorted, scores have no ties, every current path is a candidate."""

    def make(
        seed: int, *, num_items: int = 12, num_path_ids: int = 15, num_paths: int = 3, row_length: int = 7
    ) -> PathCandidates:
        rng = np.random.default_rng(seed)
        rows = np.sort(rng.permuted(np.tile(np.arange(num_path_ids), (num_items, 1)), axis=1)[:, :row_length], axis=1)
        weights = rng.integers(1, 40, num_items).astype(np.float64)
        scores = rng.exponential(1.0, (num_items, row_length)) ** 2 * 0.05 * weights[:, np.newaxis]
        picks = rng.permuted(np.tile(np.arange(row_length), (num_items, 1)), axis=1)[:, :num_paths]
        return PathCandidates(
            offsets=np.arange(num_items + 1, dtype=np.int64) * row_length,
            path_ids=rows.ravel().astype(np.int64),
            scores=scores.ravel(),
            weights=weights,
            current_paths=np.take_along_axis(rows, picks, axis=1).astype(np.int64),
        )

    return make
