"""The jobs of day one and the stages of a refresh, as ``python -m pipelines.flows.plan`` wrote them to ``plan.json``."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from deep_retrieval.settings import option

PLAN: dict[str, Any] = json.loads(Path(__file__).with_name("plan.json").read_text())


def day_one_jobs(rounds: int) -> list[tuple[str, str | None]]:
    """Return day one's jobs in order, each with its ``--round`` or None."""
    parts = PLAN["day_one"]
    middle = [(job, str(t)) for t in range(1, rounds + 1) for job in parts["round"]]
    return [*map(tuple, parts["before"]), *middle, *map(tuple, parts["after"])]


def refresh_stages() -> list[str]:
    """Return a refresh's stages in order."""
    return list(PLAN["refresh"])


def timeout_of(name: str) -> timedelta:
    """Return how long a job or stage may take; those that train have a longer time of their own."""
    training = PLAN["training"]
    if name in training["jobs"] or name in training["stages"]:
        return timedelta(hours=float(option("training_timeout_hours", "12")))
    return timedelta(hours=float(option("timeout_hours", "6")))
