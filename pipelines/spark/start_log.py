"""What a JVM prints: kept in a file, whose name is shown."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from py4j.protocol import Py4JJavaError
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.java_gateway import launch_gateway

from dr_core.errors import ConfigError
from pipelines.spark.environment import OUTPUT, settings_from_outside

logger = logging.getLogger(__name__)
REASONS = (
    r"^Exception in thread \S+ (.+)",
    r"^(?:Error: |Invalid |Unrecognized ).+",
    r"^(?:Caused by: )?[\w.$]+(?:Exception|Error): .+",
)
"""What the line with the reason of a failed start looks like, the surest first."""


@contextmanager
def quiet_start(options: Mapping[str, str]) -> Iterator[None]:
    """Start this process' JVM, with all that it will ever print in a file whose name is logged.

    Args:
        options: Spark settings to start the JVM with.

    Raises:
        ConfigError: the JVM, or the session that the block makes in it, does not start; with the reason found in the file.
    """
    log, path = tempfile.mkstemp(prefix="deep-retrieval-spark-", suffix=".log")
    os.environ[OUTPUT] = path
    logger.info("starting Spark (its output: %s)", path)
    try:
        conf = SparkConf(loadDefaults=False).setAll(list(options.items()))
        gateway = launch_gateway(conf, {"stdout": log, "stderr": log})  # type: ignore[no-untyped-call]
        SparkContext._ensure_initialized(gateway=gateway)
        yield
    except PySparkRuntimeError as error:
        if error.getCondition() != "JAVA_GATEWAY_EXITED":
            raise
        raise ConfigError(_failed(_reason(Path(path)), path)) from error
    except Py4JJavaError as error:
        reason = str(error.java_exception).strip().splitlines()[0]
        raise ConfigError(_failed(reason, path)) from error
    finally:
        os.close(log)


def _failed(reason: str, path: str) -> str:
    hints = [f"Spark did not start: {reason[:400]}"]
    if "unresolved dependency" in reason or "download failed" in reason:
        hints.append("the Delta JARs could not be fetched: conf/spark/local.conf says what to do without a network")
    outside = settings_from_outside()
    if outside:
        hints.append(f"settings that it was given from outside: {outside}")
    return "; ".join([*hints, f"its output: {path}; `dr doctor` checks the rest"])


def _reason(path: Path) -> str:
    """Return the line that says why a start failed."""
    lines: list[str] = []
    with suppress(OSError):
        lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    for pattern in REASONS:
        for line in lines:
            found = re.match(pattern, line)
            if found:
                return found[found.lastindex or 0]
    return lines[-1] if lines else "it said nothing"
