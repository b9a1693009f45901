"""One refusal says all that a configuration lacks for a log."""

from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from dr_core.errors import ConfigError, InputError
from pipelines.config.load import load_config, validate_config
from pipelines.config.run import RunConfig
from pipelines.stages.ingest.needs import unnamed_columns
from pipelines.stages.ingest.preprocess import preprocess
from pipelines.stages.ingest.split import SplitConfig, draw_roles
from pipelines.storage.workdir import Workdir

CONF = Path(__file__).parents[4] / "conf"


def world(**sections: object) -> RunConfig:
    return validate_config({"name": "w", "dataset": {"format": "parquet"}} | sections, "test")


@pytest.mark.parametrize(
    ("sections", "settings"),
    [
        ({}, []),
        ({"preprocess": {"positive": {"kind": "threshold", "at_least": 4}}}, ["dataset.columns.rating"]),
        ({"preprocess": {"positive": {"kind": "flag"}, "weight": {"kind": "column"}}}, ["dataset.columns.label", "dataset.columns.weight"]),
        ({"split": {"users": "column"}}, ["dataset.columns.split"]),
        ({"preprocess": {"positive": {"kind": "flag"}}, "dataset": {"format": "csv", "columns": {"label": "liked"}}}, []),
    ],
)  # fmt: skip
def test_a_rule_whose_column_is_not_named_is_told(sections: dict[str, object], settings: list[str]) -> None:
    config = world(**sections)
    told = unnamed_columns(config.dataset, config.preprocess, config.split)
    assert [line.rpartition("set ")[2] for line in told] == settings


def ingest(spark: SparkSession, folder: Path, config: RunConfig, logs: str) -> None:
    preprocess(
        spark, Workdir(str(folder / "W")), config.dataset, config.preprocess, config.split,
        history_length=9, run_id="r", logs=logs,
    )  # fmt: skip


def test_a_usual_ratings_file_under_another_worlds_configuration_is_refused_once(
    spark: SparkSession, tmp_path: Path
) -> None:
    logs = str(tmp_path / "ratings.parquet")
    pd.DataFrame({"userId": [1, 1], "movieId": [2, 3], "rating": [4.0, 1.0], "timestamp": [1, 2]}).to_parquet(logs)
    config = load_config(str(CONF / "movielens_1m.yaml"), ["preprocess.weight={kind: column}"])
    with pytest.raises(InputError) as caught:
        ingest(spark, tmp_path, config, logs)
    told = str(caught.value)
    assert "preprocess.weight (kind column) needs the column of the weight: set dataset.columns.weight" in told
    assert f"`dr init --logs {logs}` proposes a configuration for this log" in told
    unmapped = world(preprocess={"positive": {"kind": "flag"}}, dataset={"format": "parquet", "columns": {"user": "userId", "item": "movieId", "time": "timestamp"}})  # fmt: skip
    with pytest.raises(ConfigError, match=r"needs the column of the label: set dataset.columns.label; or let `dr init"):
        ingest(spark, tmp_path, unmapped, logs)
    assert not (tmp_path / "W" / "tables").exists()


def test_a_split_larger_than_the_users_is_told_what_would_do(spark: SparkSession) -> None:
    rows = [(f"u{number}", 12 if number < 40 else 3, False) for number in range(60)]
    users = spark.createDataFrame(rows, "user string, num_events bigint, is_later boolean")
    with pytest.raises(ConfigError) as caught:
        draw_roles(users, SplitConfig(), seed=0)
    told = str(caught.value)
    assert "only 40 users have at least 10 kept events (split.min_events), of 60 users in all" in told
    assert told.endswith("set split.num_test=8 and split.num_validation=4")
    draw_roles(users, SplitConfig(num_test=8, num_validation=4), seed=0)
    with pytest.raises(ConfigError, match=r"60 have 2 or more: lower split.min_events, and ask for fewer users"):
        draw_roles(users, SplitConfig(min_events=20), seed=0)
