"""Runs day one on the tiny world in a process of its own: ``run_tiny.py WORKDIR [KEY=VALUE ...]``."""

import sys
from pathlib import Path

from pipelines.cli.console import start_logging
from pipelines.config.load import load_config
from pipelines.flows.day_one import run_day_one

if __name__ == "__main__":
    start_logging()
    config = load_config(str(Path(__file__).with_name("tiny.yaml")), sys.argv[2:])
    run_day_one(config, sys.argv[1])
