"""The Spark session: Delta enabled, sized for this machine, and never overriding what spark-submit was given."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pyspark.sql import SparkSession

from dr_core.errors import ConfigError

DEFAULTS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.adaptive.coalescePartitions.parallelismFirst": "false",
    "spark.sql.parquet.compression.codec": "zstd",
    "spark.ui.showConsoleProgress": "false",
}
LOCAL_DEFAULTS = {
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "4",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.driver.memory": "4g",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
}


def java_version() -> str:
    """Return the first line of ``java -version``; raise :class:`ConfigError` when there is no Java."""
    java = os.path.join(os.environ["JAVA_HOME"], "bin", "java") if os.environ.get("JAVA_HOME") else "java"
    if shutil.which(java) is None:
        raise ConfigError("Java was not found: install a Java 17 (or 21) runtime, or point JAVA_HOME at one")
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise ConfigError(f"'{java} -version' failed: {answer.stderr.strip()}; install Java 17 or 21")
    return answer.stderr.splitlines()[0]


def build_session(
    app_name: str = "deep-retrieval", *, master: str | None = None, conf: Mapping[str, str] | None = None
) -> SparkSession:
    """Start (or join) a Delta-enabled session.

    Args:
        app_name: shown in Spark's UI.
        master: for example ``local[2]``; when None, what spark-submit set, else ``local[*]``.
        conf: settings of the run's configuration. What ``spark-submit --conf`` set wins over both these and the defaults.

    Raises:
        ConfigError: Java is missing.
    """
    java_version()
    # The environment variable, not the setting: executors started by local-cluster see only the former.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    builder = SparkSession.builder.appName(app_name)
    submitted = _submitted_conf()
    chosen_master = submitted.get("spark.master") or master or "local[*]"
    builder = builder.master(chosen_master)
    settings = dict(DEFAULTS)
    if chosen_master.startswith("local"):
        settings |= LOCAL_DEFAULTS
    settings |= dict(conf or {})
    for key, value in settings.items():
        if key not in submitted:
            builder = builder.config(key, value)
    if "spark.jars" not in submitted | settings and "spark.jars.packages" not in submitted | settings:
        from delta import configure_spark_with_delta_pip

        builder = configure_spark_with_delta_pip(builder)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def _submitted_conf() -> dict[str, str]:
    """Read what spark-submit put on the JVM, without building a session of our own first."""
    from pyspark import SparkConf, SparkContext

    if SparkContext._gateway is None and "PYSPARK_GATEWAY_PORT" not in os.environ:
        return {}
    SparkContext._ensure_initialized()
    return dict(SparkConf(loadDefaults=True).getAll())


@contextmanager
def spark_session(app_name: str, **arguments: object) -> Iterator[SparkSession]:
    """Yield a session and always stop it: a driver that dies with its session up leaves a minute of errors."""
    session = build_session(app_name, **arguments)  # type: ignore[arg-type]
    try:
        yield session
    finally:
        session.stop()
