"""What surrounds a process that starts Spark is set right, or refused in one line before anything starts."""

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from dr_core.errors import ConfigError
from pipelines.spark import environment

JAVAS = [(8, "1.8.0_392", "too old"), (11, "11.0.1", "too old"), (24, "24", "too new"), (25, "25.0.1", "too new")]


@pytest.fixture
def own_variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process whose variables are put back afterwards."""
    for name in ("PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON", "OMP_NUM_THREADS", "SPARK_HOME"):
        monkeypatch.setenv(name, "before")
        monkeypatch.delenv(name)
    return monkeypatch


def program(file: Path, line: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{line}\n")
    file.chmod(0o755)
    return file


@pytest.mark.parametrize(("major", "says", "words"), JAVAS)
def test_a_java_too_old_or_too_new_is_refused_with_its_place(
    major: int, says: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin" / "java", f"echo 'openjdk version \"{says}\"' >&2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=f"Java {major} .*{words}") as caught:
        environment.require_java()
    assert str(tmp_path) in str(caught.value)


def test_a_java_home_without_java_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=f"JAVA_HOME is {tmp_path}, which holds no bin/java"):
        environment.require_java()


def test_a_java_that_does_not_run_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin" / "java", "printf 'torn\\nlibrary' >&2; exit 1")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="failed: torn library; install a Java 17"):
        environment.require_java()


@pytest.mark.parametrize("master", ["local", "local[*]", "local[2, 3]", "local-cluster[2,1,1024]"])
def test_on_this_machine_workers_run_this_python(master: str, own_variables: pytest.MonkeyPatch) -> None:
    own_variables.setenv("PYSPARK_PYTHON", "/usr/bin/python2")
    own_variables.setenv("PYSPARK_DRIVER_PYTHON", "jupyter")
    environment.settle_python(master)
    assert os.environ["PYSPARK_PYTHON"] == os.environ["PYSPARK_DRIVER_PYTHON"] == sys.executable


@pytest.mark.parametrize("master", ["yarn", "spark://host:7077", "k8s://https://host"])
def test_on_a_cluster_another_version_of_python_is_refused_and_a_path_of_its_machines_kept(
    master: str, own_variables: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own_variables.setenv("PYSPARK_PYTHON", "./environment/bin/python")
    environment.settle_python(master)
    assert os.environ["PYSPARK_PYTHON"] == "./environment/bin/python"
    for answer, words in (("3.9", "Python 3.9"), ("", "Python ?")):
        own_variables.setenv("PYSPARK_PYTHON", str(program(tmp_path / "python", f"echo {answer}")))
        with pytest.raises(ConfigError, match=r"the driver runs Python 3\.11") as caught:
            environment.settle_python(master)
        assert words in str(caught.value)


def test_another_spark_home_is_left_aside_here_and_refused_on_a_cluster(
    own_variables: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars" / "spark-core_2.12-3.5.6.jar").touch()
    own_variables.setenv("SPARK_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"holds 3.5.6 \(Scala 2.12\), needed is Spark"):
        environment.settle_spark_home("yarn")
    environment.settle_spark_home("local[*]")
    assert os.environ["SPARK_HOME"] == environment.pyspark_folder()
    (tmp_path / "jars" / f"spark-core_2.13-{version('pyspark')}.jar").touch()
    (tmp_path / "jars" / "spark-core_2.12-3.5.6.jar").unlink()
    own_variables.setenv("SPARK_HOME", str(tmp_path))
    environment.settle_spark_home("yarn")
    assert os.environ["SPARK_HOME"] == str(tmp_path)


def test_a_user_that_the_system_does_not_know_is_told_how_to_add_one(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = next(number for number in range(54_321, 64_321) if number not in {user.pw_uid for user in pwd.getpwall()})
    monkeypatch.setattr(os, "getuid", lambda: unknown)
    with pytest.raises(ConfigError, match=f"user id {unknown} has no entry.*echo 'dr:x:{unknown}:"):
        environment.require_user()
    assert environment.ivy_folder().is_absolute()
    assert environment.home_folder() is None


def test_jars_are_kept_in_a_home_that_can_be_written_else_in_the_scratch_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for home, wanted in ((tmp_path, tmp_path), (tmp_path / "missing", None), (Path("/proc"), None)):
        entry = pwd.struct_passwd(("x", "x", os.getuid(), 0, "", str(home), ""))
        monkeypatch.setattr(pwd, "getpwuid", lambda number, entry=entry: entry)
        if str(home) == "/proc":
            monkeypatch.setattr(os, "access", lambda place, mode: False)
        assert environment.home_folder() == wanted
        folder = environment.ivy_folder()
        assert folder == (wanted / ".ivy2.5.2" if wanted else folder)
        assert folder.is_relative_to(wanted or environment.tempfile.gettempdir())


def test_scratch_that_is_full_or_closed_is_refused_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path / "not" / "yet"))
    environment.require_scratch()
    with pytest.raises(ConfigError, match=f"scratch folder {tmp_path}/not/yet.*point SPARK_LOCAL_DIRS and TMPDIR"):
        environment.require_scratch(shutil.disk_usage(tmp_path).total + 1)
    file = tmp_path / "file"
    file.touch(mode=0o600)
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(file))
    with pytest.raises(ConfigError, match="cannot be written"):
        environment.require_scratch()


def test_what_was_set_from_outside_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in environment.FROM_OUTSIDE:
        monkeypatch.delenv(name, raising=False)
    assert environment.settings_from_outside() == ""
    (tmp_path / "spark-defaults.conf").write_text(
        "# a comment\nspark.eventLog.enabled true\n\nspark.jars old.jar # x\n"
    )
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    found = environment.settings_from_outside()
    assert f"SPARK_CONF_DIR={tmp_path}" in found
    assert "(spark.eventLog.enabled, spark.jars)" in found


def test_spark_submit_by_its_path_runs_the_environment_that_it_lies_in(tmp_path: Path) -> None:
    home = tmp_path / "spark"
    (home / "jars").mkdir(parents=True)
    (home / "jars" / f"spark-core_2.13-{version('pyspark')}.jar").touch()
    program(home / "bin" / "spark-submit", 'echo "$PYSPARK_DRIVER_PYTHON $PATH $*"')
    java = Path(shutil.which("java") or "java").parent
    line = [sys.executable, "-c", "from pipelines.spark.submit import main; main()", "--master", "local[1]", "x.py"]
    given = {"PATH": f"{java}:/usr/bin:/bin", "SPARK_HOME": str(home), "PYSPARK_PYTHON": "/usr/bin/python2"}
    ended = subprocess.run(line, env=given, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == [
        sys.executable,
        f"{Path(sys.executable).parent}:{given['PATH']}",
        "--master",
        "local[1]",
        "x.py",
    ]
    program(tmp_path / "old" / "bin" / "java", "echo 'java version \"25\"' >&2")
    ended = subprocess.run(
        line, env=given | {"JAVA_HOME": str(tmp_path / "old")}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    (said,) = ended.stderr.splitlines()
    assert said.startswith("spark-submit: Java 25")


def test_workers_pass_packages_of_the_working_folder_by(spark: SparkSession) -> None:
    """Their working folder comes first on their path otherwise, since they are started by ``python -m``."""

    def path(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _ in batches:
            yield pa.RecordBatch.from_pydict({"entry": sys.path})

    entries = {row.entry for row in spark.range(1).mapInArrow(path, "entry string").collect()}
    assert {"", os.getcwd()} & entries == set()
