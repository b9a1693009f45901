"""spark-submit of the installed pyspark, after a look at the machine: what ``make install`` puts at .venv/bin/spark-submit.

pyspark's own script asks the first ``python3`` on PATH where Spark is, and submits to that Python too; here it is the one that
the project is installed in, wherever the script is called from.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from dr_core.errors import ConfigError
from pipelines.spark.environment import home_folder, ivy_folder, pyspark_folder, require_machine, settle_spark_home


def main() -> NoReturn:
    """Become spark-submit; a machine that it cannot run on is one line and exit code 2."""
    words = sys.argv[1:]
    masters = [after for word, after in zip(words, words[1:], strict=False) if word == "--master"]
    try:
        require_machine()
        settle_spark_home(masters[-1] if masters else "local")
    except ConfigError as error:
        print(f"spark-submit: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    if home_folder() is None:
        words = ["--conf", f"spark.jars.ivy={ivy_folder()}", *words]
    os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    home = os.environ.setdefault("SPARK_HOME", pyspark_folder())
    os.execv(f"{home}/bin/spark-submit", ["spark-submit", *words])
