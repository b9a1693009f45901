"""After the coordinate descent: paths refined by what the softmax wants for the states that visit them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dr_core.learning.config import AssignmentConfig
from dr_core.learning.start import softmax_mass
from dr_core.model.objective import DeepRetrievalModel
from dr_core.paths.refinement import captured_mass, refine_paths
from dr_core.paths.space import PathSpace


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

    Refined is the one whose paths hold more of the softmax's mass at the widths that retrieval may be served with, candidates
    being what both pay for; the descent's, where the parent leaves items out. The descent's comes back as it is with several
    paths an item, with items on no path, or with more than ``config.refine_items`` items.

    Args:
        model: its softmax says what a state wants.
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
