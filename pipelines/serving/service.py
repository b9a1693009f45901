"""A release in this process, asked by item keys as they stand in the logs. Neither torch nor a JVM is loaded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dr_core.arrays import FloatArray
from dr_core.errors import InputError
from dr_core.retrieval.filter import Allowed
from dr_core.retrieval.retriever import Retrieved
from pipelines.serving.bundle import ReleaseBundle
from pipelines.serving.user_files import read_users, write_lines
from pipelines.storage.files import Files

logger = logging.getLogger(__name__)
USERS_PER_BLOCK = 256
SHOWN_ITEMS = 5
"""Items of a visited path that an explanation shows, the most popular ones."""


@dataclass(frozen=True)
class Answer:
    """A document for machines, a text for people."""

    document: dict[str, Any]
    text: str


class Service:
    """A release that answers.

    Args:
        workdir: W.
        release: id of the release, by default the live one.
        beam: B, paths visited, by default what the release was published with.

    Raises:
        InputError: there is no such release, or it has no bundle.
        ReleaseMismatch: a file is not the one that was published.
    """

    def __init__(self, workdir: str | Files, release: str | None = None, beam: int | None = None) -> None:
        self.bundle = ReleaseBundle.open(Files(workdir) if isinstance(workdir, str) else workdir, release)
        self.retriever = self.bundle.retriever(beam)

    @property
    def release_id(self) -> str:
        """Id of the release that answers."""
        return self.bundle.release.release_id

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        *,
        keep_history: bool = False,
        blocked: Sequence[str] = (),
        allowed: Sequence[str] | None = None,
        explain: bool = False,
    ) -> list[Answer]:
        """Return an answer for each history of item keys, oldest first.

        A history without a known item gets no items and a ``reason``.

        Args:
            histories: item keys of each user.
            k: items wanted.
            keep_history: whether items of a history may be returned.
            blocked: keys of items nobody gets.
            allowed: keys of the only items anybody gets; by default all.
            explain: whether to add the visited ``paths``, with their probability, size and best-known items.
        """
        keys = self.bundle.keys
        parts = [keys.ids(history) for history in histories]
        known = [ids for ids, _ in parts]
        barred, unknown_blocked = keys.ids(blocked)
        allowed_ids, unknown_allowed = keys.ids(allowed or ())
        chosen = None if allowed is None else Allowed.of(np.array(allowed_ids, np.int64), self.retriever.num_items)
        states = self.retriever.encode(known)
        found = self.retriever.retrieve(
            states, k, excluded=None if keep_history else known, blocked=barred, allowed=chosen
        )
        answers = []
        for user, (history, (ids, unknown)) in enumerate(zip(histories, parts, strict=True)):
            document: dict[str, Any] = {
                "release_id": self.release_id,
                "history": list(history),
                "unknown": unknown,
                "candidates": int(found.num_candidates_U[user]) if ids else 0,
                "beam": self.retriever.beam,
                "items": self._items(found, user) if ids else [],
            }
            document |= {} if ids else {"reason": "no item of the history is known"}
            document |= {"unknown_blocked": unknown_blocked} if unknown_blocked else {}
            document |= {"unknown_allowed": unknown_allowed} if unknown_allowed else {}
            if explain:
                document["paths"] = self._visited(states[user : user + 1], chosen) if ids else []
            answers.append(Answer(document, _as_text(document)))
        return answers

    def explain(self, history: Sequence[str], k: int = 10, **filters: Any) -> Answer:
        """Return the answer for one history with the paths that were visited; ``filters`` as in :meth:`recommend`."""
        return self.recommend([history], k, explain=True, **filters)[0]

    def _items(self, found: Retrieved, user: int) -> list[dict[str, Any]]:
        space = self.bundle.router.space
        return [
            {
                "rank": rank,
                **self.bundle.item(int(item)),
                "score": round(float(found.score_Uk[user, rank]), 4),
                "path": space.decode(found.path_Uk[user, rank]).tolist(),
                "path_id": int(found.path_Uk[user, rank]),
                "path_probability": float(found.path_probability_Uk[user, rank]),
            }
            for rank, item in enumerate(found.item_Uk[user])
            if item >= 0
        ]

    def _visited(self, state_1E: FloatArray, allowed: Allowed | None) -> list[dict[str, Any]]:
        retriever = self.retriever if allowed is None else self.retriever.only(allowed)
        visits = retriever.search(state_1E)
        shown = []
        for path, log_prob in zip(visits.path_UB[0].tolist(), visits.log_prob_UB[0].tolist(), strict=True):
            if path < 0:
                continue
            held = retriever.index.items(path)
            best_known = held[np.argsort(-retriever.ranker.bias(path), kind="stable")][:SHOWN_ITEMS]
            shown.append(
                {
                    "path": self.bundle.router.space.decode(np.array(path)).tolist(),
                    "path_id": path,
                    "probability": float(np.exp(log_prob)),
                    "size": len(held),
                    "items": [self.bundle.item(int(item)) for item in best_known],
                }
            )
        return shown


def retrieve_history(
    workdir_uri: str,
    history: Sequence[str],
    *,
    k: int,
    beam: int | None,
    release_id: str | None,
    keep_history: bool,
    blocked: Sequence[str],
    explain: bool,
) -> Answer:
    """Return the top k items for one history of item keys.

    Raises:
        InputError: no key of the history is a known item.
    """
    service = Service(workdir_uri, release_id, beam)
    answer = service.recommend([history], k, keep_history=keep_history, blocked=blocked, explain=explain)[0]
    if "reason" in answer.document:
        raise InputError(
            f"none of the {len(history)} items of --history is known to {service.release_id}: {', '.join(history[:5])}"
        )
    return answer


def retrieve_users(
    workdir_uri: str,
    users_file: str,
    out: str,
    *,
    k: int,
    beam: int | None,
    release_id: str | None,
    keep_history: bool,
    blocked: Sequence[str],
) -> int:
    """Read JSON lines of users and histories, write JSON lines of users and items in one step; return the number of users.

    A user without a known item gets no items, the number of unknown ones and the reason.

    Raises:
        InputError: the file is missing, or a line is not an object with ``user`` and ``history``.
    """
    users = read_users(users_file)
    service = Service(workdir_uri, release_id, beam)
    unknown = service.bundle.keys.ids(blocked)[1]
    if unknown:
        logger.warning("blocked items that %s does not know: %s", service.release_id, ", ".join(unknown))
    with write_lines(out) as write:
        for start in range(0, len(users), USERS_PER_BLOCK):
            block = users[start : start + USERS_PER_BLOCK]
            answers = service.recommend(
                [history for _, history in block], k, keep_history=keep_history, blocked=blocked
            )
            for (user, _), answer in zip(block, answers, strict=True):
                items = [{"item_key": item["item_key"], "score": item["score"]} for item in answer.document["items"]]
                row: dict[str, Any] = {"user": user, "items": items}
                if "reason" in answer.document:
                    row |= {"unknown": len(answer.document["unknown"]), "reason": answer.document["reason"]}
                write(row)
    return len(users)


def _label(item: dict[str, Any]) -> str:
    return f"{item['item_key']} {item['title']}" if item["title"] else str(item["item_key"])


def _as_text(document: dict[str, Any]) -> str:
    lines = [f"{document['release_id']}: {document['candidates']} candidates on {document['beam']} paths"]
    for key, name in (("unknown", "unknown items"), ("unknown_blocked", "unknown blocked items"),
                      ("unknown_allowed", "unknown allowed items")):  # fmt: skip
        if document.get(key):
            lines.append(f"{name} left out: {', '.join(document[key])}")
    lines += [document["reason"]] if "reason" in document else []
    lines += [
        f"{item['rank'] + 1:3} {item['score']:8.3f}  {_label(item):50.50} path {'-'.join(map(str, item['path']))} (p {item['path_probability']:.4f})"
        for item in document["items"]
    ]
    for path in document.get("paths", []):
        lines.append(f"path {'-'.join(map(str, path['path']))}: p {path['probability']:.4f}, {path['size']} items")
        lines += [f"      {_label(item)}" for item in path["items"]]
    return "\n".join(lines)
