"""What people and machines see: results on stdout, everything else on stderr, one line for an error."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import typer

from dr_core.errors import DeepRetrievalError, TryAgain, typed
from dr_start import HOME, OWN
from pipelines.spark.environment import OUTPUT

EXIT_CODES = (
    "Exit codes: 0 done, 1 bug, 2 bad configuration or arguments, 3 refused by a data or quality gate, 75 try again."
)
LINE = logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")
LOGGERS = ("pipelines", "dr_core")
"""The project's own."""
FRAMES_SHOWN, LONGEST_MESSAGE = 4, 400
"""Of a bug, on the console."""


def explain(program: str, error: BaseException) -> int:
    """Say on stderr why a program ends, in one line; only a bug shows where it struck. Return the exit code."""
    error = typed(error)
    if isinstance(error, KeyboardInterrupt):
        print(f"{program}: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return TryAgain.exit_code
    code = error.exit_code if isinstance(error, DeepRetrievalError) else 1
    if code == 1:
        _show_bug(program, error)
    else:
        print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def _show_bug(program: str, error: BaseException) -> None:
    """Show the project's own part of a traceback; the whole of it goes to a file that is named."""
    whole = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile("w", prefix="deep-retrieval-bug-", suffix=".log", delete=False) as file:
            file.write(whole)
    except OSError:
        print(whole, file=sys.stderr)
        return
    frames = traceback.extract_tb(error.__traceback__)
    rooms = tuple(os.path.join(HOME, name, "") for name in OWN)
    own = [frame for frame in frames if os.path.realpath(frame.filename).startswith(rooms)] or frames
    first_line = (str(error).strip() or "no message").splitlines()[0][:LONGEST_MESSAGE]
    print("Traceback (this project's part):", file=sys.stderr)
    print("".join(traceback.format_list(own[-FRAMES_SHOWN:])), end="", file=sys.stderr)
    print(f"{program}: {type(error).__name__}: {first_line}", file=sys.stderr)
    spark = f"; Spark's output: {os.environ[OUTPUT]}" if OUTPUT in os.environ else ""
    print(f"{program}: this is a bug; the whole traceback: {file.name}{spark}", file=sys.stderr)


def misused(program: str, error: typer.TyperException) -> str:
    """Say on stderr, in one line, which argument of a program is wrong. Return what is wrong with it."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else program
    message = " ".join(error.format_message().split())
    print(f"{command}: {message.rstrip('.')}; see {command} --help", file=sys.stderr)
    return message


@contextmanager
def results_only() -> Iterator[None]:
    """Keep stdout for the result: what the JVM, a rank or a library prints meanwhile goes to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def start_logging() -> None:
    """Send the project's log lines to stderr, and other packages' only when they warn."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LINE)
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)
        logging.getLogger(name).handlers = [handler]
        logging.getLogger(name).propagate = False
    for name in ("py4j", "TorchDistributor", "petastorm"):
        logging.getLogger(name).setLevel(logging.ERROR)
