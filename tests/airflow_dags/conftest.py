"""A real Airflow, in the environment that ``make airflow`` makes, with an empty database of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-airflow" / "bin" / "python"
START_DATE = "2024-01-10"

InAirflow = Callable[..., Any]


@pytest.fixture(scope="session")
def in_airflow(tmp_path_factory: pytest.TempPathFactory) -> InAirflow:
    """A function that runs a script of this folder in Airflow's environment and returns the JSON document it writes.

    ``settings`` are the Airflow Variable ``deep_retrieval``, ``connection`` the one that Spark jobs are submitted to,
    ``options`` the section ``[deep_retrieval]``.
    """
    assert PYTHON.exists(), "Airflow is not installed: `make airflow`"
    home = tmp_path_factory.mktemp("airflow")
    taken = ("AIRFLOW", "PYSPARK", "SPARK_", "VIRTUAL_ENV", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(taken)} | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "airflow_dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DEEP_RETRIEVAL__START_DATE": START_DATE,
        "AIRFLOW__DEEP_RETRIEVAL__RETRY_MINUTES": "0",
        "OMP_NUM_THREADS": "1",
    }

    def run(
        script: str,
        *arguments: str,
        settings: dict[str, str] | None = None,
        connection: dict[str, Any] | None = None,
        options: dict[str, str] | None = None,
    ) -> Any:
        out = home / "out.json"
        out.unlink(missing_ok=True)
        given = {
            "AIRFLOW_VAR_DEEP_RETRIEVAL": json.dumps(settings or {}),
            "AIRFLOW_CONN_DEEP_RETRIEVAL_SPARK": json.dumps({"conn_type": "spark"} | (connection or {})),
            **{f"AIRFLOW__DEEP_RETRIEVAL__{name.upper()}": value for name, value in (options or {}).items()},
        }
        call([str(PYTHON), str(Path(__file__).with_name(script)), str(out), *arguments], environment | given)
        return json.loads(out.read_text())

    call([str(PYTHON.with_name("airflow")), "db", "migrate"], environment)
    return run


def put_program(name: str, environment: Path) -> Path:
    """Make a script of this folder the spark-submit of an environment, and return the program."""
    program = environment / "bin" / "spark-submit"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!{sys.executable}\n" + Path(__file__).with_name(name).read_text())
    program.chmod(0o755)
    return program


def call(command: list[str], environment: dict[str, str]) -> None:
    """Run a command; what it says is shown if the test fails."""
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    print(ended.stdout[-20_000:], ended.stderr[-20_000:], sep="\n", file=sys.stderr)
    assert ended.returncode == 0, f"{command} ended with {ended.returncode}"
