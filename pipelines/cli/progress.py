"""Bars for the stage that is under way, on a terminal. Elsewhere log lines say the same."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipelines.cli.console import LINE, LOGGERS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

LOOPS = "dr_core.progress"


@contextmanager
def shown_progress(console: Console | None = None) -> Iterator[None]:
    """Draw bars below the log lines while stages run.

    Stages and loops announce themselves in the ``extra`` of their log records: ``stage_begins`` and ``stage_ends``
    (:meth:`pipelines.storage.run_record.Run.stage`) and ``steps`` (:class:`dr_core.progress.Progress`).

    Args:
        console: where to draw; by default stderr if it is a terminal, else nothing is drawn.
    """
    if console is None and not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:14}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    loggers = [logging.getLogger(name) for name in LOGGERS]
    loops = logging.getLogger(LOOPS)
    before = [logger.handlers for logger in loggers], loops.level
    with Progress(*columns, console=console or Console(stderr=True), transient=True) as bars:
        handler = BarHandler(bars)
        for logger in loggers:
            logger.handlers = [handler]
        loops.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            for logger, handlers in zip(loggers, before[0], strict=True):
                logger.handlers = handlers
            loops.setLevel(before[1])


class BarHandler(logging.Handler):
    """Keeps a bar for the stage that runs and one for the loop that runs in it. Prints all other records above them."""

    def __init__(self, bars: Progress) -> None:
        super().__init__()
        self.setFormatter(LINE)
        self.bars = bars
        self.shown: dict[str, TaskID] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Move a bar, or print the record."""
        if hasattr(record, "stage_begins"):
            self._clear()
            self.shown[record.stage_begins] = self.bars.add_task(record.stage_begins, total=None)
        elif hasattr(record, "steps"):
            self._move(*record.steps)
        else:
            if hasattr(record, "stage_ends"):
                self._clear()
            self.bars.console.print(self.format(record), markup=False, highlight=False, soft_wrap=True)

    def _move(self, loop: str, done: int, total: int) -> None:
        if loop not in self.shown:
            self.shown[loop] = self.bars.add_task(loop, total=total)
        self.bars.update(self.shown[loop], completed=done)
        if done >= total:
            self.bars.remove_task(self.shown.pop(loop))

    def _clear(self) -> None:
        for bar in self.shown.values():
            self.bars.remove_task(bar)
        self.shown.clear()
