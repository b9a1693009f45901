"""What ``dr doctor`` says of Python, Java, packages and the variables of the environment."""

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from pipelines.cli import environment


@pytest.mark.parametrize(
    ("name", "found", "ok"),
    [
        ("pyarrow", "14.0.2", True),
        ("pyarrow", "15.0.0", False),
        ("numpy", "2.0.0", False),
        ("pandas", "3.0.0", False),
        ("pyspark", "4.0.5", True),
        ("pyspark", "4.1.0", False),
        ("pyspark", "3.5.6", False),
        ("delta-spark", "4.0.1", True),
        ("petastorm", "0.12.1", True),
        ("petastorm", "0.13.0", False),
        ("torch", "2.13.0+cu126", True),
    ],
)
def test_a_package_outside_its_bounds_is_not_ok(name: str, found: str, ok: bool) -> None:
    checks = {check.name: check for check in environment.check_packages(lambda package: found)}
    assert checks[name].ok is ok
    assert checks[name].found == found
    assert "make install" in checks[name].mend


def test_every_package_installed_here_is_within_its_bounds() -> None:
    checks = environment.check_packages()
    assert {"pyspark", "torch", "typer", "rich"} <= {check.name for check in checks}
    assert [check for check in checks if not check.ok] == []


def test_packages_of_extras_are_not_asked_for() -> None:
    assert {"faiss-cpu", "pytest", "ruff"} & {requirement.name for requirement in environment.bounds()} == set()


def test_a_missing_package_is_told_from_an_old_one() -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    assert {check.found for check in environment.check_packages(missing)} == {"not installed"}


@pytest.mark.parametrize(("major", "ok"), [(11, False), (17, True), (21, True), (25, False)])
def test_a_java_too_old_or_too_new_for_spark_is_not_ok(
    major: int, ok: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path / "bin" / "java", f"echo 'openjdk version \"{major}.0.1\" 2025-10-21' >&2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    check = environment.check_java()
    assert check.ok is ok
    assert "17 to 21" in check.mend


def test_workers_run_this_python_unless_a_variable_names_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYSPARK_PYTHON", raising=False)
    assert environment.check_worker_python().ok
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    assert environment.check_worker_python().ok


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("3 8 1", "Python 3.8"),
        (f"{sys.version_info[0]} {sys.version_info[1]} None", "without pyspark or torch"),
        ("", "Python ?.?"),
    ],
)
def test_another_python_for_workers_is_not_ok(
    answer: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYSPARK_PYTHON", stand_in(tmp_path / "python", f"echo {answer}"))
    check = environment.check_worker_python()
    assert not check.ok
    assert words in check.found
    assert "unset PYSPARK_PYTHON" in check.mend


def test_a_python_for_workers_that_is_not_there_is_not_ok(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYSPARK_PYTHON", str(tmp_path / "none"))
    check = environment.check_worker_python()
    assert not check.ok
    assert str(tmp_path / "none") in check.found


def test_another_spark_than_the_installed_one_is_not_ok(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARK_HOME", raising=False)
    assert environment.check_spark_home().ok
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    assert "no Spark" in environment.check_spark_home().found
    assert not environment.check_spark_home().ok
    jars = tmp_path / "jars"
    jars.mkdir()
    jar = jars / "spark-core_2.13-3.5.6.jar"
    jar.touch()
    assert "Spark 3.5.6" in environment.check_spark_home().found
    assert not environment.check_spark_home().ok
    jar.rename(jars / f"spark-core_2.13-{version('pyspark')}.jar")
    assert environment.check_spark_home().ok


@pytest.mark.parametrize("name", ["pipelines", "jobs", "dr_core", "jobs.py"])
def test_a_foreign_package_in_the_working_folder_is_not_ok(name: str, tmp_path: Path) -> None:
    assert environment.check_working_folder(str(tmp_path)).ok
    (tmp_path / name).mkdir()
    check = environment.check_working_folder(str(tmp_path))
    assert not check.ok
    assert name in check.found


def test_the_projects_own_folder_is_a_good_working_folder() -> None:
    assert environment.check_working_folder(str(environment.ROOT)).ok


def stand_in(file: Path, line: str) -> str:
    """Write a program of one line of shell; return its path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{line}\n")
    file.chmod(0o755)
    return str(file)
