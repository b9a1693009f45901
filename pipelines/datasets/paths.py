"""What a path of a log or a catalogue names: the files that are read, and what kind of folder they lie in."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import fsspec

from dr_core.errors import InputError

_GLOB = re.compile(r"([\[\]{}?*\\])")
_HIDDEN = ("_", ".")


@dataclass(frozen=True)
class File:
    """One file, with its size in bytes."""

    uri: str
    size: int

    @property
    def name(self) -> str:
        """Return the last part of the URI."""
        return self.uri.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Source:
    """What a path names.

    Attributes:
        path: as the user wrote it.
        what: ``log`` or ``catalogue``, for messages.
        files: files in the order of their names, without hidden and empty ones; none for a Delta table.
        root: its URI as Spark is given it; of a pattern none.
        is_folder: whether the path is one folder.
        is_delta: whether that folder is a Delta table.
        filesystem: of fsspec.
    """

    path: str
    what: str
    files: tuple[File, ...]
    root: str | None
    is_folder: bool
    is_delta: bool
    filesystem: Any

    @property
    def num_bytes(self) -> int:
        """Return the size of all files."""
        return sum(file.size for file in self.files)

    def short_name(self, file: File) -> str:
        """Return a file's name as messages show it: below the folder, or the path itself."""
        return file.uri.removeprefix(f"{self.root}/") if self.is_folder else file.uri

    @property
    def folder_columns(self) -> list[str]:
        """Return the names of the columns that folders called ``name=value`` give to all files below them.

        Raises:
            InputError: not all files lie in such folders.
        """
        found = {file: [part.split("=", 1)[0] for part in self._folders(file) if "=" in part] for file in self.files}
        names = next(iter(found.values()), [])
        other = next((file for file, columns in found.items() if columns != names), None)
        if other:
            raise InputError(
                f"the {self.what} {self.path}: {self.short_name(other)} does not lie in folders of {', '.join(names)} as"
                f" {self.short_name(self.files[0])} does, or in further ones: name one kind of folders alone"
            )
        return names

    def for_spark(self, files: Sequence[File]) -> list[str]:
        """Return what Spark is to read: the folder as such when all of its files are read alike, else every file."""
        are_flat = all("=" in part for file in files for part in self._folders(file))
        num_files = sum(file.size > 0 for file in self.files)
        if self.is_folder and self.root and are_flat and len(files) == num_files:
            return [literal(self.root)]
        return [literal(file.uri) for file in files]

    def _folders(self, file: File) -> list[str]:
        return self.short_name(file).split("/")[:-1] if self.is_folder else []


def literal(uri: str) -> str:
    """Return a URI as Spark must be given it, which takes every path for a pattern."""
    return _GLOB.sub(r"\\\1", uri)


def open_filesystem(path: str) -> tuple[Any, str]:
    """Return the file system of a URI and the path in it.

    Raises:
        InputError: of a web page, or of a scheme that nothing installed reads.
    """
    scheme = path.split("://", 1)[0].lower() if "://" in path else ""
    if scheme in ("http", "https", "ftp"):
        raise InputError(f"{path} is a web address: download it first, and name the file")
    try:
        filesystem, root = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise InputError(f"{path} cannot be opened: {' '.join(str(error).split())}") from error
    return filesystem, str(root)


def find_source(path: str, what: str) -> Source:
    """Return the files that a path names: a file, a folder, or what a pattern with ``*`` matches.

    A path is taken as it stands, whatever characters it holds; only a ``*`` that is not part of an existing name is a
    pattern.

    Raises:
        InputError: nothing is there, or what is there is (part of) a table of another kind.
    """
    filesystem, root = open_filesystem(path)
    root = root.rstrip("/") or "/"
    if filesystem.exists(root):
        _refuse_inside_a_table(filesystem, root, path, what)
        if not filesystem.isdir(root):
            entries = {root: filesystem.info(root)}
            files = _files(filesystem, path, root, entries)
            return Source(path, what, files, files[0].uri, False, False, filesystem)
        folder = _uri(filesystem, path, root, root)
        if "_delta_log" in _names(filesystem, root):
            return Source(path, what, (), folder, True, True, filesystem)
        entries = _below(filesystem, root, path, what)
        return Source(path, what, _files(filesystem, path, root, entries), folder, True, False, filesystem)
    if "*" not in path:
        raise InputError(f"the {what} {path} does not exist")
    pattern = re.sub(r"([\[?])", r"[\1]", root)
    entries = {}
    for name, info in filesystem.glob(pattern, detail=True).items():
        _refuse_inside_a_table(filesystem, name, path, what)
        if filesystem.isdir(name):
            entries |= _below(filesystem, str(name), path, what)
        else:
            entries[str(name)] = info
    files = _files(filesystem, path, root, entries)
    if not files:
        raise InputError(f"the {what} {path} matches no file")
    return Source(path, what, files, None, False, False, filesystem)


def _names(filesystem: Any, folder: str) -> set[str]:
    return {str(name).rstrip("/").rsplit("/", 1)[-1] for name in filesystem.ls(folder, detail=False)}


def _find(filesystem: Any, folder: str, above: tuple[str, ...]) -> dict[str, Any]:
    """Return all files below a folder, also where links lead to folders.

    Raises:
        InputError: a link leads nowhere, or back to a folder that it lies in.
    """
    found: dict[str, Any] = {}
    for name, info in filesystem.find(folder, detail=True).items():
        target = os.path.realpath(name)
        if not info.get("islink"):
            found[str(name)] = info
        elif not filesystem.exists(name) or target in above:
            raise InputError(
                f"{name} is a link to {'a folder that it lies in' if target in above else 'nothing'}: remove it"
            )
        else:
            found |= _find(filesystem, str(name), (*above, target)) if filesystem.isdir(name) else {str(name): info}
    return found


def _below(filesystem: Any, folder: str, path: str, what: str) -> dict[str, Any]:
    """Return the files below a folder that a reader should see, refusing tables of other kinds."""
    found = _find(filesystem, folder, (os.path.realpath(folder),))
    shown = {}
    for name, info in found.items():
        parts = name.removeprefix(folder).strip("/").split("/")
        at = "/".join([folder, *parts[:-2]])
        if "_delta_log" in parts:
            table = folder + "/" + "/".join(parts[: parts.index("_delta_log")])
            raise InputError(f"the {what} {path} holds a Delta table, {table.rstrip('/')}: name that folder")
        if ".hoodie" in parts:
            raise InputError(f"the {what} {path} is a Hudi table, which cannot be read: export it to Parquet or Delta")
        if parts[-1].endswith(".metadata.json") and parts[-2:-1] == ["metadata"]:
            raise InputError(f"the {what} {path} is an Iceberg table ({at}): export it to Parquet or Delta")
        if not any(part.startswith(_HIDDEN) and "=" not in part for part in parts):
            shown[name] = info
    if not found:
        raise InputError(f"the folder {path} is empty")
    if not shown:
        raise InputError(f"the folder {path} holds hidden files only (names that begin with _ or a dot)")
    return shown


def _refuse_inside_a_table(filesystem: Any, root: str, path: str, what: str) -> None:
    """Refuse a part of a table: its files alone say neither which rows are gone nor what they mean."""
    folder = root
    while "/" in folder.strip("/"):
        folder = folder.rsplit("/", 1)[0]
        for marker, kind in (("_delta_log", "Delta"), (".hoodie", "Hudi")):
            if folder and filesystem.isdir(f"{folder}/{marker}"):
                raise InputError(f"the {what} {path} is a part of the {kind} table {folder}: name the table itself")


def _files(filesystem: Any, path: str, root: str, entries: dict[str, Any]) -> tuple[File, ...]:
    """Return files in the order of their names; refuse names that Spark cannot open."""
    is_local = filesystem.protocol in ("file", ("file", "local"))
    files = []
    for name, info in sorted(entries.items()):
        uri = _uri(filesystem, path, root, name)
        if is_local and ":" in name.rsplit("/", 1)[-1]:
            raise InputError(f"{uri}: Spark reads no local file whose name holds a colon: rename it")
        files.append(File(uri, int(info.get("size") or 0)))
    return tuple(files)


def _uri(filesystem: Any, path: str, root: str, name: str) -> str:
    """Return a name of a file system with the scheme and host of the path that the user wrote; a plain path stays plain."""
    if "://" in name:
        return name
    whole = path.rstrip("/")
    if whole.endswith(root):
        return whole.removesuffix(root) + name
    return name if "://" not in path else str(filesystem.unstrip_protocol(name))
