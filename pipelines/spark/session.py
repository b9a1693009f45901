"""The Spark session: Delta enabled, sized for this machine, and never overriding what spark-submit was given."""

from __future__ import annotations

import fcntl
import logging
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession

from dr_core.errors import ConfigError
from pipelines.spark.start_log import quiet_start

DEFAULTS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.adaptive.coalescePartitions.parallelismFirst": "false",
    "spark.sql.parquet.compression.codec": "zstd",
    "spark.ui.showConsoleProgress": "false",
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
OLDEST_JAVA, NEWEST_JAVA = 17, 21
"""What Spark 4.0 runs on: Java 24 has lost the security manager that its Hadoop asks for."""


def java_version() -> str:
    """Return the first line of ``java -version``; raise :class:`ConfigError` when there is no Java."""
    java = os.path.join(os.environ["JAVA_HOME"], "bin", "java") if os.environ.get("JAVA_HOME") else "java"
    if shutil.which(java) is None:
        raise ConfigError("Java was not found: install a Java 17 (or 21) runtime, or point JAVA_HOME at one")
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise ConfigError(f"'{java} -version' failed: {answer.stderr.strip()}; install Java 17 or 21")
    return next((line for line in answer.stderr.splitlines() if " version " in line), answer.stderr.strip())


def java_major(version: str) -> int | None:
    """Return 17 of ``openjdk version "17.0.15" 2025-04-15``, 8 of ``java version "1.8.0_392"``; None when it cannot be told."""
    found = re.search(r'version "(?:1\.)?(\d+)', version)
    return int(found[1]) if found else None


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
    # The environment variable, not the setting: executors started by local-cluster see only the former.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    jvm = _running_jvm()
    fetching: AbstractContextManager[None] = nullcontext()
    submitted = {} if jvm is None else dict(SparkConf(loadDefaults=True).getAll())
    chosen_master = submitted.get("spark.master") or master or "local[*]"
    builder = SparkSession.builder.appName(app_name).master(chosen_master)
    settings = dict(DEFAULTS)
    if chosen_master.startswith("local"):
        settings |= LOCAL_DEFAULTS | {"spark.sql.shuffle.partitions": str(shuffle_partitions(chosen_master))}
    settings |= dict(conf or {})
    for key, value in settings.items():
        if key not in submitted:
            builder = builder.config(key, value)
    if jvm is not None:
        _require_delta(jvm)
    else:
        major = java_major(java_version())
        if major is not None and not OLDEST_JAVA <= major <= NEWEST_JAVA:
            raise ConfigError(
                f"Java {major} is too {'old' if major < OLDEST_JAVA else 'new'} for Spark 4.0, which runs on Java"
                f" {OLDEST_JAVA} to {NEWEST_JAVA}: install a Java 17 (or 21) runtime, or point JAVA_HOME at one"
            )
        if "spark.jars" not in settings:
            fetching = delta_fetched_once()
            if "spark.jars.packages" not in settings:
                from delta import configure_spark_with_delta_pip

                builder = configure_spark_with_delta_pip(builder)
    try:
        with fetching, quiet_start(builder._options) if jvm is None else nullcontext():
            session = builder.getOrCreate()
            session.sparkContext.setLogLevel("ERROR")
    except PySparkRuntimeError as error:
        if error.getCondition() != "JAVA_GATEWAY_EXITED":
            raise
        raise ConfigError(
            "Spark did not start; its own lines above say why. If the Delta JAR could not be fetched, see"
            " conf/spark/local.conf on machines without a network; `dr doctor` checks the rest"
        ) from error
    return session


def _running_jvm() -> Any | None:
    """Return the JVM that spark-submit (or an earlier session of this process) started, without starting one."""
    if SparkContext._gateway is None and "PYSPARK_GATEWAY_PORT" not in os.environ:
        return None
    SparkContext._ensure_initialized()
    return SparkContext._jvm


def _require_delta(jvm: Any) -> None:
    """Refuse a JVM without Delta: unlike one that is still to be started, it cannot be given JARs any more."""
    if not jvm.org.apache.spark.util.Utils.classIsLoadable(DELTA_EXTENSION):
        raise ConfigError(
            "spark-submit started Spark without Delta: add --properties-file conf/spark/local.conf (or cluster.conf), or"
            " --packages io.delta:delta-spark_2.13:<the version of delta-spark>; without a network --jars"
        )


def delta_jars() -> list[Path]:
    """Return the Delta JARs of the installed version that lie in an Ivy cache of this user.

    A JVM looks for its user's home in the system's list of users before it looks at ``HOME``, and so does this.
    """
    try:
        home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        home = Path.home()
    name = f"*delta-spark_2.13-{version('delta-spark')}.jar"
    return [jar for folder in sorted(home.glob(".ivy2*/jars")) for jar in sorted(folder.glob(name))]


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
