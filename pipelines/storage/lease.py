"""One run at a time in a work folder."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dr_core.errors import InputError, TryAgain
from pipelines.storage.workdir import Workdir

logger = logging.getLogger(__name__)


LEASE_SECONDS = 3600.0


@contextmanager
def lease(workdir: Workdir, kind: str) -> Iterator[None]:
    """Hold a work folder for one kind of run.

    It is renewed while it is held. A lease that has expired, or whose process on this host is gone, is taken over.

    Raises:
        TryAgain: another live run of this kind holds the folder.
    """
    name = f"{kind}.lease"
    mine = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "token": uuid.uuid4().hex,
        "until": time.time() + LEASE_SECONDS,
    }
    if workdir.exists("runs", name):
        try:
            held = json.loads(workdir.read_text("runs", name))
        except ValueError as error:
            raise InputError(f"{workdir.path('runs', name)} is not readable; remove it if no run is active") from error
        if not _is_free(held):
            raise TryAgain(
                f"{workdir.uri} is in use by process {held['pid']} on {held['host']} ({kind}); wait for it, or remove"
                f" {workdir.path('runs', name)} if that process is gone"
            )
    workdir.write_text(json.dumps(mine), "runs", name)
    ended = threading.Event()
    renewal = threading.Thread(target=_renew, args=(workdir, name, mine, ended), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        ended.set()
        renewal.join()
        if workdir.exists("runs", name) and json.loads(workdir.read_text("runs", name))["token"] == mine["token"]:
            workdir.filesystem.rm(workdir.path("runs", name))


def _renew(workdir: Workdir, name: str, mine: dict[str, Any], ended: threading.Event) -> None:
    """Put off a lease's end for as long as its holder works and nobody has taken it over."""
    while not ended.wait(LEASE_SECONDS / 4):
        try:
            if json.loads(workdir.read_text("runs", name))["token"] != mine["token"]:
                logger.warning("the lease %s was taken over by another run", workdir.path("runs", name))
                return
            workdir.write_text(json.dumps(mine | {"until": time.time() + LEASE_SECONDS}), "runs", name)
        except (OSError, InputError, ValueError) as error:
            logger.warning("the lease %s could not be renewed: %s", workdir.path("runs", name), error)


def _is_free(held: dict[str, Any]) -> bool:
    if held["until"] < time.time():
        return True
    if held["host"] != socket.gethostname():
        return False
    try:
        os.kill(int(held["pid"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return int(held["pid"]) == os.getpid()
