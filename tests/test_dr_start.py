"""``dr`` and the jobs start with this project's packages, or say in one line what stands in their way."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dr_start

JOB = ["-m", "jobs.preprocess"]
DR = ["-c", "import sys, dr_start; sys.exit(dr_start.main())"]


def start(words: list[str], folder: Path, **variables: str) -> tuple[int, list[str]]:
    """Run Python in a folder; return its exit code and the lines of its stderr."""
    given = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"} | variables
    ended = subprocess.run([sys.executable, *words], cwd=folder, env=given, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stderr.splitlines()


@pytest.mark.parametrize("name", ["pipelines", "dr_core"])
@pytest.mark.parametrize("is_package", [True, False])
@pytest.mark.parametrize("words", [JOB, DR], ids=["job", "dr"])
def test_a_foreign_package_on_the_path_is_named(words: list[str], is_package: bool, name: str, tmp_path: Path) -> None:
    if is_package:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("print('foreign')")
    else:
        (tmp_path / f"{name}.py").write_text("print('foreign')")
    code, lines = start(words, Path("/"), PYTHONPATH=str(tmp_path))
    assert code == 2
    (line,) = lines
    assert f"another {name} in {tmp_path} before this project's in {dr_start.HOME}" in line


def test_a_foreign_package_in_the_working_folder_stops_a_job_and_not_dr(tmp_path: Path) -> None:
    (tmp_path / "pipelines").mkdir()
    code, lines = start(JOB, tmp_path)
    assert code == 2
    assert f"another pipelines in {tmp_path}" in lines[0]
    dr = Path(sys.executable).with_name("dr")
    ended = subprocess.run([dr, "run"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Missing option '--config'" in ended.stderr


def test_another_pyspark_on_the_path_is_named_with_both_versions(tmp_path: Path) -> None:
    (tmp_path / "pyspark").mkdir()
    (tmp_path / "pyspark" / "__init__.py").touch()
    (tmp_path / "pyspark" / "version.py").write_text('__version__: str = "3.5.6"\n')
    code, lines = start(JOB, Path("/"), PYTHONPATH=str(tmp_path), SPARK_HOME="/opt/spark")
    assert code == 2
    (line,) = lines
    assert f"pyspark 3.5.6 in {tmp_path}/pyspark" in line
    assert "unset SPARK_HOME (now /opt/spark)" in line


def test_another_python_is_told_from_the_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dr_start.obstacle() is None
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    assert "is Python 3.9, this project runs on Python 3.11" in str(dr_start.obstacle())


def test_a_python_without_the_packages_is_told_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dr_start, "NEEDED", ("numpy", "no_such_package", "nor_this"))
    assert "has no no_such_package, nor_this: run this project's .venv/bin/python" in str(dr_start.obstacle())


def test_a_user_without_a_home_keeps_caches_in_the_scratch_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name in ("NUMBA_CACHE_DIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, "before")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    dr_start.settle_caches()
    assert "NUMBA_CACHE_DIR" not in os.environ
    monkeypatch.setenv("HOME", str(tmp_path / "missing"))
    dr_start.settle_caches()
    assert Path(os.environ["NUMBA_CACHE_DIR"]).is_relative_to(dr_start.tempfile.gettempdir())
    assert os.environ["MPLCONFIGDIR"] == os.environ["NUMBA_CACHE_DIR"]
