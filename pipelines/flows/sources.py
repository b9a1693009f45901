"""What a run has read: its log and catalogue, as its record remembers them and as they are now."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pipelines.datasets.fingerprint import Fingerprint, difference, difference_of_part, fingerprint, is_there
from pipelines.datasets.interactions import DatasetConfig, resolve
from pipelines.storage import delta_reader
from pipelines.storage.run_record import Run, read_record
from pipelines.storage.workdir import Workdir

KEY = "source"
"""Of a run's record: fingerprints of the log and the catalogue as they were when the run began to read them."""


@dataclass(frozen=True)
class Sources:
    """The log and the catalogue as they are now.

    Attributes:
        paths: URIs by role, ``log`` and ``catalogue``.
        found: fingerprints by role, of what is there.
    """

    paths: dict[str, str]
    found: dict[str, Fingerprint]

    @classmethod
    def of(cls, dataset: DatasetConfig, logs: str | None, catalogue: str | None) -> Sources:
        """Look at what a run is to read; a log that is generated has no files, its configuration says what it is.

        Args:
            dataset: as configured.
            logs, catalogue: in the place of the configured paths.

        Raises:
            InputError: the log is there and its format cannot be told.
        """
        path = logs or dataset.path
        if path is None or not is_there(path):
            return cls({}, {})
        resolved = resolve(dataset, logs=logs, catalogue=catalogue)
        paths = {"log": resolved.path, "catalogue": resolved.catalogue}
        found = {role: fingerprint(place) for role, place in paths.items() if place}
        return cls(
            {role: place for role, place in paths.items() if place},
            {role: state for role, state in found.items() if state is not None},
        )

    def note(self, record: dict[str, Any]) -> None:
        """Write into a run's record what it reads."""
        record[KEY] = {role: state.as_dict() for role, state in self.found.items()}

    def change_since(self, record: dict[str, Any], *, grows: bool = False) -> str | None:
        """Return in words what has changed since a run read it; None where nothing has, or nobody can tell.

        What is gone has not changed, and a record of an older version knows nothing to compare with.

        Args:
            record: of the run.
            grows: what was only added counts as no change: a cumulative log holds other days as well.
        """
        known = record.get(KEY)
        if known is None:
            return None
        parts = [self._change(role, known.get(role), grows=grows) for role in self.found]
        return "; ".join(part for part in parts if part) or None

    def _change(self, role: str, known: dict[str, Any] | None, *, grows: bool) -> str | None:
        now = self.found[role]
        if known is None:
            return f"the {role} {self.paths[role]} is new: {now.text}"
        before = Fingerprint.from_dict(known)
        words = difference_of_part(before, now, self.paths[role]) if grows else difference(before, now)
        return words and f"the {role} {self.paths[role]} has changed: {words}"


def state_of(run: Run) -> str:
    """Return in words how far a run has come, when, and what it has read."""
    record = run.record
    if not record["stages"] and "saved_at" not in record:
        return f"run {run.run_id} has not begun"
    word = {"done": "is finished", "refused": "was refused", "failed": "has failed"}.get(
        record["status"], "is unfinished"
    )
    read = ", ".join(f"{role} of {source['text']}" for role, source in record.get(KEY, {}).items())
    facts = [record.get("ended_at") or record.get("saved_at", ""), read]
    message = f": {record['message']}" if record["message"] else ""
    return f"run {run.run_id} {word} ({'; '.join(filter(None, facts))}){message}"


def overwritten(workdir: Workdir, run: Run, label: str) -> str | None:
    """Return in words which run has ingested something else since this one did, in the place of its rows; or None.

    Args:
        workdir: W.
        run: of the record.
        label: the interval that the run ingests.
    """
    rows = delta_reader.read_rows(workdir.table("intervals"), f"WHERE source_interval = '{label}'")
    other = rows[0]["run_id"] if rows else run.run_id
    if other == run.run_id or not run.record["stages"] or not workdir.exists("runs", f"{other}.json"):
        return None
    if _same_ingest(run.record, read_record(workdir, other)):
        return None
    return f"run {other} has put what it reads in the place of its rows"


def _same_ingest(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether two runs have ingested the same: equal files under equal settings, wherever they lie."""
    if one.get("seed") != other.get("seed") or one.get(KEY, {}).keys() != other.get(KEY, {}).keys():
        return False
    texts = [json.dumps(_ingest_settings(record.get("config", {})), sort_keys=True) for record in (one, other)]
    pairs = (
        (Fingerprint.from_dict(one[KEY][role]), Fingerprint.from_dict(other[KEY][role])) for role in one.get(KEY, {})
    )
    return texts[0] == texts[1] and all(difference(*pair) is None for pair in pairs)


def _ingest_settings(config: dict[str, Any]) -> list[Any]:
    dataset = {key: value for key, value in config.get("dataset", {}).items() if key not in ("path", "catalogue")}
    return [
        dataset,
        *(config.get(section) for section in ("preprocess", "split")),
        config.get("serving", {}).get("history_length"),
    ]
