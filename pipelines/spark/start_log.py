"""What a JVM prints while it starts: kept in a file, shown only if the start fails."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from pyspark import SparkConf, SparkContext
from pyspark.java_gateway import launch_gateway

logger = logging.getLogger(__name__)
STARTED, FAILED = b"\0started\n", b"\0failed\n"
"""Written after the JVM's last line of the start, where the reader of both changes what it does."""
SECONDS_TO_CATCH_UP = 5.0


@contextmanager
def quiet_start(options: Mapping[str, str]) -> Iterator[None]:
    """Start this process' JVM, and keep its stderr from the console until the block is left.

    Ivy and Spark print about 35 lines while they start. They go to a file, whose name is logged. What the JVM prints after
    the block is shown on stderr and kept in the file too. If the block fails, all that the file holds is shown.

    Args:
        options: Spark settings to start the JVM with.

    Raises:
        PySparkRuntimeError: JAVA_GATEWAY_EXITED, the JVM ended before it could be used.
    """
    log, path = tempfile.mkstemp(prefix="deep-retrieval-spark-", suffix=".log")
    logger.info("Spark's start-up messages: %s", path)
    reading, writing = os.pipe()
    reader = _Reader(reading, log, path)
    reader.start()
    ending = FAILED
    try:
        conf = SparkConf(loadDefaults=False).setAll(list(options.items()))
        gateway = launch_gateway(conf, {"stderr": writing})  # type: ignore[no-untyped-call]
        SparkContext._ensure_initialized(gateway=gateway)
        yield
        ending = STARTED
    finally:
        os.write(writing, ending)
        os.close(writing)
        reader.caught_up.wait(SECONDS_TO_CATCH_UP)


class _Reader(threading.Thread):
    """Takes the JVM's lines from a pipe, for as long as the JVM lives.

    Args:
        reading: the pipe's end.
        log: descriptor of the file that takes all lines.
        path: of that file.
    """

    def __init__(self, reading: int, log: int, path: str) -> None:
        super().__init__(name="jvm-stderr", daemon=True)
        self.reading, self.log, self.path = reading, log, path
        self.console = os.dup(2)
        self.caught_up = threading.Event()

    def run(self) -> None:
        is_shown = False
        with open(self.reading, "rb") as lines:
            for line in lines:
                ending = next((word for word in (STARTED, FAILED) if line.endswith(word)), b"")
                self._keep(line.removesuffix(ending), is_shown)
                if ending:
                    is_shown = True
                    if ending == FAILED:
                        self._show_kept()
                    self.caught_up.set()

    def _keep(self, line: bytes, is_shown: bool) -> None:
        with suppress(OSError):  # a full disk or a closed terminal must not leave the JVM waiting for a reader
            os.write(self.log, line)
        if is_shown:
            with suppress(OSError):
                os.write(self.console, line)

    def _show_kept(self) -> None:
        with suppress(OSError), open(self.path, "rb") as file:
            os.write(self.console, file.read())
