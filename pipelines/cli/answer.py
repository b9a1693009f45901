"""What a command found, for machines and for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.storage.json_text import to_json


@dataclass(frozen=True)
class Answer:
    """The result of a command.

    Attributes:
        document: JSON-able; printed with ``--json``.
        text: printed without ``--json``; nothing if empty.
        exit_code: of the command.
    """

    document: Any
    text: str = ""
    exit_code: int = 0

    def as_json(self) -> str:
        """Return the document as one line of JSON."""
        return to_json(self.document)
