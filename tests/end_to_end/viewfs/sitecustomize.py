"""Gives fsspec the file system that Hadoop calls viewfs, one mount (``$VIEWFS_TARGET`` at ``/w``), in every process."""

import os
from typing import Any

import fsspec
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem


class ViewFileSystem(DirFileSystem):
    """``viewfs:///w/...`` on a folder of this machine, which nothing but this class knows."""

    protocol = "viewfs"

    def __init__(self, **options: Any) -> None:
        super().__init__(path=os.environ["VIEWFS_TARGET"], fs=LocalFileSystem(auto_mkdir=False), **options)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("viewfs://").removeprefix("/w").strip("/")

    def unstrip_protocol(self, name: str) -> str:
        return f"viewfs:///w/{self._strip_protocol(name)}"


fsspec.register_implementation("viewfs", ViewFileSystem)
