"""What ``dr doctor`` says of one thing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        name: of the thing.
        ok: whether it will do.
        found: what there is.
        mend: what to do if it is not ok.
    """

    name: str
    ok: bool
    found: str
    mend: str = ""
