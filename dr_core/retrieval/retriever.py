"""The retriever: history -> paths -> de-duplicated candidates -> ranker -> top k (Deep Retrieval, sections 2.2, 2.3).

Shape legend: U users, L history length, B beam, E dimension, k items returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from dr_core.arrays import AnyIntArray, FloatArray, IntArray
from dr_core.item_lists import ItemLists
from dr_core.paths.index import PathIndex
from dr_core.retrieval.candidates import Candidates, gather_candidates
from dr_core.retrieval.encoder import Encoder
from dr_core.retrieval.filter import Allowed
from dr_core.retrieval.rank import Ranker
from dr_core.retrieval.router import Price, Router, Visits, Width

Lists = Sequence[Sequence[int] | AnyIntArray] | ItemLists
"""One sequence of item ids a user: the model's own numbers, 0 to V - 1, not the keys that a log calls items by."""


@dataclass(frozen=True)
class Retrieved:
    """The items of a block of users, best first; -1 where a user has fewer than k."""

    item_Uk: IntArray
    """int64 item ids."""
    score_Uk: FloatArray
    """Ranker's scores, -inf where there is no item."""
    path_Uk: IntArray
    """int64, the first of the visited paths that led to the item."""
    path_probability_Uk: FloatArray
    """p(c|x) of that path."""
    num_candidates_U: IntArray
    """Distinct items visited, before any filter but ``allowed``."""
    num_paths_U: IntArray
    """int64, paths visited."""


class Retriever:
    """Encoder, router, index and ranker of one mapping.

    Items are the model's own numbers throughout, 0 to V - 1. :class:`dr_core.DeepRetrieval` and
    :class:`pipelines.serving.service.Service` take and return keys as they stand in the log.

    Args:
        encoder: histories to user states.
        router: user states to paths.
        index: paths to items.
        ranker: the items of the paths in order.
        width: of the search, where a call names none.
    """

    def __init__(self, encoder: Encoder, router: Router, index: PathIndex, ranker: Ranker, *, width: Width) -> None:
        self.encoder, self.router, self.index, self.ranker, self.width = encoder, router, index, ranker, width
        self._restricted: WeakKeyDictionary[Allowed, Retriever] = WeakKeyDictionary()

    @property
    def num_items(self) -> int:
        """V, items known."""
        return self.encoder.num_items

    def encode(self, histories: Lists) -> FloatArray:
        """Return the user states [U, E] of histories of item ids, oldest first; an empty one is encoded as padding.

        Raises:
            ValueError: an id is outside [0, V). Leave out items that came after the model: :meth:`ItemLists.known`.
        """
        return self.encoder.encode(_lists(histories).checked(self.num_items, "a history"))

    def search(self, user_UE: FloatArray, width: Width | None = None) -> Visits:
        """Return the paths of each user state whose items are the most probable: those of the highest p(c|x) / |c|, in
        that order. The paper takes the highest p(c|x), which at equal candidates finds less."""
        return self.router.visit(user_UE, self.width if width is None else width)

    def candidates(self, visits: Visits) -> Candidates:
        """Return the distinct items that each user visits."""
        return gather_candidates(visits.path_UB, *self.index.arrays, visits.items_UB)

    def only(self, allowed: Allowed) -> Retriever:
        """Return the retriever of the allowed items, built once for each such set: paths without any are not visited, the
        others have the size of what is left."""
        if allowed not in self._restricted:
            index = allowed.on(self.index)
            ranker = self.ranker.only(allowed)
            self._restricted[allowed] = Retriever(
                self.encoder, self.router.within(index), index, ranker, width=self.width
            )
        return self._restricted[allowed]

    def retrieve(
        self,
        user_UE: FloatArray,
        k: int,
        *,
        width: Width | None = None,
        excluded: Lists | None = None,
        blocked: Sequence[int] | AnyIntArray = (),
        allowed: Allowed | None = None,
        full: bool = False,
    ) -> Retrieved:
        """Return the top k items of each user state.

        Args:
            user_UE: from :meth:`encode`.
            k: items wanted.
            width: a beam or a price, by default the release's.
            excluded: item ids a user must not get (typically the history), one sequence a user.
            blocked: item ids nobody gets: a few, taken out after the search.
            allowed: the only items anybody gets: the search visits nothing else, and lists are ``full``.
            full: whether a user whose list is not full is searched for twice as widely until it is or nothing is left to visit.

        Raises:
            ValueError: k or a beam < 1, ``excluded`` is not one sequence a user, or an id is outside [0, V).
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, was {k}")
        lists = ItemLists.from_rows([()] * len(user_UE)) if excluded is None else _lists(excluded)
        if lists.num_users != len(user_UE):
            raise ValueError(f"excluded holds {lists.num_users} sequences for {len(user_UE)} users")
        everywhere = ItemLists.from_rows([blocked]).checked(self.num_items, "blocked").item_ids
        barred = lists.checked(self.num_items, "excluded").with_everywhere(everywhere)
        wanted = self.width if width is None else width
        if allowed is not None:
            return self.only(allowed)._widened(user_UE, k, wanted, barred)
        return (self._widened if full else self._best)(user_UE, k, wanted, barred)

    def _widened(self, user_UE: FloatArray, k: int, width: Width, barred: ItemLists) -> Retrieved:
        found = self._best(user_UE, k, width, barred)
        columns = vars(found)
        short_S, factor = np.flatnonzero(found.item_Uk[:, -1] < 0), 2
        while len(short_S) and not self._is_everything(width):
            width = width.wider(factor) if isinstance(width, Price) else 2 * width
            factor *= factor
            again = self._best(user_UE[short_S], k, width, barred.of_users(short_S))
            for name, column in columns.items():
                column[short_S] = getattr(again, name)
            short_S = short_S[again.item_Uk[:, -1] < 0]
        return found

    def _is_everything(self, width: Width) -> bool:
        return width.price == -np.inf if isinstance(width, Price) else width >= self.router.num_groups

    def _best(self, user_UE: FloatArray, k: int, width: Width, barred: ItemLists) -> Retrieved:
        path_UB, log_prob_UB, _, items_UB = self.search(user_UE, width)
        item_Uk, score_Uk, slot_Uk, num_U = self.ranker.rank(user_UE, path_UB, k, barred, items_UB)
        column_Uk = np.maximum(slot_Uk, 0)
        path_Uk = np.where(slot_Uk >= 0, np.take_along_axis(path_UB, column_Uk, 1), -1)
        probability_Uk = np.exp(np.take_along_axis(log_prob_UB, column_Uk, 1))
        paths_U = np.count_nonzero(path_UB >= 0, axis=1)
        return Retrieved(item_Uk, score_Uk, path_Uk, np.where(slot_Uk >= 0, probability_Uk, 0), num_U, paths_U)


def _lists(lists: Lists) -> ItemLists:
    return lists if isinstance(lists, ItemLists) else ItemLists.from_rows(lists)
