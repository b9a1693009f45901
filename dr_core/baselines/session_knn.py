"""Neighbours of the session: the latest histories that share items with this one vote for what else they hold.

``vsknn``: Ludewig and Jannach, *Evaluation of Session-based Recommendation Algorithms* (UMUAI 2018), the vector variant.
``stan``: Garg et al., *Sequence and Time Aware Neighborhood for Session-based Recommendations* (SIGIR 2019).

Shape legend: U asked histories, S learned histories (sessions), V items.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numba import njit
from pydantic import Field

from dr_core.arrays import FloatArray
from dr_core.baselines.base import USERS_AT_ONCE, Baseline, Events, rows
from dr_core.config import Config
from dr_core.item_lists import ItemLists

STEP = 0.1
"""What an event further back weighs less in ``vsknn``: from the tenth on it weighs nothing."""


class SessionKNNConfig(Config):
    """Which sessions are neighbours, and how they vote."""

    kind: Literal["vsknn", "stan"] = "vsknn"
    """`vsknn`: weights fall linearly with the place in a session, and rare items get more of a vote. `stan`: weights fall
    exponentially, sessions are compared by cosine, and old ones count less."""
    neighbours: int = Field(100, ge=1)
    """Most similar sessions, which vote."""
    sample: int = Field(1000, ge=1)
    """Latest sessions that share an item, among which the neighbours are."""
    history_length: int = Field(69, ge=1)
    """Latest events of a history that are asked with."""
    query_decay: float = Field(3.0, gt=0)
    """`stan`: events after which an item of the history counts 1/e."""
    age_decay: float | None = Field(None, gt=0)
    """`stan`: days after which a session counts 1/e; None lets all count alike."""
    place_decay: float = Field(3.0, gt=0)
    """`stan`: places between an item and the one that is shared after which its vote counts 1/e."""


class SessionKNN(Baseline):
    """score(x, j) = sum over the neighbours n that hold j of similarity(x, n) * vote(n, j).

    Items that nobody votes for follow those with votes, the most popular first.
    """

    name = "session_knn"

    def __init__(self, config: SessionKNNConfig | None = None) -> None:
        self.config = config or SessionKNNConfig()

    def fit(self, events: Events) -> None:
        offsets = np.asarray(events.histories.offsets, dtype=np.int64)
        items = np.asarray(events.histories.item_ids, dtype=np.int64)
        sizes, num_sessions = np.diff(offsets), len(offsets) - 1
        ended_S = np.arange(num_sessions, dtype=float) if events.ended is None else events.ended
        order = np.argsort(ended_S, kind="stable")
        number_S = np.empty(num_sessions, np.int64)
        number_S[order] = np.arange(num_sessions)  # by when they ended: the latest is the last
        session, place = np.repeat(number_S, sizes), np.arange(len(items)) - np.repeat(offsets[:-1], sizes)
        met = np.lexsort((place, items, session))
        last = met[np.r_[(np.diff(items[met]) != 0) | (np.diff(session[met]) != 0), True][: len(met)]]
        last = last[np.lexsort((place[last], session[last]))]
        self.items, self.places = items[last], place[last]
        self.offsets = np.searchsorted(session[last], np.arange(num_sessions + 1))
        self.length_S = sizes[order].astype(float)
        by_item = np.lexsort((session[last], self.items))
        self.sessions = session[last][by_item]
        self.starts = np.searchsorted(self.items[by_item], np.arange(events.num_items + 1))
        stan, decay = self.config.kind == "stan", self.config.age_decay
        days_S = (ended_S[order] - ended_S.max(initial=0.0)) / 86_400
        self.freshness_S = np.exp(days_S / decay) if stan and decay else np.ones(num_sessions)
        rarity_V = np.log(max(num_sessions, 1) / np.maximum(np.diff(self.starts), 1))
        self.vote_V = np.ones(events.num_items) if stan else rarity_V
        self.popularity_V = (events.counts / (events.counts.max(initial=0) + 1) - 1).astype(np.float32)

    def scores(self, histories: ItemLists) -> FloatArray:
        score_UV: FloatArray = self._vote(histories)[0]
        return np.where(score_UV > 0, score_UV, self.popularity_V)

    def megabytes(self) -> float:
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray)) / 1e6

    def multiply_adds(self, histories: ItemLists) -> float:
        """Return the sessions compared and the items voted for, an addition each, of a mean history."""
        num_users = len(histories.offsets) - 1
        blocks = (rows(histories, start, start + USERS_AT_ONCE) for start in range(0, num_users, USERS_AT_ONCE))
        return sum(float(self._vote(block)[1]) for block in blocks) / max(num_users, 1)

    def _vote(self, histories: ItemLists) -> Any:
        config = self.config
        return _vote(
            np.asarray(histories.offsets, dtype=np.int64),
            np.asarray(histories.item_ids, dtype=np.int64),
            self.offsets,
            self.items,
            self.places,
            self.length_S,
            self.starts,
            self.sessions,
            self.freshness_S,
            self.vote_V,
            (config.kind == "stan", config.neighbours, config.sample, config.history_length),
            (config.query_decay, config.place_decay),
        )


@njit(cache=True, nogil=True)
def _vote(  # type: ignore[no-untyped-def]
    asked_offsets, asked_items, offsets, items, places, length_S, starts, sessions, freshness_S, vote_V, counts, decays
):
    """Return float32 [U, V] votes, 0 for what nobody votes for, and how many additions they took."""
    stan, neighbours, sample, length = counts
    query_decay, place_decay = decays
    num_users, num_items = len(asked_offsets) - 1, len(starts) - 1
    score_UV = np.zeros((num_users, num_items), np.float32)
    similarity_S = np.zeros(len(offsets) - 1)
    shared_S = np.full(len(offsets) - 1, -1, np.int64)  # age of the latest shared item, -1 for none
    touched = np.empty(len(offsets) - 1, np.int64)
    asked_V = np.full(num_items, -1, np.int64)
    work = 0
    for user in range(num_users):
        end = asked_offsets[user + 1]
        known = min(end - asked_offsets[user], length)
        num_touched = 0
        for age in range(known):
            item = asked_items[end - 1 - age]
            if asked_V[item] == user:
                continue
            asked_V[item] = user
            weight = np.exp(-age / query_decay) if stan else 1.0 - age / known
            for slot in range(starts[item + 1] - 1, max(starts[item + 1] - 1 - sample, starts[item] - 1), -1):
                session = sessions[slot]
                if shared_S[session] < 0:
                    touched[num_touched] = session
                    shared_S[session] = age
                    num_touched += 1
                similarity_S[session] += weight
                work += 1
        found = np.sort(touched[:num_touched])
        latest = found[max(num_touched - sample, 0) :][::-1].copy()
        strength = np.empty(len(latest))
        for place in range(len(latest)):
            session = latest[place]
            strength[place] = similarity_S[session] * freshness_S[session]
            if stan:
                strength[place] /= np.sqrt(known * length_S[session])
        for place in np.argsort(-strength, kind="mergesort")[:neighbours]:
            session = latest[place]
            first, last = offsets[session], offsets[session + 1]
            shared = first
            while items[shared] != asked_items[end - 1 - shared_S[session]]:
                shared += 1
            near = strength[place] if stan else strength[place] * max(1.0 - STEP * shared_S[session], 0.0)
            for slot in range(first, last):
                vote = np.exp(-abs(places[slot] - places[shared]) / place_decay) if stan else vote_V[items[slot]]
                score_UV[user, items[slot]] += near * vote
            work += last - first
        similarity_S[found], shared_S[found] = 0.0, -1
    return score_UV, work
