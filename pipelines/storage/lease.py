"""One run at a time in a work folder.

A lease is a file ``runs/<kind>.lease``, then ``<kind>.1.lease``, ``<kind>.2.lease`` and so on: whoever creates the next
one, which only one process or thread can, holds the folder. Taking over an expired lease is creating the next. The
newest file stays when it is given back, so that the numbers only grow.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from dr_core.errors import InputError, TryAgain
from pipelines.storage.workdir import Workdir

logger = logging.getLogger(__name__)
LEASE_SECONDS = 3600.0
SETTLE_SECONDS = 1.0
"""Time that two creators of one file are given to see each other, on remote file systems: not all of them refuse the
second one."""
READ_SECONDS = 1.0
"""Time in which a lease that was just created gets its contents."""
PROCESS = uuid.uuid4().hex
"""Tells this process from an earlier one of the same number, as every first process of a container is."""


class Lease:
    """A work folder held by one run.

    Args:
        workdir: W.
        kind: of run.
        number: of the lease file.
    """

    def __init__(self, workdir: Workdir, kind: str, number: int) -> None:
        self.workdir, self.kind, self.number = workdir, kind, number
        self.token = uuid.uuid4().hex

    @property
    def name(self) -> str:
        """Name of the file in ``runs``."""
        return _name(self.kind, self.number)

    def check(self) -> None:
        """Go on only while the folder is held.

        Raises:
            TryAgain: another run has taken the folder over, or the lease was removed.
        """
        newest = _newest(self.workdir, self.kind)
        if newest != self.number or _read(self.workdir, self.name).get("token") != self.token:
            raise TryAgain(
                f"{self.workdir.path('runs', self.name)} was taken over or removed: this run holds {self.workdir.uri} no"
                " longer and stops before its next write; the same command goes on where it stopped"
            )

    def create(self) -> bool:
        """Create the file unless it is there; tell whether this process did, and holds the newest."""
        path = self.workdir.path("runs", self.name)
        self.workdir.filesystem.makedirs(self.workdir.path("runs"), exist_ok=True)
        try:
            if self.workdir.is_local:
                with open(path, "xb") as file:
                    file.write(self._contents(LEASE_SECONDS))
            else:
                self.workdir.filesystem.pipe_file(path, self._contents(LEASE_SECONDS), mode="create")
                time.sleep(SETTLE_SECONDS)
        except FileExistsError:
            return False
        try:
            self.check()
        except TryAgain:
            if _read(self.workdir, self.name).get("token") == self.token:
                with suppress(FileNotFoundError):
                    self.workdir.filesystem.rm(path)
            return False
        return True

    def renew(self, seconds: float) -> None:
        """Let the lease end in so many seconds."""
        self.check()
        self.workdir.replace(self._contents(seconds), "runs", self.name)

    def _contents(self, seconds: float) -> bytes:
        document = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process": PROCESS,
            "token": self.token,
            "until": time.time() + seconds,
        }
        return json.dumps(document).encode()


@contextmanager
def lease(workdir: Workdir, kind: str) -> Iterator[Lease]:
    """Hold a work folder for one kind of run; ``workdir`` refuses to write once the lease is lost.

    It is renewed while it is held. A lease that has expired, or whose process on this host is gone, is taken over. The
    same process does not get it twice.

    Raises:
        TryAgain: another live run of this kind holds the folder.
        InputError: the lease file cannot be read.
    """
    held = _acquire(workdir, kind)
    ended = threading.Event()
    renewal = threading.Thread(target=_renew, args=(held, ended), daemon=True)
    renewal.start()
    before, workdir.check_lease = workdir.check_lease, held.check
    try:
        yield held
    finally:
        workdir.check_lease = before
        ended.set()
        renewal.join()
        with suppress(TryAgain):
            held.renew(0.0)


def _acquire(workdir: Workdir, kind: str) -> Lease:
    while True:
        newest = _newest(workdir, kind)
        if newest is not None:
            _refuse_held(workdir, kind, newest)
        mine = Lease(workdir, kind, 0 if newest is None else newest + 1)
        if mine.create():
            for number in _numbers(workdir, kind):
                if number < mine.number:
                    with suppress(FileNotFoundError):
                        workdir.filesystem.rm(workdir.path("runs", _name(kind, number)))
            return mine


def _refuse_held(workdir: Workdir, kind: str, number: int) -> None:
    name = _name(kind, number)
    held = _read(workdir, name)
    if held and not _is_free(held):
        raise TryAgain(
            f"{workdir.uri} is in use by process {held['pid']} on {held['host']} ({kind}); wait for it, or remove"
            f" {workdir.path('runs', name)} if that process is gone"
        )


def _name(kind: str, number: int) -> str:
    return f"{kind}.{number}.lease" if number else f"{kind}.lease"


def _numbers(workdir: Workdir, kind: str) -> list[int]:
    workdir.filesystem.invalidate_cache()
    found = (re.fullmatch(rf"{re.escape(kind)}(?:\.(\d+))?\.lease", name) for name in workdir.names("runs"))
    return sorted(int(match[1] or 0) for match in found if match)


def _newest(workdir: Workdir, kind: str) -> int | None:
    numbers = _numbers(workdir, kind)
    return numbers[-1] if numbers else None


def _read(workdir: Workdir, name: str) -> dict[str, Any]:
    """Return a lease's contents; nothing when it is there no longer.

    Raises:
        InputError: it cannot be read, also a little later.
    """
    path, deadline = workdir.path("runs", name), time.monotonic() + READ_SECONDS
    while True:
        try:
            return dict(json.loads(workdir.filesystem.cat_file(path)))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            if time.monotonic() > deadline:
                raise InputError(f"{path} is not readable; remove it if no run is active") from error
            time.sleep(0.05)


def _renew(held: Lease, ended: threading.Event) -> None:
    """Put off a lease's end for as long as its holder works and nobody has taken it over."""
    while not ended.wait(LEASE_SECONDS / 4):
        try:
            held.renew(LEASE_SECONDS)
        except TryAgain as error:
            logger.warning("%s", error)
            return
        except (OSError, InputError) as error:
            logger.warning("the lease %s could not be renewed: %s", held.name, error)


def _is_free(held: dict[str, Any]) -> bool:
    if held["until"] < time.time():
        return True
    if held["host"] != socket.gethostname():
        return False
    if held["pid"] == os.getpid():
        return held.get("process") != PROCESS
    try:
        os.kill(int(held["pid"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
