"""The retriever: history -> beam -> de-duplicated candidates -> reranker -> top k (Deep Retrieval, sections 2.2, 2.3).

Shape legend: U users, L history length, B beam, E dimension, k items returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dr_core.arrays import IntArray
from dr_core.errors import ReleaseMismatch
from dr_core.model.histories import encode_histories
from dr_core.model.objective import DeepRetrievalModel
from dr_core.paths.index import PathIndex
from dr_core.retrieval.beam_kernel import CompiledStructure
from dr_core.retrieval.beam_search import Beam
from dr_core.retrieval.candidates import Candidates, gather_candidates
from dr_core.retrieval.scan import PathOrderedItems


@dataclass(frozen=True)
class Retrieved:
    """The items of a block of users, best first; -1 where a user has fewer than k."""

    item_Uk: IntArray
    """int64 item ids."""
    score_Uk: npt.NDArray[np.float32]
    """Reranker scores, -inf where there is no item."""
    path_Uk: IntArray
    """int64, the first of the beam's paths that led to the item."""
    path_probability_Uk: npt.NDArray[np.float32]
    """p(c|x) of that path."""
    num_candidates_U: IntArray
    """Distinct items on the beam's paths, before any filter."""


class Retriever:
    """Serves one release.

    Args:
        model: encoder, structure model and reranker.
        index: the inverse of the release's mapping.
        beam: B, paths kept by the search.
        max_length: L, most recent history items used.
        release_of_model, release_of_index: ids that must agree.

    Raises:
        ReleaseMismatch: model and index belong to different releases, or to different sets of items.
    """

    def __init__(
        self,
        model: DeepRetrievalModel,
        index: PathIndex,
        *,
        beam: int,
        max_length: int,
        release_of_model: str = "",
        release_of_index: str = "",
    ) -> None:
        if release_of_model != release_of_index:
            raise ReleaseMismatch(
                f"the model is of release {release_of_model!r}, the index of {release_of_index!r}: load both from one release"
            )
        if len(index.item_ids) and int(index.item_ids.max()) >= model.num_items:
            raise ReleaseMismatch(f"the index names items the model does not know (it has {model.num_items})")
        self.model = model.eval().requires_grad_(False)
        self.index, self.beam, self.max_length = index, beam, max_length
        vectors, bias = model.reranker.item_vectors()
        self.vector_VE = np.ascontiguousarray(vectors.numpy())
        self.bias_V = np.ascontiguousarray(bias.numpy())
        self.compiled = CompiledStructure(model.structure, index.log_sizes(model.space.num_paths))

    @cached_property
    def items(self) -> PathOrderedItems:
        """The item vectors path by path."""
        return PathOrderedItems(self.index, self.vector_VE, self.bias_V)

    def encode(self, histories: Sequence[Sequence[int]], context: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return the user states [U, E] of histories of item ids, oldest first; an empty one is encoded as padding.

        Items that came after the model are left out.
        """
        return encode_histories(self.model, histories, self.max_length, context)

    def _known(self, items: Sequence[int]) -> list[int]:
        return [item for item in items if 0 <= item < self.model.num_items]

    def search(self, user_UE: Tensor, beam: int | None = None) -> Beam:
        """Return the paths of each user state whose items are the most probable: those of the highest p(c|x) / |c|, in
        that order. The paper takes the highest p(c|x), which at equal candidates finds less."""
        paths, log_probs = self.compiled.search(user_UE.numpy(), self.beam if beam is None else beam)
        return Beam(torch.from_numpy(paths), torch.from_numpy(log_probs))

    def candidates(self, paths: Beam) -> Candidates:
        """Return the distinct items on the paths of each user."""
        return gather_candidates(paths.path_NB.numpy(), *self._index_arrays())

    def retrieve(
        self,
        user_UE: Tensor,
        k: int,
        *,
        beam: int | None = None,
        excluded: Sequence[Sequence[int]] | None = None,
        blocked: Sequence[int] = (),
    ) -> Retrieved:
        """Return the top k items of each user state.

        Args:
            user_UE: from :meth:`encode`.
            k: items wanted.
            beam: B, by default the release's.
            excluded: item ids a user must not get (typically the history), one sequence a user.
            blocked: item ids nobody gets.

        Raises:
            ValueError: k or ``beam`` < 1, or ``excluded`` is not one sequence a user.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, was {k}")
        if excluded is not None and len(excluded) != len(user_UE):
            raise ValueError(f"excluded holds {len(excluded)} sequences for {len(user_UE)} users")
        path_UB, log_prob_UB = self.compiled.search(user_UE.numpy(), self.beam if beam is None else beam)
        everywhere = self._known(blocked)
        barred = [self._known(items) + everywhere for items in excluded or [()] * len(user_UE)]
        item_Uk, score_Uk, slot_Uk, num_U = self.items.best(user_UE.numpy(), path_UB, k, lists_to_csr(barred))
        if self.items.most_repeats > 1:
            num_U = np.diff(gather_candidates(path_UB, *self._index_arrays()).offsets)
        held = np.maximum(slot_Uk, 0)
        path_Uk = np.where(slot_Uk >= 0, np.take_along_axis(path_UB, held, 1), -1)
        probability_Uk = np.exp(np.take_along_axis(log_prob_UB, held, 1))
        return Retrieved(item_Uk, score_Uk, path_Uk, np.where(slot_Uk >= 0, probability_Uk, 0), num_U)

    def _index_arrays(self) -> tuple[IntArray, IntArray, npt.NDArray[np.int32]]:
        return self.index.path_ids, self.index.offsets, self.index.item_ids


def lists_to_csr(lists: Sequence[Sequence[int]]) -> tuple[IntArray, IntArray]:
    """Return ragged lists of ids as CSR (offsets int64 [n + 1], ids int64)."""
    offsets = np.zeros(len(lists) + 1, dtype=np.int64)
    np.cumsum([len(values) for values in lists], out=offsets[1:])
    flat = (
        np.concatenate([np.asarray(values, dtype=np.int64) for values in lists])
        if offsets[-1]
        else np.zeros(0, np.int64)
    )
    return offsets, flat
