"""The record of a run: which stages are done, what they did, and the verdict that Airflow and people read.

``runs/<run_id>.json`` is rewritten in one step after every stage. The same command finds the same record and goes on
after the last finished stage; every stage may safely be run again.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from dr_core.errors import ConfigError, GateRefused, InputError, typed
from dr_core.threads import one_thread
from pipelines.storage.faults import reach
from pipelines.storage.json_text import to_json
from pipelines.storage.workdir import Workdir

logger = logging.getLogger(__name__)
RECORD_VERSION = 2
"""Version of the record's layout. Records without a version are of the first."""
NAME = r"[A-Za-z0-9][\w.-]*"
"""What names a run or a world: part of file names and of conditions on tables."""


class Run:
    """One run in a work folder.

    Args:
        workdir: W.
        run_id: names the record; the same inputs give the same id.
        config_hash: identity of the configuration, recorded.

    Raises:
        ConfigError: the id could not be a file's name.
        InputError: the record is there and cannot be read, or a newer release of this project wrote it.
    """

    def __init__(self, workdir: Workdir, run_id: str, config_hash: str) -> None:
        if not re.fullmatch(NAME, run_id):
            raise ConfigError(
                f"run id {run_id!r} must consist of letters, digits, '.', '_' and '-' and begin with neither"
            )
        self.workdir, self.run_id = workdir, run_id
        self.record: dict[str, Any] = {
            "version": RECORD_VERSION,
            "run_id": run_id,
            "config_hash": config_hash,
            "status": "running",
            "exit_code": None,
            "message": "",
            "stages": [],
        }
        if workdir.exists("runs", f"{run_id}.json"):
            self.record = read_record(workdir, run_id)

    @classmethod
    def load(cls, workdir: Workdir, run_id: str) -> Run:
        """Return a run that has a record.

        Raises:
            InputError: there is no such record, or it cannot be read.
        """
        return cls(workdir, run_id, str(read_record(workdir, run_id).get("config_hash", "")))

    @property
    def finished(self) -> bool:
        """Whether the run has reached its end."""
        return bool(self.record["status"] == "done")

    def stage(
        self, name: str, work: Callable[[], dict[str, Any]], *, redo: bool = False, identity: str | None = None
    ) -> dict[str, Any]:
        """Run a stage unless the record already has it, of the same identity; return what it returned (JSON-able).

        ``rows_in`` and ``rows_out`` of the result are shown with the stage, or in their place ``told``, a text that is not
        kept; the rest is kept for later stages.

        With ``redo`` a recorded stage runs again. Its entry is taken out first and put back in its place when the
        stage ends, so that one that was killed half-way counts as not done. Entries of later stages stay: the same
        inputs give the same tables.

        Args:
            name: of the stage.
            work: does it.
            redo: do it although it is recorded.
            identity: hash of what its result depends on; one recorded without is taken to be the same.
        """
        stages = self.record["stages"]
        place = next((number for number, done in enumerate(stages) if done["name"] == name), len(stages))
        if place < len(stages):
            known = stages[place].get("identity")
            if not redo and (known is None or known == identity):
                logger.info("%-14s done before (%.1f s)", name, stages[place]["seconds"])
                return dict(stages[place]["result"])
            del stages[place]
            self.save()
        reach(f"{name}:before")
        logger.info("%-14s …", name, extra={"stage_begins": name})
        started = time.monotonic()
        with one_thread():
            result = json.loads(to_json(work()))
        seconds = time.monotonic() - started
        reach(f"{name}:after")
        told, rows_in, rows_out = result.pop("told", None), result.get("rows_in"), result.get("rows_out")
        entry = {"name": name, "seconds": round(seconds, 3), "rows_in": rows_in, "rows_out": rows_out, "result": result}
        if identity is not None:
            entry["identity"] = identity
        stages.insert(place, entry)
        self.save()
        rows = "" if rows_in is None else f", {told or f'{rows_in:,} rows in, {rows_out:,} out'}"
        logger.info("%-14s %.1f s%s", name, seconds, rows, extra={"stage_ends": name})
        return dict(result)

    def forget_stages(self) -> None:
        """Let the run begin anew: no stage counts as done, and no half-way training is gone on with."""
        self.record["stages"] = []
        for version in self.workdir.names("models"):
            if version.rpartition("-")[0] == self.run_id:
                self.workdir.remove("models", version, "checkpoints")

    def finish(self, status: str, exit_code: int | None, message: str = "") -> None:
        """Write the verdict, and when the run ended if it has."""
        self.record |= {"status": status, "exit_code": exit_code, "message": message}
        if status != "running":
            self.record["ended_at"] = _now()
        self.save()

    def fail(self, error: BaseException) -> None:
        """Write the verdict that an exception means."""
        error = typed(error)
        code = 75 if isinstance(error, KeyboardInterrupt) else int(getattr(error, "exit_code", 1))
        self.finish("refused" if code == GateRefused.exit_code else "failed", code, str(error) or type(error).__name__)

    @contextmanager
    def job(self, name: str, *, is_last: bool = False) -> Iterator[None]:
        """Keep the verdict of one job that is run alone: as the run's own, and under ``jobs`` by its name.

        While it works, and for ever if it is killed, its exit code is null. The run's status is ``running`` until its
        last job is done; after that a job that is run again leaves it ``done``, unless it fails.
        """
        ends_done = is_last or self.finished
        verdict: dict[str, Any] = {"status": "running", "exit_code": None, "message": "", "started_at": _now()}
        self.record.setdefault("jobs", {})[name] = verdict
        self.finish("running", None)
        try:
            yield
        except BaseException as error:
            self.fail(error)
            verdict |= {key: self.record[key] for key in ("status", "exit_code", "message")} | {"ended_at": _now()}
            self.save()
            raise
        verdict |= {"status": "done", "exit_code": 0, "ended_at": _now()}
        self.finish("done" if ends_done else "running", 0)

    def save(self) -> None:
        """Write the record, as one of this version and with the time, in one step.

        Raises:
            TryAgain: another run has taken over the work folder.
        """
        self.record |= {"version": RECORD_VERSION, "saved_at": _now()}
        self.workdir.write_text(to_json(self.record, indent=2), "runs", f"{self.run_id}.json")

    def stages(self) -> list[dict[str, Any]]:
        """Return name, seconds, rows_in and rows_out of every finished stage."""
        return [
            {key: stage[key] for key in ("name", "seconds", "rows_in", "rows_out")} for stage in self.record["stages"]
        ]


def read_record(workdir: Workdir, run_id: str) -> dict[str, Any]:
    """Return the record of a run; one that was written before records had versions is of version 1.

    Raises:
        InputError: it is missing, is not a record, or was written by a newer release of this project.
    """
    path = workdir.path("runs", f"{run_id}.json")
    if not workdir.exists("runs", f"{run_id}.json"):
        raise InputError(f"{path} is missing: {workdir.uri} holds no run of that name")
    try:
        record: dict[str, Any] = {"version": 1} | json.loads(workdir.read_text("runs", f"{run_id}.json"))
        version = int(record["version"])
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is not a run's record ({error}): remove it to begin that run anew") from error
    if version > RECORD_VERSION:
        raise InputError(
            f"{path} was written by a newer release of this project (record version {version}, this one reads up to"
            f" {RECORD_VERSION}): use that release, or another --workdir"
        )
    return record


def run_records(workdir: Workdir) -> list[dict[str, Any]]:
    """Return the records of all runs in a work folder, in order of their ids.

    Raises:
        InputError: one of them cannot be read.
    """
    names = (name for name in workdir.names("runs") if name.endswith(".json"))
    return [read_record(workdir, name.removesuffix(".json")) for name in names]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
