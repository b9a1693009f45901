"""What a log or catalogue was when it was read, so that a changed one is told from the same one."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from dr_core.errors import InputError

HASHED_BYTES = 1 << 30
"""Local files of together up to so many bytes are told apart by their contents, others by size and time."""
_TAGS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "updated", "mtime", "modified", "created")
_TIMES = _TAGS[3:]
_NAMED = 3


@dataclass(frozen=True)
class FileState:
    """One file: size in bytes, what the file system says changes with it (an ETag, else a time), sha256 of its contents."""

    size: int
    tag: str
    sha256: str | None = None

    def is_same(self, other: FileState) -> bool:
        """Tell whether two states are of the same contents; a time counts only where one of them was not hashed."""
        if self.size != other.size:
            return False
        if self.sha256 and other.sha256:
            return self.sha256 == other.sha256
        return self.tag == other.tag


@dataclass(frozen=True)
class Fingerprint:
    """The files of a log or catalogue, by their names below its path.

    Of a Delta table the one file is the newest commit that changed its data.
    """

    files: dict[str, FileState]
    newest: str | None = None
    """Time of the newest file (ISO), where the file system tells."""

    @property
    def text(self) -> str:
        """A short form: ``3 files, 12.4 MB, newest 2024-05-02T10:00:00Z``."""
        newest = f", newest {self.newest}" if self.newest else ""
        commits = [name for name in self.files if name.startswith("_delta_log/")]
        if commits:
            return f"Delta table, version {int(commits[0].removeprefix('_delta_log/').split('.')[0])}{newest}"
        size, number = sum(state.size for state in self.files.values()), len(self.files)
        return f"{number:,} file{'s' * (number != 1)}, {_readable(size)}{newest}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for a record."""
        return {"text": self.text, "newest": self.newest, "files": {k: asdict(v) for k, v in self.files.items()}}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Fingerprint:
        """Return what :meth:`as_dict` wrote."""
        return cls({name: FileState(**state) for name, state in document["files"].items()}, document["newest"])


def is_there(path: str) -> bool:
    """Tell whether a path, or one that its ``*`` stands for, exists."""
    filesystem, root = _open(path)
    return bool(_places(filesystem, root))


def fingerprint(path: str) -> Fingerprint | None:
    """Return the fingerprint of a file, a folder of files, a Delta table or the files that a ``*`` stands for.

    Folders are listed once. Files that Spark would not read (names that begin with a dot or an underscore) do not count.

    Args:
        path: a URI; None is returned when nothing is there.
    """
    filesystem, root = _open(path)
    if filesystem.exists(f"{root}/_delta_log"):
        return _of_delta(filesystem, root)
    entries = _list(filesystem, root)
    files = {name: _state(entry) for name, entry in entries.items()}
    if isinstance(filesystem, LocalFileSystem) and sum(state.size for state in files.values()) <= HASHED_BYTES:
        files = {name: replace(state, sha256=_sha256(entries[name]["name"])) for name, state in files.items()}
    return Fingerprint(dict(sorted(files.items())), _newest(entries.values())) if files else None


def difference(before: Fingerprint, now: Fingerprint) -> str | None:
    """Return in words how a log has changed; None when it has not."""
    kinds = {
        "changed": [n for n in before.files if n in now.files and not now.files[n].is_same(before.files[n])],
        "gone": [name for name in before.files if name not in now.files],
        "new": [name for name in now.files if name not in before.files],
    }
    if not any(kinds.values()):
        return None
    words = "; ".join(f"{kind}: {_some(names)}" for kind, names in kinds.items() if names)
    return f"{before.text} -> {now.text} ({words})"


def difference_of_part(before: Fingerprint, now: Fingerprint, path: str) -> str | None:
    """Return in words how what a log held before has changed; None when it has not, whatever was added to it.

    Added are new files, rows at the end of a local file, and commits of a Delta table that only append.

    Args:
        before, now: fingerprints of the same path.
        path: the log's URI.
    """
    filesystem, root = _open(path)
    base = _base(filesystem, root)
    if any(name.startswith("_delta_log/") for name in before.files):
        return None if _only_appended(filesystem, root, before.files) else difference(before, now)
    files = {name: state for name, state in now.files.items() if name in before.files}
    for name, state in before.files.items():
        if name in files and _begins_with(filesystem, f"{base}/{name}", state):
            files[name] = state
    return difference(before, replace(now, files=files))


def _open(path: str) -> tuple[Any, str]:
    filesystem, root = fsspec.core.url_to_fs(path)
    filesystem.invalidate_cache()
    return filesystem, root.rstrip("/")


def _places(filesystem: Any, root: str) -> list[str]:
    """Return a path as it stands, where it exists, or what its ``*`` stands for; other characters mean themselves."""
    if filesystem.exists(root):
        return [root]
    return list(filesystem.glob(re.sub(r"([\[?])", r"[\1]", root))) if "*" in root else []


def _base(filesystem: Any, root: str) -> str:
    """Return the folder that names are below: the path itself, or that of a file or of the part before a ``*``."""
    if filesystem.exists(root):
        return root if filesystem.isdir(root) else root.rpartition("/")[0]
    return root.partition("*")[0].rpartition("/")[0]


def _list(filesystem: Any, root: str) -> dict[str, dict[str, Any]]:
    """Return what the file system says of every file, by its name below the base."""
    found: dict[str, dict[str, Any]] = {}
    for place in _places(filesystem, root):
        if isinstance(filesystem, LocalFileSystem):
            found |= {name: {"name": name, **_stat(name)} for name in _walk(place)}
        else:
            found |= filesystem.find(place, detail=True)
    base = _base(filesystem, root)
    names = {name: name.removeprefix(base).lstrip("/") for name in found}
    return {names[name]: {**entry, "name": name} for name, entry in found.items() if _is_read(names[name])}


def _walk(root: str) -> list[str]:
    if os.path.isfile(root):
        return [root]
    return [os.path.join(place, name) for place, _, names in os.walk(root, followlinks=True) for name in names]


def _stat(path: str) -> dict[str, Any]:
    stat = os.stat(path)
    return {"size": stat.st_size, "mtime": stat.st_mtime}


def _is_read(name: str) -> bool:
    return not any(part.startswith(".") or (part.startswith("_") and "=" not in part) for part in name.split("/"))


def _state(entry: dict[str, Any]) -> FileState:
    tag = next((entry[key] for key in _TAGS if entry.get(key) is not None), "")
    return FileState(int(entry["size"] or 0), (_iso(tag, "microseconds") or str(tag)).strip('"'))


def _newest(entries: Iterable[dict[str, Any]]) -> str | None:
    times = (next((entry[key] for key in _TIMES if entry.get(key) is not None), None) for entry in entries)
    return max((text for text in (_iso(time, "seconds") for time in times) if text), default=None)


def _iso(moment: Any, unit: str) -> str | None:
    if isinstance(moment, int | float):
        moment = datetime.fromtimestamp(moment, UTC)
    if not isinstance(moment, datetime):
        return None
    utc = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return f"{utc.replace(tzinfo=None).isoformat(timespec=unit)}Z"


def _sha256(path: str, size: int | None = None) -> str:
    """Return the sha256 of a local file, or of its first bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20 if size is None else min(1 << 20, size)):
            digest.update(block)
            size = None if size is None else size - len(block)
    return digest.hexdigest()


def _begins_with(filesystem: Any, path: str, state: FileState) -> bool:
    """Tell whether a local file begins with what it held before."""
    if not isinstance(filesystem, LocalFileSystem) or state.sha256 is None:
        return False
    return _sha256(path, state.size) == state.sha256


def _of_delta(filesystem: Any, root: str) -> Fingerprint:
    commits = _commits(filesystem, root)
    if not commits:
        raise InputError(f"{root}/_delta_log holds no commit: the table is torn; restore it")
    changed = (name for name in reversed(commits) if _changes_data(filesystem, f"{root}/{name}"))
    name = next(changed, commits[0])
    entry = filesystem.info(f"{root}/{name}")
    return Fingerprint({name: _commit_state(filesystem, f"{root}/{name}")}, _newest([entry]))


def _commit_state(filesystem: Any, commit: str) -> FileState:
    text = filesystem.cat_file(commit)
    return FileState(len(text), "", hashlib.sha256(text).hexdigest())


def _commits(filesystem: Any, root: str) -> list[str]:
    names = (str(path).rsplit("/", 1)[-1] for path in filesystem.ls(f"{root}/_delta_log", detail=False))
    return sorted(f"_delta_log/{name}" for name in names if name.endswith(".json") and name[:-5].isdigit())


def _changes_data(filesystem: Any, commit: str) -> bool:
    """Tell whether a commit changed rows or columns: compaction and VACUUM write commits that do not."""
    return any(
        "metaData" in action or (action.get("add") or action.get("remove") or {}).get("dataChange", False)
        for action in _actions(filesystem, commit)
    )


def _only_appended(filesystem: Any, root: str, before: dict[str, FileState]) -> bool:
    """Tell whether a table is what it was but for commits that only added rows."""
    ((known, state),) = before.items()
    commits = _commits(filesystem, root)
    if known not in commits or not _commit_state(filesystem, f"{root}/{known}").is_same(state):
        return False
    return not any(
        "metaData" in action or action.get("remove", {}).get("dataChange", False)
        for commit in commits
        if commit > known
        for action in _actions(filesystem, f"{root}/{commit}")
    )


def _actions(filesystem: Any, commit: str) -> Iterable[dict[str, Any]]:
    return (json.loads(line) for line in filesystem.cat_file(commit).splitlines() if line.strip())


def _readable(size: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
