"""After the coordinate descent: paths refined by what the models want for the states that visit them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from torch import Tensor

from dr_core.model.compiled import CompiledStructure
from dr_core.model.objective import DeepRetrievalModel
from dr_core.paths.refinement import captured_mass, refine_paths
from dr_core.paths.space import PathSpace
from pipelines.stages.assign import AssignmentConfig
from pipelines.stages.initialize import softmax_mass

STATES_AT_ONCE = 256


def refined(
    model: DeepRetrievalModel,
    user_NE: Tensor,
    descended_VJ: npt.NDArray[np.int64],
    parent_VJ: npt.NDArray[np.int64],
    space: PathSpace,
    config: AssignmentConfig,
    *,
    budgets: Sequence[float],
    seed: int,
) -> npt.NDArray[np.int64]:
    """Return a mapping after :func:`dr_core.paths.refinement.refine_paths`: the descent's, or its parent's.

    Refined is the one whose paths hold more mass at the widths that retrieval may be served with, candidates being what both
    pay for. The mass is the softmax's, pooled with the structure model's (:func:`pooled_mass`) if the configuration asks for
    it and all items of the parent stand on a path. The descent's comes back as it is with several paths an item, with items
    on no path, or with more than ``config.refine_items`` items.

    Args:
        model: its structure model was fitted to the parent.
        user_NE: a sample of user states.
        descended_VJ: int64 [V, J], after the descent.
        parent_VJ: int64 [V, J], before it.
        budgets: each C, items a user visits.
    """
    num_items, num_paths = descended_VJ.shape
    if num_paths > 1 or not config.refine_sweeps or num_items > config.refine_items or descended_VJ.min() < 0:
        return descended_VJ
    mass_NV = softmax_mass(model, user_NE)
    usable = parent_VJ.shape == descended_VJ.shape and parent_VJ.min() >= 0
    if usable and config.refine_pool:
        mass_NV = pooled_mass(mass_NV, model, user_NE, parent_VJ[:, 0], config.refine_pool)
    start_V = max(
        (descended_VJ[:, 0], parent_VJ[:, 0]) if usable else (descended_VJ[:, 0],),
        key=lambda path_V: captured_mass(mass_NV, path_V, space.num_paths, budgets),
    )
    path_V = refine_paths(
        mass_NV,
        start_V,
        space,
        budgets=budgets,
        num_sweeps=config.refine_sweeps,
        capacity=config.refine_capacity,
        seed=seed,
    )
    return path_V[:, np.newaxis]


def pooled_mass(
    mass_NV: csr_matrix,
    model: DeepRetrievalModel,
    user_NE: Tensor,
    path_V: npt.NDArray[np.int64],
    say: float,
) -> csr_matrix:
    """Return the softmax's mass after the structure model has had its say about each path's share of it.

    A path's share is the weighted geometric mean of both models' probabilities of it (a logarithmic opinion pool: Genest and
    Zidek, Statistical Science 1986); within a path the softmax's shares stand, and so does each state's total. The structure
    model learns a path from all of its items' events, the softmax an item from its own, which may be few.

    Args:
        mass_NV: of :func:`pipelines.stages.initialize.softmax_mass`.
        model: its structure model was fitted to ``path_V``.
        user_NE: the states of ``mass_NV``.
        path_V: int64 [V], one path an item.
        say: weight of the structure model, from 0 to 1.
    """
    structure, num_paths = CompiledStructure(model.structure), model.space.num_paths
    pooled = mass_NV.data.astype(np.float64)
    for first in range(0, len(user_NE), STATES_AT_ONCE):
        block = user_NE[first : first + STATES_AT_ONCE].numpy()
        prob_NP = np.exp(structure.log_prob(block, np.tile(np.arange(num_paths), (len(block), 1))))
        for state, prob_P in enumerate(prob_NP, first):
            row = slice(mass_NV.indptr[state], mass_NV.indptr[state + 1])
            paths = path_V[mass_NV.indices[row]]
            mass_P = np.bincount(paths, pooled[row], minlength=num_paths)
            total = mass_P.sum()
            pooled[row] *= (prob_P[paths] / np.maximum(mass_P[paths], np.finfo(np.float64).tiny)) ** say
            pooled[row] *= total / pooled[row].sum()
    return csr_matrix((pooled.astype(np.float32), mass_NV.indices, mass_NV.indptr), mass_NV.shape)
