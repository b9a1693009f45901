"""Under spark-submit a session is what spark-submit made of it, with Delta from a properties file."""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from pipelines.spark.session import delta_jars

Submit = Callable[..., tuple[int, str]]
PROGRAM = """\
import json, sys
from dr_core.errors import DeepRetrievalError
from pipelines.spark.session import spark_session

asked = {"spark.sql.shuffle.partitions": "7", "spark.sql.autoBroadcastJoinThreshold": "123456b"}
try:
    with spark_session("test", master="local[3]", conf=asked) as spark:
        spark.range(3).write.format("delta").save(sys.argv[1])
        names = [*asked, "spark.sql.session.timeZone", "spark.driver.memory", "spark.jars.packages"]
        found = {name: spark.conf.get(name, "") for name in names}
        found["master"] = spark.sparkContext.master
        found["rows"] = len(spark.read.format("delta").load(sys.argv[1]).collect())
    print(json.dumps(found))
except DeepRetrievalError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.fixture
def program(tmp_path: Path) -> str:
    """A program that asks for a session and says what it got."""
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    return str(file)


def properties(file: Path) -> dict[str, str]:
    """Return the settings of a properties file."""
    lines = (line.split("#")[0].strip() for line in file.read_text().splitlines() if not line.startswith("#"))
    return dict(line.split(None, 1) for line in lines if line)


def test_spark_submit_wins_over_the_config_which_wins_over_the_defaults_with_jars_named_one_by_one(
    submit: Submit, program: str, tmp_path: Path, conf_folder: Path, spark: object
) -> None:
    cached = delta_jars()[0].parent
    lines = (conf_folder / "local.conf").read_text().splitlines()
    documented = next(line for line in lines if line.startswith("#   spark.jars"))
    named = [str(cached / Path(jar).name) for jar in documented.split()[-1].split(",")]
    assert all(Path(jar).exists() for jar in named)
    kept = [line for line in lines if not line.startswith("spark.jars.packages")]
    (tmp_path / "offline.conf").write_text("\n".join([*kept, f"spark.jars {','.join(named)}"]))
    code, output = submit(program, str(tmp_path / "table"), properties=tmp_path / "offline.conf")
    assert code == 0
    assert json.loads(output.strip().splitlines()[-1]) == {
        "master": "local[1]",
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.autoBroadcastJoinThreshold": "123456b",
        "spark.sql.session.timeZone": "UTC",
        "spark.driver.memory": "4g",
        "spark.jars.packages": "",
        "rows": 3,
    }


def test_a_spark_submit_without_delta_is_told_what_to_add(submit: Submit, program: str, tmp_path: Path) -> None:
    code, output = submit(program, str(tmp_path / "table"), properties=None)
    assert code == 2
    assert "without Delta: give spark-submit --properties-file conf/spark/local.conf" in output


@pytest.mark.parametrize("name", ["local", "cluster"])
def test_the_properties_name_delta_as_it_is_installed(conf_folder: Path, name: str) -> None:
    settings = properties(conf_folder / f"{name}.conf")
    assert all(key.startswith("spark.") for key in settings)
    assert settings["spark.jars.packages"] == f"io.delta:delta-spark_2.13:{version('delta-spark')}"
    assert "spark.master" in settings or name == "cluster"
