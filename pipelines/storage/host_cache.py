"""Copies of remote folders on this host, for files that are mapped into memory.

Only this user can read them. Once they take more than a limit, the ones that were used longest ago go; a folder that a
process has asked for stays until that process ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dr_core.errors import ConfigError, InputError

FOLDER_VARIABLE = "DR_CACHE"
"""Environment variable that names the cache's folder; by default ``deep_retrieval`` in the user's cache folder."""
LIMIT_VARIABLE = "DR_CACHE_GB"
"""Environment variable with the size of the cache, in GB (10^9 bytes)."""
DEFAULT_LIMIT_GB = 20.0
_in_use: dict[Path, BinaryIO] = {}


def cache_root() -> Path:
    """Return the cache's folder, made when it is not there, with access for this user alone.

    Raises:
        InputError: the folder belongs to another user.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = Path(named) if named else home / "deep_retrieval"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if root.stat().st_uid != os.getuid():
        raise InputError(f"the cache {root} belongs to another user: name another folder in {FOLDER_VARIABLE}")
    root.chmod(0o700)
    return root


def use(name: str) -> Path:
    """Return the folder of that name, empty when it is new. It is not evicted while this process lives."""
    root = cache_root()
    folder, lock = root / name, root / f"{name}.lock"
    with _alone(root):
        folder.mkdir(exist_ok=True)
        os.utime(folder)
        if lock not in _in_use:
            file = lock.open("wb")
            fcntl.flock(file, fcntl.LOCK_SH)
            _in_use[lock] = file
    return folder


def evict() -> list[str]:
    """Remove the folders used longest ago, and used by no process, until the rest fits; return their names.

    Raises:
        ConfigError: the limit in the environment is not a number.
    """
    root, limit = cache_root(), _limit()
    removed = []
    with _alone(root):
        folders = sorted((path for path in root.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
        sizes = {folder: sum(file.stat().st_size for file in folder.iterdir()) for folder in folders}
        for folder in folders:
            if sum(sizes.values()) <= limit:
                break
            if _is_in_use(root / f"{folder.name}.lock"):
                continue
            shutil.rmtree(folder)
            (root / f"{folder.name}.lock").unlink(missing_ok=True)
            del sizes[folder]
            removed.append(folder.name)
    return removed


def _limit() -> float:
    text = os.environ.get(LIMIT_VARIABLE, str(DEFAULT_LIMIT_GB))
    try:
        return float(text) * 1e9
    except ValueError as error:
        raise ConfigError(f"{LIMIT_VARIABLE}={text}: a number of GB is allowed") from error


def _is_in_use(lock: Path) -> bool:
    with lock.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Let one process or thread at a time decide who uses which folder."""
    with (root / "cache.lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
