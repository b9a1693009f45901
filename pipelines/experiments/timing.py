"""What an answer takes, in blocks of users, with the threads that the caller allows."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from dr_core.arrays import FloatArray
from dr_core.baselines.base import Baseline, VectorBaseline, rows
from dr_core.evaluation.evaluator import CHUNK
from dr_core.item_lists import ItemLists


def median_seconds(answer: Callable[[FloatArray], object], user_UE: FloatArray) -> float:
    """Return the median seconds a user of a function of blocks of user vectors."""
    seconds = []
    for start in range(0, len(user_UE), CHUNK):
        block = np.ascontiguousarray(user_UE[start : start + CHUNK])
        begun = time.perf_counter()
        answer(block)
        seconds.append((time.perf_counter() - begun) / len(block))
    return float(np.median(seconds))


def seconds_of_scoring(baseline: Baseline, histories: ItemLists, k: int) -> float:
    """Return the median seconds a user of scoring all items and taking the best k, encoding left out."""
    if isinstance(baseline, VectorBaseline):
        items = torch.from_numpy(baseline.item_VE)
        return median_seconds(lambda block: (torch.from_numpy(block) @ items.T).topk(k), baseline.users(histories))
    seconds = []
    for start in range(0, len(histories.offsets) - 1, CHUNK):
        block = rows(histories, start, start + CHUNK)
        begun = time.perf_counter()
        torch.from_numpy(baseline.scores(block)).topk(k)
        seconds.append((time.perf_counter() - begun) / (len(block.offsets) - 1))
    return float(np.median(seconds))
