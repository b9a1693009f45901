"""The mapping pi of items to paths, as a model holds it while it is fitted. Shape legend: V items, J paths an item."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from dr_core.arrays import IntArray


class PathMapping(nn.Module):
    """A :class:`dr_core.model.structure.Placement` on paths. It follows its model to a device and is not saved with it.

    Args:
        path_VJ: int64 path ids, -1 where an item has fewer than J.
    """

    path_VJ: Tensor

    def __init__(self, path_VJ: IntArray) -> None:
        super().__init__()
        paths = torch.from_numpy(np.array(path_VJ, dtype=np.int64, order="C"))
        self.register_buffer("path_VJ", paths, persistent=False)

    @property
    def num_items(self) -> int:
        """V."""
        return len(self.path_VJ)

    def groups_of(self, item: Tensor) -> Tensor:
        """Return the paths of items, int64 [...] to [..., J]; a padding item (-1) gives item 0's."""
        return self.path_VJ[item.clamp_min(0)]
