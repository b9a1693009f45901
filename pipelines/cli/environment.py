"""Whether Python, Java, the installed packages and the variables of the environment are those that a run needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from dr_core.errors import ConfigError
from pipelines.cli.check import Check

DISTRIBUTION = "deep-retrieval"
OWN_PACKAGES = ("dr_core", "pipelines", "jobs")
ROOT = Path(__file__).parents[2]
"""Folder that holds the project's packages."""
REINSTALL = "`make install` installs what constraints.txt pins"
LOOK = "import sys, importlib.util as u; print(*sys.version_info[:2], u.find_spec('pyspark') and u.find_spec('torch') and 1)"


def check_python() -> Check:
    """Python 3.11, the only one that Petastorm 0.12.1 and Spark 4.0 share with these packages."""
    return Check(
        "python",
        sys.version_info[:2] == (3, 11),
        f"{sys.version.split()[0]} ({sys.executable})",
        "install Python 3.11 and `make install PYTHON=/path/to/python3.11`",
    )


def check_java() -> Check:
    """A Java that Spark 4.0 runs on."""
    from pipelines.spark.session import NEWEST_JAVA, OLDEST_JAVA, java_major, java_version

    try:
        found = java_version()
    except ConfigError as error:
        return Check("java", False, "none", str(error))
    major = java_major(found)
    return Check(
        "java",
        major is not None and OLDEST_JAVA <= major <= NEWEST_JAVA,
        found,
        f"Spark 4.0 runs on Java {OLDEST_JAVA} to {NEWEST_JAVA}: install a Java 17 (or 21) runtime, or point JAVA_HOME at one",
    )


def bounds() -> list[Requirement]:
    """Return what this project needs installed, with the bounds of its own package metadata; extras are left out.

    Raises:
        PackageNotFoundError: the project runs from a folder in which it is not installed.
    """
    every = [Requirement(text) for text in requires(DISTRIBUTION) or []]
    return [requirement for requirement in every if requirement.marker is None or requirement.marker.evaluate()]


def check_packages(installed: Callable[[str], str] = version) -> list[Check]:
    """Check every package that the project needs against the project's bounds.

    Args:
        installed: returns a package's version or raises :class:`PackageNotFoundError`.
    """
    try:
        needed = bounds()
    except PackageNotFoundError:
        return [Check(DISTRIBUTION, False, "not installed", f"its bounds cannot be read: {REINSTALL}")]
    checks = []
    for requirement in needed:
        mend = f"needed is {requirement}; {REINSTALL}"
        try:
            found = installed(requirement.name)
        except PackageNotFoundError:
            checks.append(Check(requirement.name, False, "not installed", mend))
            continue
        ok = requirement.specifier.contains(found, prereleases=True)
        checks.append(Check(requirement.name, ok, found, mend))
    return checks


def check_worker_python() -> Check:
    """The Python that Spark's workers run: this one, unless ``PYSPARK_PYTHON`` names another."""
    name = "PYSPARK_PYTHON"
    chosen = os.environ.get(name)
    if not chosen:
        return Check(name, True, "not set: workers run this Python")
    mend = f"unset {name}, or point it at a Python {sys.version_info[0]}.{sys.version_info[1]} with the same packages"
    program = shutil.which(chosen)
    if program is None:
        return Check(name, False, f"{chosen} is not a program on this machine", mend)
    answer = subprocess.run([program, "-c", LOOK], capture_output=True, text=True, check=False)
    major, minor, *has_packages = answer.stdout.split() or ["?", "?"]
    is_same = (major, minor) == tuple(map(str, sys.version_info[:2]))
    missing = "" if has_packages == ["1"] else ", without pyspark or torch"
    return Check(name, is_same and not missing, f"{program}: Python {major}.{minor}{missing}", mend)


def check_spark_home() -> Check:
    """The Spark whose JVM is started: the installed pyspark's, unless ``SPARK_HOME`` names another."""
    name = "SPARK_HOME"
    home = os.environ.get(name)
    if not home:
        return Check(name, True, "not set: the installed pyspark's Spark is used")
    wanted = version("pyspark")
    prefix = "spark-core_2.13-"
    versions = [jar.stem.removeprefix(prefix) for jar in sorted(Path(home, "jars").glob(f"{prefix}*.jar"))]
    found = f"{home} holds " + (f"Spark {', '.join(versions)}" if versions else "no Spark for Scala 2.13")
    return Check(name, versions == [wanted], found, f"unset {name}, or point it at a Spark {wanted}")


def check_working_folder(folder: str = ".") -> Check:
    """Packages in the working folder that Spark's workers would import in the place of this project's."""
    here = Path(folder).resolve()
    foreign = [
        path.name
        for name in OWN_PACKAGES
        for path in (here / name, here / f"{name}.py")
        if path.exists() and path != ROOT / name
    ]
    return Check(
        "folder",
        not foreign,
        f"{here}" + (f" holds {', '.join(foreign)}, which Python imports before this project's" if foreign else ""),
        "start dr in another folder",
    )
