"""Which paths users visit. Legend: U users, B beam, V items, J paths an item, E user dimension."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from dr_core.arrays import IntArray
from dr_core.model.objective import DeepRetrievalModel
from dr_core.paths.index import build_index
from dr_core.retrieval.from_model import compiled_structure


def visited_paths(model: DeepRetrievalModel, path_VJ: IntArray, user_UE: Tensor, beam: int) -> IntArray:
    """Return the paths that the served search visits for each user, int64 [U, min(B, K^D)], best first.

    They are the highest by p(c|x) / |c| (:meth:`dr_core.retrieval.beam_kernel.CompiledStructure.search`), as in
    retrieval, with the lengths that ``path_VJ`` gives the paths.

    Args:
        model: its structure model gives p(c|x).
        path_VJ: int64, the mapping, -1 where an item has no path.
        user_UE: float32 user states.
        beam: B.
    """
    index = build_index(np.arange(len(path_VJ)), path_VJ)
    return compiled_structure(model.structure, index).visit(user_UE.numpy(), beam).path_UB
