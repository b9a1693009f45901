"""A driver of its own on a JVM that is already up: it can be killed, and begins within a second."""

import os
import runpy
import sys

from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession


def run_program(
    program: str, arguments: list[str], environment: dict[str, str], gateway: tuple[int, str], log: str
) -> None:
    """Run a script as ``__main__`` of this process.

    Args:
        program: the script; ``arguments`` are its words.
        environment: added to this process' own.
        gateway: port and secret of the JVM.
        log: file that takes stdout and stderr.
    """
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ |= environment
    sys.argv = [program, *arguments]
    _attach(*gateway)
    runpy.run_path(program, run_name="__main__")


def _attach(port: int, secret: str) -> None:
    """Make the JVM's Spark context the one of this process."""
    os.environ |= {"PYSPARK_GATEWAY_PORT": str(port), "PYSPARK_GATEWAY_SECRET": secret}
    SparkContext._ensure_initialized()
    jvm = SparkContext._jvm
    context = jvm.JavaSparkContext.fromSparkContext(jvm.org.apache.spark.SparkContext.getOrCreate())
    SparkContext(jsc=context, conf=SparkConf(_jvm=jvm, _jconf=context.getConf()))
    SparkSession.builder.getOrCreate().catalog.clearCache()  # what a killed process left there
