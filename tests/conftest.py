"""Fixtures shared by all tests: one Spark session for the whole run."""

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from pipelines.session import build_session


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    session = build_session("tests", master="local[2]", conf={"spark.sql.shuffle.partitions": "2"})
    yield session
    session.stop()
