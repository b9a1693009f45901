"""How tests of whole runs start a run that can be killed, and read what a run left."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from pyspark import SparkContext
from pyspark.sql import SparkSession

from pipelines.storage.workdir import Workdir
from tests.end_to_end.attached import run_program

HERE = Path(__file__).parent
Contents = Callable[..., pd.DataFrame]
RunAttached = Callable[..., tuple[int, str]]


@pytest.fixture(scope="session")
def run_attached(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> RunAttached:
    """A function that runs a script of this folder in a process of its own; returns its exit code (-9: killed) and its log.

    The process is a driver like any other and can be killed, but it uses the JVM of this test run and is forked from one
    that has imported torch: it begins within a second, where a JVM of its own takes half a minute of CPU to warm up.
    """
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["pipelines.flows.day_one", "pipelines.flows.refresh"])
    folder = tmp_path_factory.mktemp("attached")

    def run(script: str, *arguments: str, **environment: str) -> tuple[int, str]:
        gateway, log = SparkContext._gateway, folder / "log"
        assert gateway is not None
        secret = gateway.gateway_parameters.auth_token
        given = (str(HERE / script), list(arguments), environment, (gateway.gateway_parameters.port, secret), str(log))
        process = processes.Process(target=run_program, args=given)
        process.start()
        process.join()
        assert process.exitcode is not None
        return process.exitcode, log.read_text()

    return run


@pytest.fixture(scope="session")
def contents(spark: SparkSession) -> Contents:
    """A function that reads a table of a work folder in a defined order, without moments and the columns named."""

    def read(workdir: Path, table: str, *without: str) -> pd.DataFrame:
        frame = Workdir(str(workdir)).read(spark, table).drop("created_at", *without).toPandas()
        for column in frame.columns:
            if frame[column].map(lambda value: hasattr(value, "__len__") and not isinstance(value, str)).any():
                frame[column] = frame[column].map(lambda value: tuple(value) if value is not None else None)
        return frame.sort_values(list(frame.columns)).reset_index(drop=True)

    return read
