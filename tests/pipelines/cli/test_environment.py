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
    assert ok or (f"Java {major}" in check.found and "too" in check.found)
    assert ok or "install a Java 17" in check.mend


def test_on_this_machine_workers_run_this_python_whatever_a_variable_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYSPARK_PYTHON", "/usr/bin/python2")
    check = environment.check_worker_python("local[2]")
    assert check.ok
    assert "/usr/bin/python2, left aside" in check.found


def test_another_python_for_a_clusters_workers_is_not_ok(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYSPARK_PYTHON", stand_in(tmp_path / "python", "echo 3.8"))
    check = environment.check_worker_python("yarn")
    assert not check.ok
    assert "is Python 3.8" in check.found
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    assert environment.check_worker_python("yarn").ok


def test_another_spark_is_left_aside_here_and_not_ok_on_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPARK_HOME", raising=False)
    assert environment.check_spark_home("yarn").ok
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    assert "no Spark" in environment.check_spark_home("yarn").found
    jars = tmp_path / "jars"
    jars.mkdir()
    jar = jars / "spark-core_2.12-3.5.6.jar"
    jar.touch()
    assert "3.5.6 (Scala 2.12)" in environment.check_spark_home("yarn").found
    assert not environment.check_spark_home("yarn").ok
    assert "left aside" in environment.check_spark_home("local[*]").found
    jar.rename(jars / f"spark-core_2.13-{version('pyspark')}.jar")
    assert environment.check_spark_home("yarn").ok


@pytest.mark.parametrize("name", ["pipelines", "jobs", "dr_core", "jobs.py"])
def test_a_foreign_package_in_the_working_folder_is_named(name: str, tmp_path: Path) -> None:
    assert name not in environment.check_working_folder(str(tmp_path)).found
    (tmp_path / name).mkdir()
    assert f"holds {name}: run `python -m jobs.…` in another" in environment.check_working_folder(str(tmp_path)).found


def test_the_projects_own_folder_holds_nothing_foreign() -> None:
    assert environment.check_working_folder(environment.HOME).found == environment.HOME


def stand_in(file: Path, line: str) -> str:
    """Write a program of one line of shell; return its path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{line}\n")
    file.chmod(0o755)
    return str(file)
