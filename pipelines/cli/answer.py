"""What a command found, for machines and for people."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any


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
        """Return the document as one line of JSON. JSON knows no NaN and no infinity: they become null."""
        return json.dumps(_finite(self.document), ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
