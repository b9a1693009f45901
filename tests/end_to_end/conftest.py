"""How tests of whole runs read what a run left."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from pipelines.tables import Workdir

Contents = Callable[..., pd.DataFrame]


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
