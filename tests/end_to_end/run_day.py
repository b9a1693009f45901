"""Runs one day on the tiny world in a process of its own: ``run_day.py WORKDIR LOGS START END [first]``."""

import sys
from pathlib import Path

from pipelines.cli.console import start_logging
from pipelines.config.load import load_config
from pipelines.config.run import RunConfig
from pipelines.flows.day_one import run_day_one
from pipelines.flows.refresh import run_refresh
from pipelines.stages.ingest.interval import Interval

OVERRIDES = (
    "evaluation.controls=false",
    "evaluation.random_start_rounds=0",
    "evaluation.other_paths_per_item=[]",
    "evaluation.curve_shares=[0.1]",
    "gates.min_users=5",
    "gates.max_recall_loss=0.2",
)


def tiny_config() -> RunConfig:
    """Return the tiny world without controls."""
    return load_config(str(Path(__file__).with_name("tiny.yaml")), list(OVERRIDES))


if __name__ == "__main__":
    start_logging()
    workdir, logs, start, end = sys.argv[1:5]
    interval = Interval.parse(start, end)
    if sys.argv[5:] == ["first"]:
        run_day_one(tiny_config(), workdir, logs=logs, interval=interval)
    else:
        run_refresh(tiny_config(), workdir, interval, logs=logs)
