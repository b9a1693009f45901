"""What ``dr retrieve`` asks of a release: for one history, for a user of the log, or for a file of histories."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dr_core.errors import InputError
from pipelines.serving.service import Answer, Service, named
from pipelines.serving.user_files import read_users, refuse_same_file, write_lines

logger = logging.getLogger(__name__)
USERS_PER_BLOCK = 256


@dataclass(frozen=True)
class Request:
    """Which release answers, and with what."""

    workdir: str
    release: str | None = None
    k: int = 10
    beam: int | None = None
    keep_history: bool | None = None
    blocked: Sequence[str] = ()
    ignore_unknown_blocked: bool = False

    def for_history(self, history: Sequence[str], *, explain: bool = False) -> Answer:
        """Return the top k items for one history of item keys.

        Raises:
            InputError: no key of the history is a known item, or a blocked key is unknown.
        """
        service = self._service()
        answer = service.recommend([history], **self._filters, explain=explain)[0]
        if "reason" in answer.document:
            raise InputError(
                f"none of the {len(history)} items of --history is known to {service.release_id}: {named(history)}"
            )
        return answer

    def for_user(self, user: str, *, explain: bool = False) -> Answer:
        """Return the top k items for a user of the log.

        Raises:
            InputError: the user has no history, or none that the release knows, or a blocked key is unknown.
        """
        service = self._service()
        answer = service.recommend_users([user], **self._filters, explain=explain)[0]
        if "reason" in answer.document:
            raise InputError(f"user {user!r} has only items that came after {service.release_id}")
        return answer

    def for_file(self, users_file: str, out: str) -> Counter[str]:
        """Read JSON lines of users and histories, write JSON lines of users and items in one step.

        Every line has ``user``, ``wanted``, ``returned``, ``unknown`` (how many keys of the history are) and ``items``; one
        without a known item has a ``reason`` as well. Warnings sum up what fell short.

        Returns:
            Numbers of ``users``, of those ``without_items`` and ``below_k``, and of ``unknown`` keys.

        Raises:
            InputError: the file is missing, a line is not an object with ``user`` and ``history``, or a blocked key is
                unknown.
        """
        refuse_same_file(users_file, out)
        users = read_users(users_file)
        service = self._service()
        totals = Counter(users=len(users), unknown=0, without_items=0, below_k=0)
        with write_lines(out) as write:
            for start in range(0, len(users), USERS_PER_BLOCK):
                block = users[start : start + USERS_PER_BLOCK]
                answers = service.recommend([history for _, history in block], **self._filters)
                for (user, _), answer in zip(block, answers, strict=True):
                    row = _row(user, answer.document)
                    write(row)
                    totals.update(
                        unknown=row["unknown"],
                        without_items=int("reason" in row),
                        below_k=int(row["returned"] < row["wanted"]),
                    )
        self._warn(users, totals, service)
        return totals

    def _service(self) -> Service:
        return Service(self.workdir, self.release, self.beam)

    @property
    def _filters(self) -> dict[str, Any]:
        names = ("k", "keep_history", "blocked", "ignore_unknown_blocked")
        return {name: getattr(self, name) for name in names}

    def _warn(self, users: Sequence[tuple[str, list[str]]], totals: Counter[str], service: Service) -> None:
        unknown_blocked = service.bundle.keys.ids(self.blocked)[1]
        repeated = len(users) - len({user for user, _ in users})
        known, count = f"known to {service.release_id}", len(users)
        if unknown_blocked:
            logger.warning("%d blocked items are not %s: %s", len(unknown_blocked), known, named(unknown_blocked))
        if repeated:
            logger.warning("%d lines are of a user who stands on an earlier line; each is answered", repeated)
        if totals["unknown"]:
            logger.warning("%d item keys in the histories are not %s and were left out", totals["unknown"], known)
        if totals["without_items"]:
            logger.warning("%d of %d users have no item that is %s", totals["without_items"], count, known)
        if totals["below_k"]:
            logger.warning(
                "%d of %d users have fewer than %d items: ask for more paths: --beam", totals["below_k"], count, self.k
            )


def _row(user: str, document: dict[str, Any]) -> dict[str, Any]:
    row = {
        "user": user,
        "wanted": document["wanted"],
        "returned": document["returned"],
        "unknown": len(document["unknown"]),
        "items": [{name: item[name] for name in ("item_key", "score")} for item in document["items"]],
    }
    return row | ({"reason": document["reason"]} if "reason" in document else {})
