"""What a price buys: for some users, the candidates and the wanted items that each price and each opening finds.

One price for all users is the greedy answer to: of all ways to spend so many candidates in total, which holds the most
probability (the fractional knapsack, Dantzig 1957)? Shape legend: U users, E user dimension, K wanted items a user,
J paths an item, B paths visited.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dr_core.arrays import DoubleArray, FloatArray, IntArray
from dr_core.paths.index import PathIndex
from dr_core.retrieval.candidates import gather_candidates
from dr_core.retrieval.router import Price, Router

OPENINGS = (-np.inf, -10.0, -8.0, -7.0, -6.0, -5.0, -4.0, -3.0)
"""Thresholds of ln p that are tried for opening a prefix; the first opens everything."""
MOST_VISITS = 2**24
"""Visits held at a time."""
LIMIT = 4.0
"""Most candidates of one user, in units of the mean that a price is chosen for."""


@dataclass(frozen=True)
class Offer:
    """What one opening finds, at every price."""

    opening: float
    work: float
    """Mean multiply-adds a user of finding the paths."""
    score_M: DoubleArray
    """ln of the mean probability of an item on each path that any user could visit, descending."""
    candidates_M: DoubleArray
    """Mean distinct candidates a user when every path down to this one is visited."""
    wanted_score_W: DoubleArray
    """The score of the path on which each wanted item is found, descending; -inf where it is not."""

    def price_of(self, candidates: float) -> float:
        """Return the highest price at which the users find so many candidates on average."""
        place = int(np.searchsorted(self.candidates_M, candidates))
        return float(self.score_M[min(place, len(self.score_M) - 1)])

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
        return float(self.candidates_M[np.searchsorted(-self.score_M, -score, side="right") - 1])


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
        """
        users = max(1, min(len(user_UE), MOST_VISITS // max(router.num_groups, 1)))
        path_VJ, wanted_UK = paths_of_items(index), wanted_UK[:users]
        is_known_UK = wanted_UK < len(path_VJ)
        path_UKJ = np.where(is_known_UK[..., None], path_VJ[np.where(is_known_UK, wanted_UK, 0)], -1)
        return cls([_offer(router, index, user_UE[:users], path_UKJ, opening) for opening in OPENINGS], candidate_work)

    def at(self, candidates: float) -> Price:
        """Return the price at which the users find so many candidates on average, at the opening of least work.

        Openings are compared at equal recall: that of as many candidates with everything open. What an opening misses it
        has to make up for by further candidates.
        """
        recall = self.recall_of(candidates)
        wide = [offer for offer in self.offers if offer.candidates_M[-1] >= candidates] or [self.offers[0]]
        best = min(wide, key=lambda offer: offer.work + self.candidate_work * offer.candidates_for(recall))
        return Price(best.price_of(candidates), best.opening, round(LIMIT * candidates))

    def recall_of(self, candidates: float) -> float:
        """Return the recall that so many candidates a user buy, with everything open."""
        return self.offers[0].recall(self.offers[0].price_of(candidates))

    def candidates_for(self, recall: float) -> float:
        """Return the fewest candidates a user that hold this share of the wanted items, with everything open."""
        return self.offers[0].candidates_for(recall)


def paths_of_items(index: PathIndex) -> IntArray:
    """Return the paths of every item of an index, int64 [V, J], -1 where an item is on fewer."""
    path_R = np.repeat(index.path_ids, np.diff(index.offsets))
    order = np.argsort(index.item_ids, kind="stable")
    item_R, path_R = index.item_ids[order].astype(np.int64), path_R[order]
    first_R = np.searchsorted(item_R, item_R)
    rank_R = np.arange(len(item_R)) - first_R
    path_VJ = np.full((int(item_R.max(initial=-1)) + 1, int(rank_R.max(initial=0)) + 1), -1, np.int64)
    path_VJ[item_R, rank_R] = path_R
    return path_VJ


def _offer(router: Router, index: PathIndex, user_UE: FloatArray, path_UKJ: IntArray, opening: float) -> Offer:
    visits = router.visit(user_UE, Price(-np.inf, opening, np.iinfo(np.int64).max))
    start_UB, end_UB = index.lookup(visits.path_UB)
    size_UB = end_UB - start_UB
    is_held_UB = size_UB > 0
    user_M, path_M = np.nonzero(is_held_UB)[0], visits.path_UB[is_held_UB]
    score_M = visits.log_prob_UB[is_held_UB] - np.log(size_UB[is_held_UB])
    new_M = _first_found(visits.path_UB, index)[is_held_UB] if path_UKJ.shape[2] > 1 else size_UB[is_held_UB]
    most = int(index.path_ids.max(initial=0)) + 1
    key_M = user_M * most + path_M
    by_key = np.argsort(key_M)
    wanted_UKJ = np.arange(len(user_UE))[:, None, None] * most + path_UKJ
    place_UKJ = np.minimum(np.searchsorted(key_M[by_key], wanted_UKJ), len(key_M) - 1)
    found_UKJ = by_key[place_UKJ]
    is_found_UKJ = (key_M[found_UKJ] == wanted_UKJ) & (path_UKJ >= 0)
    wanted_UK = np.where(is_found_UKJ, score_M[found_UKJ], -np.inf).max(axis=2)
    order_M = np.argsort(-score_M, kind="stable")
    return Offer(
        opening,
        float(visits.work_U.mean()),
        score_M[order_M].astype(np.float64),
        np.cumsum(new_M[order_M]) / len(user_UE),
        -np.sort(-wanted_UK.ravel().astype(np.float64)),
    )


def _first_found(path_UB: IntArray, index: PathIndex) -> IntArray:
    """Return how many items of each visited path are on none of the paths before it, int64 [U, B]."""
    found = gather_candidates(path_UB, *index.arrays)
    new_UB = np.zeros(path_UB.shape, dtype=np.int64)
    np.add.at(new_UB, (np.repeat(np.arange(len(path_UB)), np.diff(found.offsets)), found.beam_slots), 1)
    return new_UB
