"""JSON as other programs can read it: no NaN, no infinity."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def to_json(document: Any, *, indent: int | None = None) -> str:
    """Return a document as JSON text; a figure that is not finite becomes null, a numpy scalar a plain number."""
    return json.dumps(plain(document), indent=indent, allow_nan=False, ensure_ascii=False)


def plain(value: Any) -> Any:
    """Return a value made of dictionaries, lists and plain scalars only, None in place of NaN and infinity."""
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    scalar = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(scalar, float) and not math.isfinite(scalar) else scalar
