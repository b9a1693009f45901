"""Named points at which a test kills this process, to show that nothing is lost there.

``DR_CRASH_AT=write:item_paths:after`` kills it when it first gets there, ``…:after#2`` the second time. Points are
``<stage>:before|after``, ``write:<table>:before|after``, ``publish:…``, ``vacuum:…`` and those that call :func:`reach`.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter

VARIABLE = "DR_CRASH_AT"
_reached: Counter[str] = Counter()


def reach(point: str, *, after: float = 0.0) -> None:
    """Kill this process, as ``kill -9`` does, if it was told to die at this point.

    Args:
        point: the name.
        after: seconds that the process still works on, to die inside what follows.
    """
    wanted, _, number = os.environ.get(VARIABLE, "").partition("#")
    if point != wanted:
        return
    _reached[point] += 1
    if _reached[point] == int(number or 1):
        if after:
            threading.Timer(after, _die).start()
        else:
            _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
