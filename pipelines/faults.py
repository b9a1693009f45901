"""Named points at which a test kills this process, to show that nothing is lost there.

``DR_CRASH_AT=write:item_paths:after`` kills it when it first gets there, ``…:after#2`` the second time. Points are
``<stage>:before|after``, ``write:<table>:before|after``, ``publish:…``, ``vacuum:…`` and those that call :func:`reach`.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

VARIABLE = "DR_CRASH_AT"
_reached: Counter[str] = Counter()


def reach(point: str) -> None:
    """Kill this process, as ``kill -9`` does, if it was told to die at this point."""
    wanted, _, number = os.environ.get(VARIABLE, "").partition("#")
    if point != wanted:
        return
    _reached[point] += 1
    if _reached[point] == int(number or 1):
        os.kill(os.getpid(), signal.SIGKILL)
