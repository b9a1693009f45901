"""The structure model p(c|x) of one softmax over all paths: global energies, and layers that lead to them.

Deep Retrieval (section 2.1) normalises each layer by itself, so that one layer that is off shifts every path below it.
Here a path has an energy e_c = <x, w_c> + b_c, and ln p(c|x) = e_c - ln Z with Z over all paths: the class-based language
model of Goodman (2001) put back into one maximum-entropy model. A layer before the last is a router: energies of its
prefixes, fitted to the probability that the path energies give to all paths below each prefix.

Shape legend: N user states, M paths a state, T targets a state, E user dimension, D layers, P paths, Q prefixes of some
layer, O opened prefixes a state, R (state, prefix) pairs, V items, J paths an item.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dr_core.model.partition import log_partition
from dr_core.model.structure import Placement, Structure
from dr_core.model.structure_config import StructureConfig
from dr_core.paths.space import PathSpace

MOST_TABLE = 2**25
"""Energies held at a time where no gradient is wanted."""
OPENED = 64
"""Prefixes whose paths stand for Z where there are too many paths to sum them all."""
UNREACHED = 2.0
"""How much less than the least path that holds an item a path without any gets at the start, in logarithms."""


class EnergyStructure(Structure):
    """ln p(c|x) = e_c - ln Z over all paths, with a router for every layer but the last.

    Given the states, fitting it is convex. Until :meth:`start` has been called it is the uniform distribution.

    Args:
        config: ``exact_paths``, up to which Z is the sum over all paths.
        space: nodes of the layers.
        user_dim: E.

    Raises:
        ValueError: too many paths even for prefixes that lead to them: those of D - 1 nodes are more than ``exact_paths``.
    """

    def __init__(self, config: StructureConfig, space: PathSpace, user_dim: int) -> None:
        super().__init__()
        self.config, self.space = config, space
        self.is_exact = space.num_paths <= config.exact_paths
        depths = range(1, space.num_layers + 1)
        if not self.is_exact and space.num_prefixes(space.num_layers - 1) > config.exact_paths:
            raise ValueError(
                f"layers of {list(space.nodes)} nodes have more than {config.exact_paths} prefixes above the last layer:"
                " give the last layer more nodes, or raise structure.exact_paths"
            )
        self.vectors = nn.ParameterList(
            nn.Parameter(torch.zeros(space.num_prefixes(depth), user_dim)) for depth in depths
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(space.num_prefixes(depth))) for depth in depths)

        self.register_load_state_dict_pre_hook(_without_mark)  # type: ignore[no-untyped-call]

    @property
    def num_groups(self) -> int:
        """Paths of the space."""
        return self.space.num_paths

    def log_prob(self, user_NE: Tensor, group_NM: Tensor) -> Tensor:
        """Return log p(c|x) for given paths, float32 [N, M]; see :class:`dr_core.model.structure.Structure`.

        Exact up to ``exact_paths`` paths. Beyond, Z is the sum over the paths below the best prefixes, divided by the
        probability that the router gives to these.
        """
        known_NM = group_NM.clamp_min(0)
        energy_NM = (self.vectors[-1][known_NM] @ user_NE[..., None])[..., 0] + self.biases[-1][known_NM]
        if self.is_exact:
            log_z_N = log_partition(user_NE, self.vectors[-1], self.biases[-1])
        else:
            log_z_N = self._opened_log_z(user_NE)
        log_p_NM: Tensor = energy_NM - log_z_N[:, None]
        return log_p_NM.masked_fill(group_NM < 0, -torch.inf)

    def _opened_log_z(self, user_NE: Tensor) -> Tensor:
        router, children = self.space.num_layers - 1, self.space.nodes[-1]
        with torch.no_grad():
            log_q_NQ = torch.log_softmax(user_NE @ self.vectors[router - 1].T + self.biases[router - 1], dim=1)
            log_q_NO, prefix_NO = log_q_NQ.topk(min(OPENED, log_q_NQ.shape[1]), dim=1)
        vector_QKE, bias_QK = self.vectors[-1].view(-1, children, user_NE.shape[1]), self.biases[-1].view(-1, children)
        rows, logits = [], []
        for prefix in torch.unique(prefix_NO).tolist():
            row = (prefix_NO == prefix).any(1).nonzero()[:, 0]
            rows.append(row)
            logits.append(torch.addmm(bias_QK[prefix], user_NE[row], vector_QKE[prefix].T).logsumexp(1))
        row_R, logit_R = torch.cat(rows), torch.cat(logits)
        order_R = torch.argsort(row_R, stable=True)
        return logit_R[order_R].view(prefix_NO.shape).logsumexp(1) - log_q_NO.logsumexp(1)

    def loss(self, user_NE: Tensor, target_NT: Tensor, weight_NT: Tensor, placement: Placement) -> Tensor:
        """Return -Q_str, as every structure does; its gradient also fits the routers, which leave the value as it is."""
        loss = super().loss(user_NE, target_NT, weight_NT, placement)
        if self.space.num_layers == 1:
            return loss
        group_NTJ = placement.groups_of(target_NT)
        is_placed_NT = (group_NTJ >= 0).any(-1)
        router = self._router_loss(user_NE.detach(), group_NTJ, weight_NT * is_placed_NT)
        return loss + (router - router.detach())

    def _router_loss(self, user_NE: Tensor, group_NTJ: Tensor, weight_NT: Tensor) -> Tensor:
        """Cross entropy of each router against the paths' own probability below its prefixes.

        Where the paths are too many, the last router is fitted to the prefixes of the targets instead.
        """
        total, weight_N = user_NE.sum() * 0.0, weight_NT.sum(1)
        last = self.space.num_layers - 1
        for depth in range(1, self.space.num_layers):
            log_q_NQ = torch.log_softmax(user_NE @ self.vectors[depth - 1].T + self.biases[depth - 1], dim=1)
            if depth == last and not self.is_exact:
                log_q_NTJ = log_q_NQ.gather(1, (group_NTJ.clamp_min(0) // self.space.nodes[-1]).flatten(1)).view(
                    group_NTJ.shape
                )
                total = total - (log_q_NTJ.mean(-1) * weight_NT).sum()
            else:
                total = total - ((self._below(user_NE, depth) * log_q_NQ).sum(1) * weight_N).sum()
        return total

    @torch.no_grad()
    def _below(self, user_NE: Tensor, depth: int) -> Tensor:
        """Return the probability of all paths below each prefix of ``depth`` nodes, float32 [N, Q]."""
        layer = self.space.num_layers if self.is_exact else self.space.num_layers - 1
        vector_PE, bias_P = self.vectors[layer - 1], self.biases[layer - 1]
        rows = max(1, MOST_TABLE // len(bias_P))
        parts = [
            torch.softmax(torch.addmm(bias_P, part_NE, vector_PE.T), dim=1)
            .view(len(part_NE), self.space.num_prefixes(depth), -1)
            .sum(2)
            for part_NE in torch.split(user_NE, rows)
        ]
        return torch.cat(parts)

    @torch.no_grad()
    def start(self, mean_E: Tensor, vector_VE: Tensor, bias_V: Tensor, path_VJ: Tensor) -> None:
        """Start every energy as the tangent, at the mean state, of the log-sum of its items' softmax scores.

        With q_v the softmax of <x, e_v> + b_v among the items of c at the mean state x: w_c = sum_v q_v e_v, and b_c
        makes e_c at the mean state ln sum_v exp(<x, e_v> + b_v).

        Args:
            mean_E: float32, the mean of the user states.
            vector_VE, bias_V: the softmax over the items.
            path_VJ: int64, -1 where an item has fewer; an item counts for a J-th on each of its paths.
        """
        score_V = vector_VE @ mean_E + bias_V
        item_M, slot_M = (path_VJ >= 0).nonzero(as_tuple=True)
        path_M = path_VJ[item_M, slot_M]
        parent_vector_QE, parent_score_Q = (vector_VE.mean(0))[None], score_V.logsumexp(0)[None]
        for depth, nodes in enumerate(self.space.nodes, start=1):
            group_M = path_M // self.space.paths_below(depth)
            score_Q = _log_sum_by(group_M, score_V[item_M], self.space.num_prefixes(depth))
            share_M = (score_V[item_M] - score_Q[group_M]).exp()
            vector_QE = torch.zeros_like(self.vectors[depth - 1]).index_add_(
                0, group_M, share_M[:, None] * vector_VE[item_M]
            )
            is_empty_Q = score_Q.isneginf()
            vector_QE[is_empty_Q] = parent_vector_QE.repeat_interleave(nodes, 0)[is_empty_Q]
            least = score_Q[~is_empty_Q].min() if len(group_M) else parent_score_Q.min()
            score_Q[is_empty_Q] = least - UNREACHED
            self.vectors[depth - 1].copy_(vector_QE)
            self.biases[depth - 1].copy_(score_Q - vector_QE @ mean_E)
            parent_vector_QE, parent_score_Q = vector_QE, score_Q


def _without_mark(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Leave out what models and checkpoints also held before every E-step began by formula: whether they had begun."""
    state.pop(f"{prefix}is_started", None)


def _log_sum_by(group_M: Tensor, score_M: Tensor, num_groups: int) -> Tensor:
    """Return log sum exp of the scores in each group, float32 [num_groups]; -inf where there are none."""
    highest_Q = score_M.new_full((num_groups,), -torch.inf).scatter_reduce_(0, group_M, score_M, "amax")
    sum_Q = torch.zeros_like(highest_Q).index_add_(0, group_M, (score_M - highest_Q[group_M]).exp())
    return highest_Q + sum_Q.log().nan_to_num(nan=-torch.inf)
