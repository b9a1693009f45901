"""A release in this process, asked by item keys as they stand in the logs. Neither torch nor a JVM is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dr_core.arrays import FloatArray
from dr_core.errors import InputError
from dr_core.retrieval.filter import Allowed
from dr_core.retrieval.retriever import Retrieved
from pipelines.serving.bundle import ReleaseBundle
from pipelines.serving.given_keys import key_texts
from pipelines.serving.known_users import KnownUser, read_item_keys, read_known_users
from pipelines.storage.files import Files

NAMED_KEYS = 5
"""Unknown keys that a message names."""
SHOWN_ITEMS = 5
"""Items of a visited path that an explanation shows, the most popular ones."""

Key = str | int | float
"""Of an item or a user, as in the log."""


@dataclass(frozen=True)
class Answer:
    """A document for machines, a text for people."""

    document: dict[str, Any]
    text: str


@dataclass(frozen=True)
class _Question:
    """A history as a release knows it, and the items that its user has seen."""

    history: list[str]
    ids: list[int]
    unknown: list[str]
    seen: list[int]
    user: str | None = None


class Service:
    """A release that answers; items are named by their keys in the log, as text or as whole numbers.

    Args:
        workdir: W.
        release: id of the release, by default the live one.
        beam: B, paths visited, by default what the release was published with.

    Raises:
        InputError: there is no such release, or it has no bundle.
        ReleaseMismatch: a file is not the one that was published.
    """

    def __init__(self, workdir: str | Files, release: str | None = None, beam: int | None = None) -> None:
        self.folder = Files(workdir) if isinstance(workdir, str) else workdir
        self.bundle = ReleaseBundle.open(self.folder, release)
        self.retriever = self.bundle.retriever(beam)

    @property
    def release_id(self) -> str:
        """Id of the release that answers."""
        return self.bundle.release.release_id

    def recommend(
        self, histories: Sequence[Sequence[Key]], k: int = 10, *, keep_history: bool | None = None, **filters: Any
    ) -> list[Answer]:
        """Return an answer for each history of item keys, oldest first.

        A history without a known item gets no items and a ``reason``. An answer of fewer than k items has a ``note``.

        Args:
            histories: item keys of each user.
            k: items wanted.
            keep_history: whether items of a history may be returned; by default as the release was configured
                (``serving.filter_history``).
            filters: see :meth:`recommend_users`.

        Raises:
            InputError: a history is no list of keys, or a blocked key is unknown.
        """
        if isinstance(histories, str):
            raise InputError(f"histories: {histories!r} is no list of histories")
        questions = []
        for number, given in enumerate(histories):
            history = key_texts(given, f"history {number}")
            ids, unknown = self.bundle.keys.ids(history)
            questions.append(_Question(history, ids, unknown, seen=ids))
        return self._answers(questions, k, keep_history=keep_history, **filters)

    def recommend_users(
        self,
        users: Sequence[Key],
        k: int = 10,
        *,
        keep_history: bool | None = None,
        blocked: Sequence[Key] = (),
        ignore_unknown_blocked: bool = False,
        allowed: Sequence[Key] | None = None,
        explain: bool = False,
    ) -> list[Answer]:
        """Return an answer for each user of the log, from the history that the work folder holds.

        Args:
            users: as in the log.
            k: items wanted.
            keep_history: whether items of the user's log, kept as events or not, may be returned; by default as the
                release was configured (``serving.filter_history``).
            blocked: keys of items nobody gets.
            ignore_unknown_blocked: whether blocked keys that the release does not know are only named in the answers.
            allowed: keys of the only items anybody gets; by default all. Unknown ones are named in the answers.
            explain: whether to add the visited ``paths``, with their probability, size and best-known items.

        Raises:
            InputError: a user has no history, or a blocked key is unknown.
        """
        known = read_known_users(self.folder, key_texts(users, "users"))
        return self._answers(
            [self._question(user) for user in known],
            k,
            keep_history=keep_history,
            blocked=blocked,
            ignore_unknown_blocked=ignore_unknown_blocked,
            allowed=allowed,
            explain=explain,
        )

    def _question(self, user: KnownUser) -> _Question:
        num_items = self.retriever.num_items
        newer = [item for item in user.history if item >= num_items]
        key_of = read_item_keys(self.folder, newer) if newer else {}
        history = [self.bundle.keys.keys[item] if item < num_items else key_of[item] for item in user.history]
        seen = [item for item in user.seen if item < num_items] + self.bundle.keys.ids(user.seen_keys)[0]
        ids = [item for item in user.history if item < num_items]
        return _Question(history, ids, [key_of[item] for item in newer], seen, user.name)

    def _answers(
        self,
        questions: Sequence[_Question],
        k: int,
        *,
        keep_history: bool | None,
        blocked: Sequence[Key] = (),
        ignore_unknown_blocked: bool = False,
        allowed: Sequence[Key] | None = None,
        explain: bool = False,
    ) -> list[Answer]:
        keys = self.bundle.keys
        barred, unknown_blocked = keys.ids(key_texts(blocked, "blocked"))
        if unknown_blocked and not ignore_unknown_blocked:
            raise InputError(
                f"{self.release_id} does not know {len(unknown_blocked)} of {len(blocked)} blocked items:"
                f" {named(unknown_blocked)}; mend the list, or go on without them: --ignore-unknown-blocked"
                " (ignore_unknown_blocked=True)"
            )
        allowed_ids, unknown_allowed = keys.ids(key_texts(() if allowed is None else allowed, "allowed"))
        chosen = None if allowed is None else Allowed.of(np.array(allowed_ids, np.int64), self.retriever.num_items)
        states = self.retriever.encode([question.ids for question in questions])
        keeps = not self.bundle.settings.get("filter_history", True) if keep_history is None else keep_history
        excluded = None if keeps else [question.seen for question in questions]
        found = self.retriever.retrieve(states, k, excluded=excluded, blocked=barred, allowed=chosen)
        answers = []
        for user, question in enumerate(questions):
            items = self._items(found, user) if question.ids else []
            document: dict[str, Any] = {
                "release_id": self.release_id,
                **({} if question.user is None else {"user": question.user}),
                "history": question.history,
                "unknown": question.unknown,
                "candidates": int(found.num_candidates_U[user]) if question.ids else 0,
                "beam": int(found.num_paths_U[user]) if question.ids else 0,
                "wanted": k,
                "returned": len(items),
                "items": items,
            }
            if not question.ids:
                document["reason"] = "no item of the history is known"
            elif len(items) < k:
                is_exhausted = chosen is not None or found.num_paths_U[user] >= self.retriever.index.num_paths
                document["note"] = f"{len(items)} of {k} items: " + (
                    "there are no more" if is_exhausted else "ask for more paths: --beam"
                )
            document |= {"unknown_blocked": unknown_blocked} if unknown_blocked else {}
            document |= {"unknown_allowed": unknown_allowed} if unknown_allowed else {}
            if explain:
                document["paths"] = self._visited(states[user : user + 1], chosen) if question.ids else []
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
        columns = (visits.path_UB, visits.log_prob_UB, visits.items_UB)
        for path, log_prob, items in zip(*(column[0].tolist() for column in columns), strict=True):
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
                    "visited": min(len(held), items),
                    "items": [self.bundle.item(int(item)) for item in best_known],
                }
            )
        return shown


def named(keys: Sequence[str]) -> str:
    """Return the first keys of a list, and how many more there are."""
    rest = len(keys) - NAMED_KEYS
    return ", ".join(keys[:NAMED_KEYS]) + (f" and {rest} more" if rest > 0 else "")


def _label(item: dict[str, Any]) -> str:
    return f"{item['item_key']} {item['title']}" if item["title"] else str(item["item_key"])


def _as_text(document: dict[str, Any]) -> str:
    lines = [f"{document['release_id']}: {document['candidates']} candidates on {document['beam']} paths"]
    for key, name in (("unknown", "unknown items"), ("unknown_blocked", "unknown blocked items"),
                      ("unknown_allowed", "unknown allowed items")):  # fmt: skip
        if document.get(key):
            lines.append(f"{name} left out: {', '.join(document[key])}")
    lines += [document[key] for key in ("reason", "note") if key in document]
    lines += [
        f"{item['rank'] + 1:3} {item['score']:8.3f}  {_label(item):50.50} path {'-'.join(map(str, item['path']))} (p {item['path_probability']:.4f})"
        for item in document["items"]
    ]
    for path in document.get("paths", []):
        place = "-".join(map(str, path["path"]))
        lines.append(f"path {place}: p {path['probability']:.4f}, {path['visited']} of {path['size']} items")
        lines += [f"      {_label(item)}" for item in path["items"]]
    return "\n".join(lines)
