"""What a price buys: for some users, the candidates and the wanted items that each price and each opening finds.

One price for all users is the greedy answer to: of all ways to spend so many candidates in total, which holds the most
probability (the fractional knapsack, Dantzig 1957)? Shape legend: U users, E user dimension, K wanted items a user,
J paths an item, B paths visited, M (user, path) pairs, G steps of the price, R rows of an index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from dr_core.arrays import DoubleArray, FloatArray, IntArray
from dr_core.paths.index import PathIndex
from dr_core.retrieval.candidates import gather_candidates
from dr_core.retrieval.energy_kernel import CompiledEnergies
from dr_core.retrieval.router import Price, Router

OPENINGS = (-np.inf, -10.0, -8.0, -7.0, -6.0, -5.0, -4.0, -3.0)
"""Thresholds of ln p that are tried for opening a prefix; the first opens everything."""
MOST_VISITS = 2**24
"""Visits held at a time."""
STEPS = 2**15
"""Steps of the price, from the most probable item to the least probable one."""
LIMIT = 4.0
"""Most candidates of one user, in units of the mean that a price is chosen for."""


@dataclass(frozen=True)
class Offer:
    """What one opening finds, at every price."""

    opening: float
    work: float
    """Mean multiply-adds a user of finding the paths."""
    price_G: DoubleArray
    """Steps of the price, descending, evenly apart; the last one is below every item."""
    candidates_G: DoubleArray
    """Mean distinct candidates a user at each of them."""
    wanted_score_W: DoubleArray
    """ln of the probability of each wanted item by its path and its share of it, descending; -inf where it is not found."""

    def price_of(self, candidates: float) -> float:
        """Return the highest step of the price at which the users find so many candidates on average."""
        place = int(np.searchsorted(self.candidates_G, candidates))
        return float(self.price_G[min(place, len(self.price_G) - 1)])

    def recall(self, price: float) -> float:
        """Return the share of the wanted items that are found."""
        return float(np.searchsorted(-self.wanted_score_W, -price, side="right") / max(len(self.wanted_score_W), 1))

    def candidates_for(self, recall: float) -> float:
        """Return the fewest candidates that find this share of the wanted items; inf where none do."""
        place = int(np.ceil(recall * len(self.wanted_score_W) - 1e-9)) - 1
        if place < 0:
            return 0.0
        score = self.wanted_score_W[place]
        if np.isneginf(score):
            return np.inf
        step = int(np.searchsorted(-self.price_G, -score))
        return float(self.candidates_G[min(step, len(self.price_G) - 1)])


@dataclass(frozen=True)
class Prices:
    """Offers for some users, and what ranking a candidate costs in multiply-adds."""

    offers: Sequence[Offer]
    candidate_work: float

    @classmethod
    def of(
        cls, router: Router, index: PathIndex, user_UE: FloatArray, wanted_UK: IntArray, candidate_work: float
    ) -> Prices:
        """Search for some users at every opening.

        Args:
            router: over the paths of ``index``.
            index: paths to items.
            user_UE: float32 states; of many, the first.
            wanted_UK: int64, the items that each user should find: the best by the ranker among all.
            candidate_work: multiply-adds of ranking one candidate.

        Raises:
            ValueError: a router that is not searched by price.
        """
        if not isinstance(router, CompiledEnergies):
            raise ValueError("a product of layers is searched by a beam, not by a price (structure.normaliser: layers)")
        users = max(1, min(len(user_UE), MOST_VISITS // max(router.num_groups, 1)))
        row_VJ, wanted_UK = rows_of_items(index), wanted_UK[:users]
        is_known_UK = wanted_UK < len(row_VJ)
        row_UKJ = np.where(is_known_UK[..., None], row_VJ[np.where(is_known_UK, wanted_UK, 0)], -1)
        return cls([_offer(router, index, user_UE[:users], row_UKJ, opening) for opening in OPENINGS], candidate_work)

    def at(self, candidates: float) -> Price:
        """Return the price at which the users find so many candidates on average, at the opening of least work.

        Openings are compared at equal recall: that of as many candidates with everything open. What an opening misses it
        has to make up for by further candidates.
        """
        recall = self.recall_of(candidates)
        wide = [offer for offer in self.offers if offer.candidates_G[-1] >= candidates] or [self.offers[0]]
        best = min(wide, key=lambda offer: offer.work + self.candidate_work * offer.candidates_for(recall))
        return Price(best.price_of(candidates), best.opening, round(LIMIT * candidates))

    def recall_of(self, candidates: float) -> float:
        """Return the recall that so many candidates a user buy, with everything open."""
        return self.offers[0].recall(self.offers[0].price_of(candidates))

    def candidates_for(self, recall: float) -> float:
        """Return the fewest candidates a user that hold this share of the wanted items, with everything open."""
        return self.offers[0].candidates_for(recall)


def rows_of_items(index: PathIndex) -> IntArray:
    """Return the rows of every item of an index, int64 [V, J], -1 where an item is on fewer paths."""
    row_R = np.argsort(index.item_ids, kind="stable")
    item_R = index.item_ids[row_R].astype(np.int64)
    rank_R = np.arange(len(item_R)) - np.searchsorted(item_R, item_R)
    row_VJ = np.full((int(item_R.max(initial=-1)) + 1, int(rank_R.max(initial=0)) + 1), -1, np.int64)
    row_VJ[item_R, rank_R] = row_R
    return row_VJ


def paths_of_items(index: PathIndex) -> IntArray:
    """Return the paths of every item of an index, int64 [V, J], -1 where an item is on fewer."""
    row_VJ = rows_of_items(index)
    path_R = np.repeat(index.path_ids, np.diff(index.offsets))
    return np.where(row_VJ >= 0, path_R[row_VJ], -1)


def _offer(router: CompiledEnergies, index: PathIndex, user_UE: FloatArray, row_UKJ: IntArray, opening: float) -> Offer:
    visits = router.visit(user_UE, Price(-np.inf, opening, np.iinfo(np.int64).max))
    start_UB, end_UB = index.lookup(visits.path_UB)
    size_UB = end_UB - start_UB
    is_held_UB = size_UB > 0
    user_M, start_M, end_M = np.nonzero(is_held_UB)[0], start_UB[is_held_UB], end_UB[is_held_UB]
    new_M = _first_found(visits.path_UB, index)[is_held_UB] if row_UKJ.shape[2] > 1 else size_UB[is_held_UB]
    log_prob_M, log_share_R = visits.log_prob_UB[is_held_UB].astype(np.float64), router.log_share_R
    highest = float((log_prob_M + log_share_R[start_M]).max())
    step = (highest - float((log_prob_M + log_share_R[end_M - 1]).min()) + 1e-6) / (STEPS - 1)
    count_G = np.zeros(STEPS, np.int64)
    _count(log_prob_M, start_M, end_M, new_M, log_share_R, highest, step, count_G)

    most = len(index.item_ids) + 1
    key_M = user_M * most + start_M
    by_key = np.argsort(key_M)
    row_R = np.repeat(index.offsets[:-1], np.diff(index.offsets))
    wanted_UKJ = np.arange(len(user_UE))[:, None, None] * most + row_R[row_UKJ]
    place_UKJ = np.minimum(np.searchsorted(key_M[by_key], wanted_UKJ), len(key_M) - 1)
    found_UKJ = by_key[place_UKJ]
    is_found_UKJ = (key_M[found_UKJ] == wanted_UKJ) & (row_UKJ >= 0)
    wanted_UK = np.where(is_found_UKJ, log_prob_M[found_UKJ] + log_share_R[row_UKJ], -np.inf).max(axis=2)
    return Offer(
        opening,
        float(visits.work_U.mean()),
        highest - step * np.arange(1, STEPS + 1),
        np.cumsum(count_G) / len(user_UE),
        -np.sort(-wanted_UK.ravel()),
    )


@njit(cache=True, nogil=True)
def _count(log_prob_M, start_M, end_M, new_M, log_share_R, highest, step, count_G):  # type: ignore[no-untyped-def]
    """Count the items that the users find at each step of the price and not above it."""
    for pair in range(len(log_prob_M)):
        start, end = start_M[pair], end_M[pair]
        if log_share_R[start] == log_share_R[end - 1]:
            count_G[np.int64((highest - log_prob_M[pair] - log_share_R[start]) / step)] += new_M[pair]
            continue
        for row in range(start, end):
            count_G[np.int64((highest - log_prob_M[pair] - log_share_R[row]) / step)] += 1


def _first_found(path_UB: IntArray, index: PathIndex) -> IntArray:
    """Return how many items of each visited path are on none of the paths before it, int64 [U, B]."""
    found = gather_candidates(path_UB, *index.arrays)
    new_UB = np.zeros(path_UB.shape, dtype=np.int64)
    np.add.at(new_UB, (np.repeat(np.arange(len(path_UB)), np.diff(found.offsets)), found.beam_slots), 1)
    return new_UB
