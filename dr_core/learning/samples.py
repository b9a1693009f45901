"""Training samples (x_i, y_i, w_i): how histories are cut."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dr_core.config import Config


class SamplesConfig(Config):
    """How histories are cut into training samples."""

    max_rows: int = Field(default=32, ge=1)
    """Rows a user at most (their ends evenly spaced); bounds what one heavy user contributes."""
    positions: int = Field(default=8, ge=1)
    """P, states trained on in a row. One encoder pass serves them all."""
    targets: int = Field(default=8, ge=1)
    """T, targets a position."""
    target_mode: Literal["later", "next"] = "later"
    """``later``: drawn from all later events. ``next``: the next T events (sessions, where order is what matters)."""
    max_events: int = Field(default=10_000, ge=2)
    """Most recent events of a user that are used; older ones of longer histories are ignored, so that no user fills
    memory."""
    num_blocks: int = Field(default=16, ge=1)
    """Blocks into which users are cut for the scores."""
    rows_per_group: int = Field(default=1_024, ge=1)
    """Rows of a Parquet row group (one a file) at most. The number of groups is a multiple of 4, so that 1, 2 or 4
    readers share them evenly."""
