"""The evaluation protocol: which events are history and which are truth, and what the first k items are.

The splits are the plain definition, one user at a time; the pipeline's Spark split is tested against them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

import numpy as np

from dr_core.arrays import AnyIntArray
from dr_core.evaluation.metrics import contains, first_occurrences
from dr_core.item_lists import ItemLists

Event = TypeVar("Event")
Split = Literal["halves", "leave_last_out"]


def order_events(events: Sequence[Event], times: Sequence[float], file_orders: Sequence[int]) -> list[Event]:
    """Return one user's events oldest first; ties in time keep the order of the file.

    Raises:
        ValueError: the three sequences differ in length.
    """
    if not len(events) == len(times) == len(file_orders):
        raise ValueError(f"{len(events)} events, {len(times)} times and {len(file_orders)} file orders")
    order = sorted(range(len(events)), key=lambda place: (times[place], file_orders[place]))
    return [events[place] for place in order]


def split_halves(events: Sequence[Event]) -> tuple[list[Event], list[Event]]:
    """Return (history, truth): the first floor(n / 2) events and the others (TDM, section 4.1; DR, section 4.1).

    Args:
        events: one user's events, oldest first.

    Raises:
        ValueError: fewer than two events, so that one part would be empty.
    """
    return _split_at(events, len(events) // 2)


def split_last(events: Sequence[Event], num_last: int = 1) -> tuple[list[Event], list[Event]]:
    """Return (history, truth): all events but the last ``num_last``, and those.

    Args:
        events: one user's events, oldest first.
        num_last: events held out, at least 1.

    Raises:
        ValueError: ``num_last`` < 1, or no event would be left as history.
    """
    if num_last < 1:
        raise ValueError(f"num_last must be at least 1, was {num_last}")
    return _split_at(events, len(events) - num_last)


def split_events(events: Sequence[Event], split: Split) -> tuple[list[Event], list[Event]]:
    """Return (history, truth) of one user's events, oldest first, by the named split.

    Raises:
        ValueError: too few events, or an unknown split.
    """
    if split == "halves":
        return split_halves(events)
    if split == "leave_last_out":
        return split_last(events)
    raise ValueError(f"split must be 'halves' or 'leave_last_out', was {split!r}")


def select_k(ranked: AnyIntArray, k: int, seen: ItemLists | None = None) -> AnyIntArray:
    """Return the first ``k`` distinct items of each ranking, the history left out where it is given.

    Args:
        ranked: int [U, W], best first, padded with -1.
        k: items to keep, at least 1.
        seen: each user's history; None for the unfiltered protocol.

    Returns:
        [U, k] of the type of ``ranked``, in the order of ``ranked``, padded with -1 on the right.

    Raises:
        ValueError: ``k`` < 1, ``ranked`` is not a matrix, or ``seen`` has another number of users.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, was {k}")
    keep = first_occurrences(ranked)
    if seen is not None:
        users, places = np.nonzero(keep)
        known = contains(seen, users, ranked[users, places], num_users=len(ranked))
        keep[users[known], places[known]] = False
    rank = np.cumsum(keep, axis=1) - 1
    users, places = np.nonzero(keep & (rank < k))
    selected = np.full((len(ranked), k), -1, dtype=ranked.dtype)
    selected[users, rank[users, places]] = ranked[users, places]
    return selected


def _split_at(events: Sequence[Event], place: int) -> tuple[list[Event], list[Event]]:
    if not 0 < place < len(events):
        raise ValueError(f"{len(events)} events cannot be split into a history and a truth")
    return list(events[:place]), list(events[place:])
