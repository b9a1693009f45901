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
    (path,) = re.findall(r"starting Spark \(its output: (.+)\)", ended.stderr)
    assert path.startswith(str(folder))
    return ended.returncode, ended.stderr, Path(path).read_text()


def test_all_that_a_jvm_prints_is_kept_in_a_file_that_one_line_names(tmp_path: Path) -> None:
    code, said, kept = run(tmp_path, {})
    assert code == 0
    assert len(said.splitlines()) == 1
    assert [word for word in NOISE if word not in kept] == []
    assert "after the start" in kept


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"spark.driver.memory": "a lot"}, "Invalid maximum heap size: -Xmxa lot"),
        (
            {"spark.eventLog.enabled": "true", "spark.eventLog.dir": "file:/nowhere"},
            "FileNotFoundException: File file:/nowhere",
        ),
    ],
)
def test_a_start_that_fails_is_one_line_with_the_reason_and_the_file(
    conf: dict[str, str], words: str, tmp_path: Path
) -> None:
    code, said, kept = run(tmp_path, conf)
    assert code == 2
    assert kept
    starting, reason = said.splitlines()
    assert reason.startswith("dr run: Spark did not start: ")
    assert words in reason
    assert starting.split()[-1].rstrip(")") in reason
