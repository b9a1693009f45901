"""Where ``dr`` and the jobs start: with this project's own packages, or with one line that says what is in their way.

Python looks into PYTHONPATH and, for ``python -m``, into the working folder before it looks at what is installed. This module
needs the standard library alone, so that it can speak whatever it meets there. Importing it ends the program with exit code
2 if the project cannot start.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version

OWN = ("dr_core", "pipelines", "jobs")
NEEDED = ("numpy", "pydantic", "pyspark", "torch", "typer")
"""Packages without which not even an error could be shown."""
HOME = os.path.dirname(os.path.realpath(__file__))
"""Folder that holds the project's packages."""
HOW_TO_INSTALL = "run this project's .venv/bin/python (`make install` makes it)"


def obstacle() -> str | None:
    """Return why the project cannot start in this process, or None."""
    if sys.version_info[:2] != (3, 11):
        found = ".".join(map(str, sys.version_info[:2]))
        return f"{sys.executable} is Python {found}, this project runs on Python 3.11: {HOW_TO_INSTALL}"
    for name in OWN:
        folder = package_folder(name)
        if folder not in (None, os.path.join(HOME, name)):
            return (
                f"Python finds another {name} in {os.path.dirname(str(folder))} before this project's in {HOME}: start in"
                " another folder, or take that one out of PYTHONPATH"
            )
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        return f"{sys.executable} has no {', '.join(missing)}: {HOW_TO_INSTALL}"
    return other_pyspark()


def package_folder(name: str) -> str | None:
    """Return the folder of the package that ``import name`` would load, or where it would find a module of that name."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return os.path.realpath(next(iter(spec.submodule_search_locations)))
    return os.path.realpath(str(spec.origin))


def other_pyspark() -> str | None:
    """Return what is wrong if a pyspark other than the installed one comes first: spark-submit puts its own there."""
    folder = package_folder("pyspark") or ""
    try:
        with open(os.path.join(folder, "version.py")) as file:
            found = re.search(r'__version__[^=]*= *["\']([^"\']+)', file.read())
        wanted = version("pyspark")
    except (OSError, PackageNotFoundError):
        return None
    if found is None or found[1] == wanted:
        return None
    return (
        f"Python finds pyspark {found[1]} in {folder}, installed is {wanted}: unset SPARK_HOME"
        f" (now {os.environ.get('SPARK_HOME') or 'not set'}), or point it at a Spark {wanted}; and look at PYTHONPATH"
    )


def settle_caches() -> None:
    """Give what keeps compiled code and fonts a folder, for a user without a home that can be written."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~")
    if os.path.isdir(home) and os.access(home, os.W_OK | os.X_OK):
        return
    for name in ("NUMBA_CACHE_DIR", "MPLCONFIGDIR"):
        os.environ.setdefault(name, os.path.join(tempfile.gettempdir(), f"deep-retrieval-cache-{os.getuid()}"))


def main() -> int:
    """Run ``dr`` and return its exit code."""
    from pipelines.cli.main import main as dr

    return dr()


_obstacle = obstacle()
if _obstacle is not None:
    print(f"{os.path.basename(sys.argv[0]).removesuffix('.py') or 'dr'}: {_obstacle}", file=sys.stderr)
    sys.exit(2)
settle_caches()
