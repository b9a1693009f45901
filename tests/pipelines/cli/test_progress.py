"""Bars on a terminal, lines elsewhere."""

import io
import logging
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from dr_core.progress import Progress
from pipelines.cli.console import start_logging
from pipelines.cli.progress import shown_progress
from pipelines.storage.run_record import Run
from pipelines.storage.workdir import Workdir

PROGRAM = """
import logging, sys
from dr_core.progress import Progress
from pipelines.cli.console import start_logging
from pipelines.cli.progress import shown_progress
from pipelines.storage.run_record import Run
from pipelines.storage.workdir import Workdir

start_logging()
def work():
    loop = Progress("E-step", 4)
    for done in range(1, 5):
        loop.at(done)
    logging.getLogger("pipelines").info("a line of [its] own")
    return {"rows_in": 4, "rows_out": 2}

with shown_progress():
    Run(Workdir(sys.argv[1]), "r", "").stage("e_step_1", work)
"""
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(*words: str) -> str:
    """Run a program with a terminal as its stderr; return what it wrote there."""
    ours, theirs = pty.openpty()
    program = subprocess.Popen(words, stderr=theirs, env=os.environ | {"TERM": "xterm", "COLUMNS": "120"})
    os.close(theirs)
    said = b""
    try:
        while piece := os.read(ours, 4096):
            said += piece
    except OSError:  # how Linux reports that nobody has the other end any more
        pass
    os.close(ours)
    assert program.wait(60) == 0
    return said.decode()


def test_a_terminal_shows_bars_and_keeps_one_line_a_stage(tmp_path: Path) -> None:
    raw = on_a_terminal(sys.executable, "-c", PROGRAM, str(tmp_path))
    assert "\x1b[" in raw, "a bar moves the cursor"
    text = CONTROL.sub("", raw)
    assert "━" in text
    assert len(re.findall(r"\d\d:\d\d:\d\d e_step_1 +\d+\.\d s, 4 rows in, 2 out", text)) == 1
    assert len(re.findall(r"\d\d:\d\d:\d\d a line of \[its\] own", text)) == 1
    assert not re.search(r"\d\d:\d\d:\d\d e_step_1 +…", text)


def test_elsewhere_lines_are_plain(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120
    )
    assert ended.stdout == ""
    assert [re.sub(r"^[0-9:]{8} |[0-9.]+ s", "", line) for line in ended.stderr.splitlines()] == [
        "e_step_1       …",
        "a line of [its] own",
        "e_step_1       , 4 rows in, 2 out",
    ]


def draw(width: int = 100) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=True, width=width, _environ={}), file


def test_a_loop_has_a_bar_below_its_stages(tmp_path: Path) -> None:
    console, file = draw()
    shown: list[list[str]] = []

    def work() -> dict[str, int]:
        loop = Progress("descent", 10)
        (bars,) = [handler.bars for handler in logging.getLogger("pipelines").handlers]  # type: ignore[attr-defined]
        loop.at(7)
        shown.append([f"{bar.description} {bar.completed} of {bar.total}" for bar in bars.tasks])
        loop.at(10)
        shown.append([f"{bar.description} {bar.completed} of {bar.total}" for bar in bars.tasks])
        return {}

    start_logging()
    with shown_progress(console):
        Run(Workdir(str(tmp_path)), "r", "").stage("assign_1", work)
    assert shown == [["assign_1 0 of None", "descent 7 of 10"], ["assign_1 0 of None"]]
    assert "assign_1" in file.getvalue()


def test_a_loop_outside_of_stages_has_a_bar_until_it_ends() -> None:
    console, _ = draw()
    start_logging()
    with shown_progress(console):
        (bars,) = [handler.bars for handler in logging.getLogger("dr_core").handlers]  # type: ignore[attr-defined]
        loop = Progress("item_cf", 4)
        loop.at(1)
        assert [(bar.description, bar.completed) for bar in bars.tasks] == [("item_cf", 1)]
        loop.at(4)
        assert bars.tasks == []


def test_logging_is_afterwards_what_it_was() -> None:
    console, _ = draw()
    start_logging()
    loggers = [logging.getLogger(name) for name in ("pipelines", "dr_core", "dr_core.progress")]
    before = [(list(logger.handlers), logger.level) for logger in loggers]
    with pytest.raises(KeyError), shown_progress(console):
        raise KeyError("anything")
    assert [(list(logger.handlers), logger.level) for logger in loggers] == before
