"""Trials: every method chooses among a few settings by what they find for the validation users."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from dr_core.baselines.base import HistoryBaseline

logger = logging.getLogger(__name__)
Settings = Mapping[str, Any]
Fitted = TypeVar("Fitted")


@dataclass(frozen=True)
class Choice(Generic[Fitted]):
    """What won, and what was tried.

    Attributes:
        best: fitted with the settings that did best on the validation users.
        record: method, settings, validation, seconds (of the best) and trials (of each: settings, validation, seconds).
    """

    best: Fitted
    record: dict[str, Any]


def choose(
    method: str, settings: Sequence[Settings], fit: Callable[[Settings], Fitted], judge: Callable[[Fitted], float]
) -> Choice[Fitted]:
    """Fit a method with each of its settings; keep the best on the validation users, the first among equals.

    Settings that differ in the half life alone share one fit: the first of them has its seconds, so that the trials' sum
    is what was spent; the best has the seconds of its fit in any case.

    Args:
        settings: what the method may choose from, at least one.
        fit: returns a method fitted with settings.
        judge: its figure on the validation users, higher is better.
    """
    best: tuple[Fitted, dict[str, Any], float] | None = None
    fits: dict[str, tuple[Fitted, float]] = {}
    trials = []
    for chosen in settings:
        learned = json.dumps({name: value for name, value in chosen.items() if name != "half_life"}, sort_keys=True)
        is_new = learned not in fits
        if is_new:
            started = time.monotonic()
            fits[learned] = fit(chosen), time.monotonic() - started
        candidate, seconds = fits[learned]
        if isinstance(candidate, HistoryBaseline):
            candidate = candidate.with_half_life(chosen.get("half_life"))
        figure, spent = judge(candidate), seconds if is_new else 0.0
        trials.append({"settings": dict(chosen), "validation": round(figure, 5), "seconds": round(spent, 2)})
        logger.info("  %s %s: %.4f on the validation users, %.1f s", method, json.dumps(dict(chosen)), figure, spent)
        if best is None or figure > best[1]["validation"]:
            best = candidate, trials[-1], seconds
    if best is None:
        raise ValueError(f"{method} was given no settings to choose from")
    fitted, trial, seconds = best
    return Choice(fitted, {"method": method, "trials": trials, **trial, "seconds": round(seconds, 2)})
