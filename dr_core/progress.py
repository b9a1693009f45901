"""What a loop that takes minutes says meanwhile."""

from __future__ import annotations

import logging
import time
from typing import Any

logger = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Logs every ten seconds how far a loop has come, and how long the rest takes if it goes on as before.

    Every record carries ``steps``, the loop's name and its steps done and in all; those in between are of level DEBUG, for
    whoever draws a bar of them.

    Args:
        what: the loop's name.
        total: its steps.
    """

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total = what, total
        self.started = self.told = time.monotonic()

    def at(self, done: int) -> None:
        """Say that so many of the steps are done."""
        now = time.monotonic()
        extra = {"steps": (self.what, done, self.total)}
        if done and now - self.told >= SECONDS_BETWEEN_LINES:
            self.told = now
            spent = now - self.started
            rest = spent * (self.total - done) / done
            share = 100 * done / self.total
            logger.info("  %s: %.0f %% in %.0f s, some %.0f s to go", self.what, share, spent, rest, extra=extra)
        else:
            logger.debug("  %s: %d of %d", self.what, done, self.total, extra=extra)

    def report(self, record: dict[str, Any]) -> None:
        """Take a record of :class:`dr_core.learning.trainer.Trainer`, as its ``report``; ``total`` is in its steps."""
        if record["event"] == "progress":
            self.at(record["epoch"] * record["steps"] + record["step"])
