"""What a process finds around it before it starts Spark: set right where the product can, else refused in one line.

Nothing here needs pyspark: :mod:`pipelines.spark.submit` looks at the same things before spark-submit starts a JVM.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from dr_core.errors import ConfigError

logger = logging.getLogger(__name__)
OLDEST_JAVA, NEWEST_JAVA = 17, 21
"""What Spark 4.0 runs on: Java 24 has lost the security manager that its Hadoop asks for."""
INSTALL_JAVA = "install a Java 17 (or 21) runtime, or point JAVA_HOME at one"
OUTPUT = "DR_SPARK_OUTPUT"
"""Variable that names the file of what the JVM of this process prints."""
SMALLEST_SCRATCH = 256 * 2**20
"""Bytes in each scratch folder, without which no run gets anywhere; ``dr doctor`` asks for more."""
FROM_OUTSIDE = ("PYSPARK_SUBMIT_ARGS", "SPARK_CONF_DIR", "SPARK_HOME", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS")
"""Variables by which others may have set something of the JVM."""


def require_machine() -> None:
    """Refuse a machine on which no JVM of Spark can start.

    Raises:
        ConfigError: the user is in no list of users, the scratch folder is full or missing, or Java is missing, too old or
            too new.
    """
    require_user()
    require_scratch()
    require_java()


def require_user() -> None:
    """Refuse a user whom the system does not know: Hadoop, in Spark's JVM, asks for a name.

    Raises:
        ConfigError: there is no such user.
    """
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        raise ConfigError(
            f"user id {os.getuid()} has no entry in the system's list of users, and Spark needs a name: add one"
            f" (`echo 'dr:x:{os.getuid()}:{os.getgid()}::/tmp:/bin/sh' >> /etc/passwd` in the image), or start the container"
            " as a user that it has"
        ) from None


def scratch_folders() -> list[str]:
    """Return where Spark shuffles and Python puts temporary files.

    Raises:
        ConfigError: there is no folder for temporary files that this user may write.
    """
    try:
        temporary = tempfile.gettempdir()
    except FileNotFoundError as error:
        raise ConfigError(f"{error}: point TMPDIR at a folder that this user may write") from error
    return list(dict.fromkeys([*os.environ.get("SPARK_LOCAL_DIRS", temporary).split(","), temporary]))


def require_scratch(smallest: int = SMALLEST_SCRATCH) -> None:
    """Refuse scratch folders that are missing, that this user may not write, or that are full.

    Args:
        smallest: bytes that must be free.

    Raises:
        ConfigError: naming the folder.
    """
    for folder in scratch_folders():
        mend = "point SPARK_LOCAL_DIRS and TMPDIR at another disk"
        existing = next(place for place in (Path(folder), *Path(folder).absolute().parents) if place.exists())
        if not os.access(existing, os.W_OK | os.X_OK):
            raise ConfigError(f"Spark's scratch folder {folder} cannot be written by this user: {mend}")
        free = shutil.disk_usage(existing).free
        if free < smallest:
            raise ConfigError(
                f"only {free / 2**20:.0f} MiB are free in Spark's scratch folder {folder}, {smallest / 2**20:.0f} MiB are the"
                f" least: free some, or {mend}"
            )


def java_version() -> str:
    """Return the line in which ``java -version`` says what it is.

    Raises:
        ConfigError: there is no Java, or it does not run.
    """
    home = os.environ.get("JAVA_HOME")
    java = os.path.join(home, "bin", "java") if home else "java"
    if shutil.which(java) is None:
        place = f" (JAVA_HOME is {home}, which holds no bin/java)" if home else ""
        raise ConfigError(f"Java was not found{place}: {INSTALL_JAVA}")
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        said = " ".join(answer.stderr.split())[:300]
        raise ConfigError(f"'{java} -version' failed: {said}; {INSTALL_JAVA}")
    return next((line for line in answer.stderr.splitlines() if " version " in line), answer.stderr.strip())


def java_major(version: str) -> int | None:
    """Return 17 of ``openjdk version "17.0.15" 2025-04-15``, 8 of ``java version "1.8.0_392"``; None when it cannot be told."""
    found = re.search(r'version "(?:1\.)?(\d+)', version)
    return int(found[1]) if found else None


def require_java() -> None:
    """Refuse a Java on which Spark does not run.

    Raises:
        ConfigError: there is none, or it is too old or too new.
    """
    major = java_major(java_version())
    if major is not None and not OLDEST_JAVA <= major <= NEWEST_JAVA:
        raise ConfigError(
            f"Java {major} ({os.environ.get('JAVA_HOME') or shutil.which('java')}) is too"
            f" {'old' if major < OLDEST_JAVA else 'new'} for Spark 4.0, which runs on Java {OLDEST_JAVA} to {NEWEST_JAVA}:"
            f" {INSTALL_JAVA}"
        )


def settle_python(master: str) -> None:
    """Choose the Python of Spark's workers: on this machine this one, whatever ``PYSPARK_PYTHON`` says.

    Args:
        master: the session's.

    Raises:
        ConfigError: ``PYSPARK_PYTHON`` names another version of Python for the machines of a cluster.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # The environment variable, not the setting: executors started by local-cluster see only the former.
    if master.startswith("local"):
        os.environ |= dict.fromkeys(("PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON"), sys.executable)
        return
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    require_cluster_python()


def require_cluster_python() -> None:
    """Refuse a ``PYSPARK_PYTHON`` of another version: what the driver sends, such a worker cannot read.

    Raises:
        ConfigError: naming both versions.
    """
    chosen = os.environ.get("PYSPARK_PYTHON", sys.executable)
    program = shutil.which(chosen)
    if program is None:  # it may be there on the executors' machines alone
        return
    look = "import sys; print(*sys.version_info[:2], sep='.')"
    found = subprocess.run([program, "-c", look], capture_output=True, text=True, check=False).stdout.strip()
    wanted = ".".join(map(str, sys.version_info[:2]))
    if found != wanted:
        raise ConfigError(
            f"PYSPARK_PYTHON={chosen} is Python {found or '?'}, the driver runs Python {wanted}: unset it, or point it at a Python"
            f" {wanted} with the same packages, on every machine"
        )


def pyspark_folder() -> str:
    """Return the folder of the pyspark that Python imports, which holds a Spark."""
    spec = importlib.util.find_spec("pyspark")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("pyspark is not installed: `make install` installs it")
    return next(iter(spec.submodule_search_locations))


def spark_versions(home: str) -> list[str]:
    """Return the versions of Spark, with that of Scala, of which a folder holds the JARs: ``4.0.1 (Scala 2.13)``."""
    names = (
        re.fullmatch(r"spark-core_([\d.]+)-(.+)\.jar", jar.name) for jar in sorted(Path(home, "jars").glob("*.jar"))
    )
    return [f"{name[2]} (Scala {name[1]})" for name in names if name]


def settle_spark_home(master: str) -> None:
    """Choose the Spark whose JVM is started: ``SPARK_HOME`` if it is of the installed pyspark's version.

    Args:
        master: the session's. On this machine another ``SPARK_HOME`` is left aside.

    Raises:
        ConfigError: ``SPARK_HOME`` names another version, for a cluster.
    """
    home, wanted = os.environ.get("SPARK_HOME"), f"{version('pyspark')} (Scala 2.13)"
    if not home or spark_versions(home) == [wanted]:
        return
    found = ", ".join(spark_versions(home)) or "no Spark"
    if not master.startswith("local"):
        raise ConfigError(f"SPARK_HOME={home} holds {found}, needed is Spark {wanted}: unset it, or point it at one")
    logger.info("SPARK_HOME=%s holds %s: the installed Spark %s is used", home, found, version("pyspark"))
    os.environ["SPARK_HOME"] = pyspark_folder()


def home_folder() -> Path | None:
    """Return this user's home, in which a JVM keeps what it fetches; None when it cannot be written.

    A JVM looks for its user's home in the system's list of users before it looks at ``HOME``, and so does this.
    """
    try:
        home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None
    return home if home.is_dir() and os.access(home, os.W_OK | os.X_OK) else None


def ivy_folder() -> Path:
    """Return the folder in which Spark keeps the JARs that it fetches."""
    home = home_folder()
    return home / ".ivy2.5.2" if home else Path(tempfile.gettempdir()) / f"deep-retrieval-ivy-{os.getuid()}"


def settings_from_outside() -> str:
    """Return which variables and files other than this project's own say how a JVM starts, as text; nothing if none does."""
    home = os.environ.get("SPARK_HOME") or pyspark_folder()
    defaults = Path(os.environ.get("SPARK_CONF_DIR") or Path(home, "conf"), "spark-defaults.conf")
    named = [f"{name}={os.environ[name]}" for name in FROM_OUTSIDE if os.environ.get(name)]
    if defaults.is_file():
        lines = (line.split("#")[0].split() for line in defaults.read_text(errors="replace").splitlines())
        named.append(f"{defaults} ({', '.join(words[0] for words in lines if words) or 'empty'})")
    return "; ".join(named)
