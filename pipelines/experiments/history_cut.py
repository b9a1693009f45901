"""How the baselines cut histories into training rows: as the run does."""

from __future__ import annotations

from typing import Any

from dr_core.baselines.history_source import CutConfig
from pipelines.config.run import RunConfig


def cut_config(config: RunConfig, **changes: Any) -> CutConfig:
    """Return how the run cuts its histories into training rows, with changes."""
    samples = config.samples
    cut = CutConfig(
        history_length=config.history_length,
        positions=samples.positions,
        targets=samples.targets,
        next_only=samples.target_mode == "next",
        batch_rows=config.training.batch_rows,
    )
    return cut.model_copy(update=changes)
