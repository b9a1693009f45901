"""After the coordinate descent: paths refined by what the softmax wants for the states that visit them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dr_core.model.objective import DeepRetrievalModel
from dr_core.paths.refinement import refine_paths
from dr_core.paths.space import PathSpace
from pipelines.stages.assign import AssignmentConfig
from pipelines.stages.initialize import softmax_mass


def refined(
    model: DeepRetrievalModel,
    user_NE: Tensor,
    path_VJ: npt.NDArray[np.int64],
    space: PathSpace,
    config: AssignmentConfig,
    *,
    candidates: float,
    seed: int,
) -> npt.NDArray[np.int64]:
    """Return the mapping after :func:`dr_core.paths.refinement.refine_paths`, or as it is where that does not apply.

    It applies with one path an item, every item on a path, and up to ``config.refine_items`` items.

    Args:
        user_NE: a sample of user states.
        path_VJ: int64 [V, J].
        candidates: C, items a user visits.
    """
    num_items, num_paths = path_VJ.shape
    if num_paths > 1 or not config.refine_sweeps or num_items > config.refine_items or path_VJ.min() < 0:
        return path_VJ
    path_V = refine_paths(
        softmax_mass(model, user_NE),
        path_VJ[:, 0],
        space,
        candidates=candidates,
        num_sweeps=config.refine_sweeps,
        capacity=config.refine_capacity,
        seed=seed,
    )
    return path_V[:, np.newaxis]
