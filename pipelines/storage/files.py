"""The files of the work folder: small texts, arrays, and folders that are copied as a whole."""

from __future__ import annotations

import hashlib
import io
import os
import uuid
from collections.abc import Callable
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt

from dr_core.errors import InputError
from pipelines.storage import host_cache


def is_local(filesystem: fsspec.AbstractFileSystem) -> bool:
    """Tell whether a file system is this host's own."""
    return filesystem.protocol in ("file", ("file", "local"))


def files_below(filesystem: fsspec.AbstractFileSystem, folder: str, ending: str) -> list[str]:
    """Return the files below a folder whose names end so, in the order of their names; the folder is no pattern."""
    return sorted(str(path) for path in filesystem.find(folder) if str(path).endswith(ending))


class Files:
    """Files below a URI (a plain path, or ``s3://``, ``hdfs://`` … through fsspec), each replaced in one step.

    Attributes:
        filesystem: of fsspec.
        is_local: whether it is this host's own.
        uri: without a slash at its end.
        check_lease: called before every write; raises :class:`TryAgain` when this process holds the folder no longer.
    """

    def __init__(self, uri: str) -> None:
        self.filesystem, self.root = fsspec.core.url_to_fs(uri)
        self.is_local = is_local(self.filesystem)
        self.uri = (self.root if self.is_local else uri).rstrip("/")
        self.check_lease: Callable[[], None] = _not_leased

    def __reduce__(self) -> tuple[type[Files], tuple[str]]:
        """Leave the lease behind: a worker process writes on its driver's behalf."""
        return type(self), (self.uri,)

    def path(self, *parts: str) -> str:
        """Return the URI of something below the folder."""
        return "/".join([self.uri, *parts])

    def exists(self, *parts: str) -> bool:
        """Tell whether a file or folder exists."""
        return bool(self.filesystem.exists(self.path(*parts)))

    def remove(self, *parts: str) -> None:
        """Remove a file, or a folder with all that is in it, where there is one."""
        if self.exists(*parts):
            self.check_lease()
            self.filesystem.rm(self.path(*parts), recursive=True)

    def names(self, *parts: str) -> list[str]:
        """Return the names in a folder, sorted; none where there is no folder."""
        if not self.exists(*parts):
            return []
        found = self.filesystem.ls(self.path(*parts), detail=False)
        return sorted(str(path).rstrip("/").rsplit("/", 1)[-1] for path in found)

    def read_text(self, *parts: str) -> str:
        """Return a small file's text; raise :class:`InputError` when it is missing."""
        try:
            return str(self.filesystem.cat_file(self.path(*parts)).decode())
        except FileNotFoundError as error:
            raise InputError(f"{self.path(*parts)} is missing: run `dr run --workdir {self.uri}` first") from error

    def write_text(self, text: str, *parts: str) -> None:
        """Write a small file so that a reader sees either the old text or the new one."""
        self.check_lease()
        self.replace(text.encode(), *parts)

    def replace(self, blob: bytes, *parts: str) -> str:
        """Write a file in one step, whoever holds the folder, and return its URI."""
        target = self.path(*parts)
        self.filesystem.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
        unfinished = _unfinished(target)
        with self.filesystem.open(unfinished, "wb") as file:
            file.write(blob)
        self.filesystem.mv(unfinished, target)
        return target

    def put_files(self, local_folder: str, *parts: str) -> None:
        """Copy a local folder's files into a folder below this one, each replaced in one step."""
        self.check_lease()
        target = self.path(*parts)
        self.filesystem.makedirs(target, exist_ok=True)
        for name in sorted(os.listdir(local_folder)):
            unfinished = _unfinished(f"{target}/{name}")
            self.filesystem.put_file(os.path.join(local_folder, name), unfinished)
            self.filesystem.mv(unfinished, f"{target}/{name}")

    def local_folder(self, *parts: str) -> str:
        """Return a local path of a folder: itself, or a copy in this user's cache keyed by the remote files' state."""
        source = self.path(*parts)
        if self.is_local:
            return source
        files = sorted(self.filesystem.ls(source, detail=True), key=lambda entry: str(entry["name"]))
        state = repr([(entry["name"], entry["size"], self.filesystem.ukey(entry["name"])) for entry in files])
        folder = host_cache.use(hashlib.sha256(state.encode()).hexdigest())
        for entry in files:
            local = folder / str(entry["name"]).rsplit("/", 1)[-1]
            if not local.exists():
                unfinished = _unfinished(str(local))
                self.filesystem.get_file(entry["name"], unfinished)
                os.replace(unfinished, local)
        host_cache.evict()
        return str(folder)

    def write_array(self, array: npt.NDArray[Any], *parts: str) -> str:
        """Write an ``.npy`` file in one step and return its URI."""
        self.check_lease()
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        return self.replace(buffer.getvalue(), *parts)

    def write_arrays(self, columns: dict[str, npt.NDArray[Any]], *parts: str) -> str:
        """Write several arrays as one ``.npz`` file in one step and return its URI."""
        self.check_lease()
        buffer = io.BytesIO()
        np.savez(buffer, **columns)
        return self.replace(buffer.getvalue(), *parts)

    def read_array(self, *parts: str) -> npt.NDArray[Any]:
        """Read an ``.npy`` file; raise :class:`InputError` when it is missing."""
        array: npt.NDArray[Any] = np.load(io.BytesIO(self._read_bytes(*parts)), allow_pickle=False)
        return array

    def read_arrays(self, *parts: str) -> dict[str, npt.NDArray[Any]]:
        """Read an ``.npz`` file; raise :class:`InputError` when it is missing."""
        with np.load(io.BytesIO(self._read_bytes(*parts)), allow_pickle=False) as file:
            return dict(file)

    def _read_bytes(self, *parts: str) -> bytes:
        try:
            return bytes(self.filesystem.cat_file(self.path(*parts)))
        except FileNotFoundError as error:
            raise InputError(
                f"{self.path(*parts)} is missing: the stage that writes it has not run, or maintenance removed it with"
                f" its release; see `dr releases list --workdir {self.uri}`, or `dr run` anew"
            ) from error


def _not_leased() -> None:
    """Let everybody write: nobody holds the folder."""


def _unfinished(target: str) -> str:
    """Return a name of this write alone, beside the file that it is to become."""
    return f"{target}.{uuid.uuid4().hex[:12]}.tmp"
