"""Embedded values of one feature of the items, several values of an item averaged."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from dr_core.item_lists import ItemLists


class ValueTable(nn.Module):
    """A row of ``dim`` numbers for each value of a feature.

    Args:
        values: of every item; an item without any gets zeros.
        num_values: different values.
    """

    def __init__(self, values: ItemLists, num_values: int, dim: int) -> None:
        super().__init__()
        self.offsets, self.values = (torch.from_numpy(np.array(part, dtype=np.int64)) for part in values)
        self.table = nn.EmbeddingBag(max(num_values, 1), dim, mode="mean")
        nn.init.normal_(self.table.weight, std=dim**-0.5)

    def forward(self, item_C: Tensor) -> Tensor:
        """Return float32 [C, dim] of items int64 [C]."""
        first, count = self.offsets[item_C], self.offsets[item_C + 1] - self.offsets[item_C]
        start_C = torch.cumsum(count, 0) - count
        inside = torch.arange(int(count.sum())) - torch.repeat_interleave(start_C, count)
        embedded_CE: Tensor = self.table(self.values[torch.repeat_interleave(first, count) + inside], start_C)
        return embedded_CE
