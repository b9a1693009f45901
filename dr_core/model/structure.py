"""What the EM algorithm asks of a structure: groups of items, and how probably a user wants one of each.

Groups are paths today (:class:`dr_core.model.path_structure.PathStructure`); leaves of a tree or lists of an index would
fit as well. Shape legend: N user states, M groups a state, T targets a state, J groups an item, E user dimension.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from torch import Tensor, nn


class Placement(Protocol):
    """Which groups each item is in."""

    @property
    def num_items(self) -> int:
        """V."""

    def groups_of(self, item: Tensor) -> Tensor:
        """Return the groups of items, int64 [...] to [..., J], -1 where an item has fewer; a padding item (-1) may give
        those of any other."""


class Structure(nn.Module, ABC):
    """Leads a user to groups of items (Deep Retrieval, section 2.1). Groups are numbered from 0."""

    @property
    @abstractmethod
    def num_groups(self) -> int:
        """How many groups there are."""

    @abstractmethod
    def log_prob(self, user_NE: Tensor, group_NM: Tensor) -> Tensor:
        """Return log p(c|x) of given groups.

        Args:
            user_NE: float32 user states.
            group_NM: int64 groups; -1 is none.

        Returns:
            float32 [N, M], -inf where there is no group.
        """

    def item_log_prob(self, user_NE: Tensor, item_NT: Tensor, placement: Placement) -> Tensor:
        """Return log sum_j p(pi_j(v)|x) of items, float32 [N, T]; -inf where an item is in no group.

        A padding item (-1) gives what any other gives.
        """
        group_NTJ = placement.groups_of(item_NT)
        log_p_NTJ = self.log_prob(user_NE, group_NTJ.flatten(1)).view(group_NTJ.shape)
        # logsumexp of nothing but -inf is -inf, but its gradient is no number.
        is_placed_NT = (group_NTJ >= 0).any(-1)
        log_p_NT = log_p_NTJ.masked_fill(~is_placed_NT[..., None], 0.0).logsumexp(-1)
        return log_p_NT.masked_fill(~is_placed_NT, -torch.inf)

    def loss(self, user_NE: Tensor, target_NT: Tensor, weight_NT: Tensor, placement: Placement) -> Tensor:
        """Return -Q_str = -sum_i w_i log sum_j p(pi_j(y_i)|x_i), the multi-path objective of section 2.1.

        Args:
            user_NE: float32 user states.
            target_NT: int64 items, -1 is none.
            weight_NT: float32, 0 where there is no target.
            placement: pi. Items in no group do not count.
        """
        log_p_NT = self.item_log_prob(user_NE, target_NT, placement)
        is_placed_NT = log_p_NT > -torch.inf
        return -(log_p_NT.masked_fill(~is_placed_NT, 0.0) * weight_NT).sum()
