"""The Spark session: Delta enabled, sized for this machine, and never overriding what spark-submit was given."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import signal
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from dr_core.errors import ConfigError
from pipelines.spark.environment import (
    ivy_folder,
    require_machine,
    settings_from_outside,
    settle_python,
    settle_spark_home,
)
from pipelines.spark.start_log import quiet_start

DEFAULTS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.adaptive.coalescePartitions.parallelismFirst": "false",
    "spark.sql.parquet.compression.codec": "zstd",
    "spark.ui.showConsoleProgress": "false",
    # Else a worker takes packages of the working folder for this project's.
    "spark.executorEnv.PYTHONSAFEPATH": "1",
    # pandas writes times in nanoseconds, which Spark reads as integers or not at all.
    "spark.sql.legacy.parquet.nanosAsLong": "true",
    # Else text is UTF-8, Latin-1, or not read.
    "spark.sql.legacy.javaCharsets": "true",
    # Else every call on a DataFrame or column walks Python's stack and tells the JVM, four times the cost of the call.
    "spark.python.sql.dataFrameDebugging.enabled": "false",
}
LOCAL_DEFAULTS = {
    "spark.ui.enabled": "false",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "8",  # else VACUUM lists folders in 10,000 tasks
    "spark.driver.memory": "4g",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.python.daemon.module": "pipelines.spark.worker_daemon",
}
DELTA_EXTENSION = DEFAULTS["spark.sql.extensions"]


def shuffle_partitions(master: str) -> int:
    """Return how many partitions a shuffle has on one machine: one a core, and four at least, so that two cores can share
    what is dealt unevenly.

    Args:
        master: ``local``, ``local[4]``, ``local[*]``, or any of them with a number of failures allowed.
    """
    found = re.match(r"local(?:\[(\d+|\*)|$)", master)
    named = found[1] if found else "*"
    cores = len(os.sched_getaffinity(0)) if named == "*" else int(named or 1)
    return max(4, cores)


def build_session(
    app_name: str = "deep-retrieval", *, master: str | None = None, conf: Mapping[str, str] | None = None
) -> SparkSession:
    """Start (or join) a Delta-enabled session.

    Args:
        app_name: shown in Spark's UI.
        master: for example ``local[2]``; when None, what spark-submit set, else ``local[*]``.
        conf: settings of the run's configuration. What ``spark-submit --conf`` set wins over both these and the defaults.

    Raises:
        ConfigError: Java is missing, too old or too new, the session does not start, or spark-submit started it without Delta.
    """
    jvm = _running_jvm()
    fetching: AbstractContextManager[None] = nullcontext()
    submitted = {} if jvm is None else dict(SparkConf(loadDefaults=True).getAll())
    chosen_master = submitted.get("spark.master") or master or "local[*]"
    settle_python(chosen_master)
    builder = SparkSession.builder.appName(app_name).master(chosen_master)
    settings = dict(DEFAULTS)
    if chosen_master.startswith("local"):
        settings |= LOCAL_DEFAULTS | {"spark.sql.shuffle.partitions": str(shuffle_partitions(chosen_master))}
    settings |= dict(conf or {})
    if jvm is None:
        require_machine()
        settle_spark_home(chosen_master)
        settings.setdefault("spark.jars.ivy", str(ivy_folder()))
    for key, value in settings.items():
        if key not in submitted:
            builder = builder.config(key, value)
    if jvm is not None:
        _require_delta(jvm)
    elif "spark.jars" not in settings:
        fetching = delta_fetched_once()
        if "spark.jars.packages" not in settings:
            from delta import configure_spark_with_delta_pip

            builder = configure_spark_with_delta_pip(builder)
    with fetching, quiet_start(builder._options) if jvm is None else nullcontext():
        session = builder.getOrCreate()
        session.sparkContext.setLogLevel("ERROR")
        _require_delta(session._jvm)
    return session


def _running_jvm() -> Any | None:
    """Return the JVM that spark-submit (or an earlier session of this process) started, without starting one."""
    if SparkContext._gateway is None and "PYSPARK_GATEWAY_PORT" not in os.environ:
        return None
    SparkContext._ensure_initialized()
    return SparkContext._jvm


def _require_delta(jvm: Any) -> None:
    """Refuse a JVM without Delta, or with another version's: a JVM that runs cannot be given JARs any more.

    Raises:
        ConfigError: saying what to add, or which JAR is the wrong one.
    """
    wanted, classes = version("delta-spark"), jvm.org.apache.spark.util.Utils
    if not classes.classIsLoadable(DELTA_EXTENSION):
        raise ConfigError(
            "Spark was started without Delta: give spark-submit --properties-file conf/spark/local.conf (or cluster.conf), or"
            f" --packages io.delta:delta-spark_2.13:{wanted}; without a network --jars. In spark.jars, name its JARs too"
        )
    extension = classes.classForName(DELTA_EXTENSION, True, True)
    jar = str(extension.getProtectionDomain().getCodeSource().getLocation().getPath())
    found = re.search(r"delta-(?:spark|core)_([\d.]+)-([\d.]+)\.jar", jar)
    if found and found.groups() != ("2.13", wanted):
        raise ConfigError(
            f"Spark loads Delta {found[2]} (Scala {found[1]}) from {jar}, needed is {wanted} (Scala 2.13): look at spark.jars,"
            f" spark.jars.packages and the settings from outside ({settings_from_outside() or 'none'})"
        )


def delta_jars() -> list[Path]:
    """Return the Delta JARs of the installed version that lie in this user's Ivy cache."""
    return sorted(ivy_folder().glob(f"jars/*delta-spark_2.13-{version('delta-spark')}.jar"))


@contextmanager
def delta_fetched_once() -> Iterator[None]:
    """Let one process of this user fetch the Delta JARs, and others wait for it: Ivy does not lock its cache.

    Where they have been fetched, nobody waits.
    """
    with open(Path(tempfile.gettempdir()) / f"deep-retrieval-ivy-{os.getuid()}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_SH if delta_jars() else fcntl.LOCK_EX)
        yield


@contextmanager
def spark_session(app_name: str, **arguments: object) -> Iterator[SparkSession]:
    """Yield a session and always stop it: a driver that dies with its session up leaves a minute of errors.

    A session that this process already has is joined, and left to whoever started it.
    """
    joined = SparkContext._active_spark_context is not None
    session = build_session(app_name, **arguments)  # type: ignore[arg-type]
    if joined:
        yield session
        return
    try:
        with _interrupts_cancel_jobs(session.sparkContext):
            yield session
    finally:
        session.stop()


@contextmanager
def _interrupts_cancel_jobs(context: SparkContext) -> Iterator[None]:
    """Turn Ctrl-C into a KeyboardInterrupt that leaves no job running.

    pyspark's own handler asks the JVM over the main thread's connection, which waits for an answer already: what comes of it
    is an error of that connection, not an interrupt. Another thread has a connection of its own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def cancel() -> None:
        context.setLogLevel("OFF")
        context.cancelAllJobs()

    def interrupt(number: int, frame: object) -> None:
        # py4j reports the call that it gives up as an error, with a traceback.
        for name in ("", "py4j"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", "Unable to cleanly shutdown", RuntimeWarning)
        thread = threading.Thread(target=cancel, daemon=True)
        thread.start()
        thread.join(30)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
