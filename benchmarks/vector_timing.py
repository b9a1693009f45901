"""Recall and time of vector indexes: widths are chosen on validation users, results are those of test users.

Shape legend: U users, E dimension, k items returned.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import faiss
import numpy as np
import torch

from benchmarks.vector_indexes import VectorIndex
from benchmarks.vector_worlds import BLOCK
from dr_core.arrays import FloatArray, IntArray

ENOUGH = 0.985
"""A sweep ends at this recall."""
TOGETHER = 20
"""Users that one setting answers one by one before the next setting's turn."""
Mode = Literal["block", "one"]
MODES: tuple[Mode, Mode] = ("block", "one")


@dataclass(eq=False)
class Setting:
    """An index at one width, and what was measured of it on one group of users."""

    index: VectorIndex
    width: str
    recall: float = 0.0
    seconds: dict[Mode, list[float]] = field(default_factory=lambda: {mode: [] for mode in MODES})
    """A user, each time that it was measured."""

    def microseconds(self, mode: Mode) -> float:
        """Return the median of a user's time."""
        return statistics.median(self.seconds[mode]) * 1e6

    def row(self, user_UE: FloatArray) -> dict[str, Any]:
        """Return what the JSON line says of it."""
        work = self.index.multiply_adds(user_UE, self.width)
        return {
            "method": self.index.method,
            "index": self.index.label,
            "parameter": self.width,
            "recall": round(self.recall, 4),
            "microseconds_one": round(self.microseconds("one"), 1),
            "microseconds_block": round(self.microseconds("block"), 1),
            "multiply_adds": work if work is None else round(work),
        }


@dataclass(frozen=True)
class Questions:
    """Users and their exact best items."""

    user_UE: FloatArray
    truth_Uk: IntArray

    def recall(self, found_Uk: IntArray) -> float:
        """Return the mean share of the best items among those found."""
        k = self.truth_Uk.shape[1]
        shared = [len(np.intersect1d(*rows)) for rows in zip(found_Uk, self.truth_Uk, strict=True)]
        return float(np.mean(shared)) / k


def measure(settings: Sequence[Setting], questions: Questions, *, repeats: int, singles: int) -> None:
    """Measure settings on one thread, in turn within each block, so that what else the machine does meets them alike.

    Args:
        settings: get their recall and times.
        questions: all are asked in blocks, ``repeats`` times.
        singles: users that are also asked one by one.
    """
    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    users, k = questions.user_UE, questions.truth_Uk.shape[1]
    found: list[list[IntArray]] = [[] for _ in settings]
    for repeat in range(repeats):
        for start in range(0, len(users), BLOCK):
            for setting, lists in zip(settings, found, strict=True):
                part = users[start : start + BLOCK]
                began = time.perf_counter()
                answer = setting.index.search(part, k, setting.width)
                setting.seconds["block"].append((time.perf_counter() - began) / len(part))
                if repeat == 0:
                    lists.append(answer)
    for start in range(0, min(singles, len(users)), TOGETHER):
        for setting in settings:
            for row in range(start, min(start + TOGETHER, singles, len(users))):
                began = time.perf_counter()
                setting.index.search(users[row : row + 1], k, setting.width)
                setting.seconds["one"].append(time.perf_counter() - began)
    for setting, lists in zip(settings, found, strict=True):
        setting.recall = questions.recall(np.concatenate(lists))


def swept(index: VectorIndex, validation: Questions) -> list[list[Setting]]:
    """Measure an index's sweeps on validation users, each until it finds :data:`ENOUGH`."""
    sweeps = []
    for widths in index.sweeps:
        for warm_up in (validation.user_UE[:1], validation.user_UE[:BLOCK]):  # compiled code is compiled now
            index.search(warm_up, validation.truth_Uk.shape[1], widths[0])
        sweeps.append([])
        for width in widths:
            sweeps[-1].append(Setting(index, width))
            measure(sweeps[-1][-1:], validation, repeats=1, singles=TOGETHER * 3)
            if sweeps[-1][-1].recall >= ENOUGH:
                break
    return sweeps


def frontier(settings: Iterable[Setting], mode: Mode) -> list[Setting]:
    """Return the settings of which none that is as fast finds more, from fast to slow."""
    kept: list[Setting] = []
    for setting in sorted(settings, key=lambda setting: (setting.microseconds(mode), -setting.recall)):
        if not kept or setting.recall > kept[-1].recall:
            kept.append(setting)
    return kept


def narrowest(sweeps: Iterable[Sequence[Setting]], recall: float) -> list[Setting]:
    """Return, of each sweep that reaches a recall on the users it was measured on, its first setting that does.

    Not its fastest: a narrower search does less, whatever one measurement says.
    """
    firsts = (next((setting for setting in sweep if setting.recall >= recall), None) for sweep in sweeps)
    return [setting for setting in firsts if setting]


def fastest(settings: Iterable[Setting], mode: Mode) -> Setting | None:
    """Return the setting of the least median time."""
    return min(settings, key=lambda setting: setting.microseconds(mode), default=None)
