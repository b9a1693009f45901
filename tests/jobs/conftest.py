"""A tiny generated world, and the real spark-submit of the installed pyspark."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CONF = Path(__file__).parents[2] / "conf" / "spark"
WORLD = """\
name: tiny
spark:
  master: "local[4]"
  conf:
    spark.sql.adaptive.enabled: "false"
    spark.sql.codegen.wholeStage: "false"
    spark.sql.codegen.factoryMode: NO_CODEGEN
    spark.databricks.delta.snapshotPartitions: "1"
dataset: {format: synthetic, synthetic: {num_users: 150, num_items: 120, mean_events: 25, num_days: 3}}
preprocess: {min_events: 6, cumulative: true}
split: {num_test: 12, num_validation: 8, min_events: 6}
serving: {k: 5, beam: 4, history_length: 12}
samples: {positions: 3, targets: 3, num_blocks: 2}
encoder: {dim: 16}
structure: {hidden: 8}
training: {num_processes: 1, batch_rows: 32}
mixed_targets: {draws: 2, best_items: 40}
budget: {candidates: 20, beam: 4}
paths: {paths_per_item: 1}
penalty: {corrections: 0}
assignment: {m_step: both}
em: {rounds: 1, warm_up_epochs: 1, e_step_epochs: 1, final_epochs: 1}
health: {max_largest_share: 1.0, min_normalized_entropy: 0.0}
evaluation: {controls: false, bootstrap: 100}
"""

SHORT_LIVED = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:MetaspaceSize=256m -XX:+UseSerialGC"
Submit = Callable[..., tuple[int, str]]


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The YAML file of a world of 150 users and 120 items."""
    file = tmp_path_factory.mktemp("world") / "tiny.yaml"
    file.write_text(WORLD)
    return str(file)


@pytest.fixture(scope="session")
def submit() -> Submit:
    """A function that runs a script under spark-submit and returns its exit code and stdout."""

    def run(script: str, *arguments: str, properties: Path | None = CONF / "local.conf") -> tuple[int, str]:
        command = [str(Path(sys.executable).with_name("spark-submit")), "--master", "local[1]"]
        command += ["--conf", "spark.sql.shuffle.partitions=1"]
        command += ["--driver-java-options", SHORT_LIVED]
        command += ["--properties-file", str(properties)] if properties else []
        environment = os.environ | {"PYSPARK_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
        for name in ("PYSPARK_GATEWAY_PORT", "PYSPARK_GATEWAY_SECRET", "PYSPARK_SUBMIT_ARGS"):
            environment.pop(name, None)
        ended = subprocess.run(
            [*command, script, *arguments], capture_output=True, text=True, env=environment, check=False
        )
        print(ended.stdout, ended.stderr, sep="\n", file=sys.stderr)
        return ended.returncode, ended.stdout

    return run


@pytest.fixture(scope="session")
def conf_folder() -> Path:
    """``conf/spark``."""
    return CONF
