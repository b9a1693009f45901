"""A JVM's start is quiet, unless it fails."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system
NOISE = ("loading settings", "NativeCodeLoader", "default log level")
PROGRAM = """
import sys
from pipelines.cli.console import explain, start_logging
from pipelines.spark.session import spark_session

start_logging()
try:
    with spark_session("quiet", master="local[1]", conf=CONF) as spark:
        spark.range(1).count()
        spark._jvm.java.lang.System.err.println("after the start")
except Exception as error:
    sys.exit(explain("dr run", error))
"""


def run(folder: Path, conf: dict[str, str]) -> tuple[int, str, str]:
    """Run the program; return its exit code, its stderr and what lies in the log of the start."""
    environment = {name: value for name, value in os.environ.items() if name != "PYSPARK_GATEWAY_PORT"}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("CONF", repr(conf))],
        env=environment | {"TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    (path,) = re.findall(r"Spark's start-up messages: (\S+)", ended.stderr)
    assert path.startswith(str(folder))
    return ended.returncode, ended.stderr, Path(path).read_text()


def test_the_start_is_kept_in_a_file_and_what_comes_later_is_shown(tmp_path: Path) -> None:
    code, said, kept = run(tmp_path, {})
    assert code == 0
    assert [word for word in NOISE if word in said] == []
    assert [word for word in NOISE if word not in kept] == []
    assert said.splitlines()[1:] == ["after the start"]
    assert "after the start" in kept


@pytest.mark.parametrize("conf", [{"spark.driver.memory": "a lot"}])
def test_a_start_that_fails_shows_why(conf: dict[str, str], tmp_path: Path) -> None:
    code, said, kept = run(tmp_path, conf)
    assert code == 2
    assert kept
    assert kept in said
    assert said.splitlines()[-1].startswith("dr run: Spark did not start; its own lines above say why")
