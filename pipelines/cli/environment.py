"""Whether Python, Java, the installed packages and the variables of the environment are those that a run needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from dr_core.errors import ConfigError
from dr_start import HOME, OWN
from pipelines.cli.check import Check
from pipelines.spark.environment import (
    INSTALL_JAVA,
    home_folder,
    ivy_folder,
    java_version,
    require_cluster_python,
    require_java,
    require_user,
    settings_from_outside,
    spark_versions,
)

DISTRIBUTION = "deep-retrieval"
REINSTALL = "`make install` installs what constraints.txt pins"


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
    try:
        found = java_version()
        require_java()
    except ConfigError as error:
        return Check("java", False, str(error).partition(":")[0], INSTALL_JAVA)
    return Check("java", True, found)


def check_user() -> Check:
    """A user whom the system knows, with a home that Spark can keep its JARs in or another folder for them."""
    try:
        require_user()
    except ConfigError as error:
        return Check("user", False, str(error).partition(":")[0], "add one, or start as a user that the system has")
    home = home_folder()
    return Check("user", True, f"home {home}" if home else f"no home that can be written; JARs go to {ivy_folder()}")


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


def check_worker_python(master: str = "local") -> Check:
    """The Python that Spark's workers run: on this machine this one, whatever ``PYSPARK_PYTHON`` says."""
    name = "PYSPARK_PYTHON"
    chosen = os.environ.get(name)
    if master.startswith("local"):
        return Check(name, True, f"{chosen}, left aside: workers run this Python" if chosen else "not set")
    try:
        require_cluster_python()
    except ConfigError as error:
        return Check(name, False, str(error).partition(":")[0], "unset it, or point it at the same Python everywhere")
    return Check(name, True, chosen or "not set: workers run this Python")


def check_spark_home(master: str = "local") -> Check:
    """The Spark whose JVM is started: the installed pyspark's, unless ``SPARK_HOME`` names one of the same version."""
    name = "SPARK_HOME"
    home, wanted = os.environ.get(name), f"{version('pyspark')} (Scala 2.13)"
    if not home:
        return Check(name, True, "not set: the installed pyspark's Spark is used")
    versions = spark_versions(home)
    found = f"{home} holds {', '.join(versions) or 'no Spark'}"
    is_used = versions == [wanted]
    if master.startswith("local") and not is_used:
        return Check(name, True, f"{found}, left aside: the installed Spark {wanted} is used")
    return Check(name, is_used, found, f"unset {name}, or point it at a Spark {wanted}")


def check_settings_from_outside() -> Check:
    """Variables and files that add settings to a JVM's; it starts with them, so this only says what they are."""
    return Check("settings", True, settings_from_outside() or "none but this project's own")


def check_working_folder(folder: str = ".") -> Check:
    """Packages in the working folder that have the names of this project's: ``dr`` and Spark's workers pass them by."""
    here = Path(folder).resolve()
    foreign = [
        path.name
        for name in OWN
        for path in (here / name, here / f"{name}.py")
        if path.exists() and path != Path(HOME, name)
    ]
    names = ", ".join(foreign)
    return Check("folder", True, f"{here}" + (f" holds {names}: run `python -m jobs.…` in another" if foreign else ""))
