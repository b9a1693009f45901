"""The structure model p(c|x): one MLP a layer over the user vector and the embeddings of the path so far, path vectors last.

Deep Retrieval, section 2.1; how a path conditions its layer follows feature-wise linear modulation (Perez et al., AAAI 2018);
the last layer is that of a hierarchical softmax, log-bilinear in user and path (Mnih and Hinton, *A Scalable Hierarchical
Distributed Language Model*, NIPS 2008).
Shape legend: N user states, M paths a state, E user dimension, H hidden, K nodes, D layers, Q = K^(D-1) prefixes of D - 1
nodes, R (state, prefix) pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dr_core.model.structure import Structure
from dr_core.model.structure_config import StructureConfig
from dr_core.paths.space import PathSpace

PATH_VECTOR_START = 0.01
"""Standard deviation of the path vectors before training: a path with few events stays near its bias."""


class PathStructure(Structure):
    """p(c|x) = prod_d p(c_d | x, c_1..c_{d-1}), each factor an MLP with one hidden layer (paper, equation 1), or the last one
    a softmax over <x, w_c> + b_c with a vector w_c for every path.

    An MLP that all prefixes share has to say with H units what tells thousands of paths apart; a vector of its own says it
    for each path, and a beam that keeps a prefix pays E*K instead of H*K multiply-adds.

    The first linear map over [user, emb(c_1), ..., emb(c_{d-1})] is kept as one map per part: the user's part is
    computed once a user, and what a prefix adds to it is a table lookup once a release (:meth:`prefix_tables`).
    A prefix also scales the user's part, unit by unit, so that what a user's coordinates mean may differ from node to
    node; it starts without scaling, as the paper's MLP over the concatenation.

    Raises:
        ValueError: layers have different numbers of nodes; their tables are one array, and a beam's kernel reads it so.
    """

    def __init__(self, config: StructureConfig, space: PathSpace, user_dim: int) -> None:
        super().__init__()
        self.config = config
        self.space = space
        num_nodes, self.has_path_vectors = space.num_nodes, config.has_path_vectors(space)
        num_mlps = space.num_layers - self.has_path_vectors
        self.user_maps = nn.ModuleList(nn.Linear(user_dim, config.hidden) for _ in range(num_mlps))
        self.node_embeddings = nn.ParameterList(
            nn.Parameter(torch.randn(num_nodes, config.path_dim) * config.path_dim**-0.5) for _ in range(num_mlps - 1)
        )
        self.prefix_maps = nn.ModuleList(
            nn.ModuleList(nn.Linear(config.path_dim, 2 * config.hidden, bias=False) for _ in range(layer))
            for layer in range(num_mlps)
        )
        for maps in self.prefix_maps.modules():
            if isinstance(maps, nn.Linear):
                nn.init.zeros_(maps.weight[: config.hidden])
        self.outputs = nn.ModuleList(nn.Linear(config.hidden, num_nodes) for _ in range(num_mlps))
        if self.has_path_vectors:
            num_prefixes = space.num_paths // num_nodes
            self.path_vector_QKE = nn.Parameter(torch.randn(num_prefixes, num_nodes, user_dim) * PATH_VECTOR_START)
            self.path_bias_QK = nn.Parameter(torch.zeros(num_prefixes, num_nodes))

    @property
    def num_groups(self) -> int:
        """K^D."""
        return self.space.num_paths

    def user_parts(self, user_NE: Tensor) -> list[Tensor]:
        """Return the user part of each layer that is an MLP, tensors [N, H]."""
        return [layer(user_NE) for layer in self.user_maps]

    def prefix_tables(self) -> list[list[Tensor]]:
        """Return, for layer d and each earlier layer l, the [K, 2 H] table of node c_l: what it adds to the scales of the
        user's part, which start at 1, then what it adds before the activation."""
        return [
            [maps[earlier](self.node_embeddings[earlier]) for earlier in range(layer)]  # type: ignore[index]
            for layer, maps in enumerate(self.prefix_maps)
        ]

    def layer_log_prob(self, layer: int, hidden: Tensor) -> Tensor:
        """Return log p(c_d | ...) over the K nodes, [..., K], from the summed parts [..., H]."""
        return torch.log_softmax(self.outputs[layer](torch.relu(hidden)), dim=-1)

    def last_log_prob(self, user_RE: Tensor, prefix_R: Tensor) -> Tensor:
        """Return log p(c_D | x, prefix) over the K nodes from the path vectors, [R, K].

        Args:
            user_RE: the user state of each pair.
            prefix_R: int64, its first D - 1 nodes as one number in [0, Q).
        """
        order_R = torch.argsort(prefix_R)
        sizes = torch.bincount(prefix_R, minlength=len(self.path_bias_QK)).tolist()
        # One matrix product for each prefix. Unbound, so that the gradient of the table is put together once.
        parts = zip(self.path_bias_QK, self.path_vector_QKE.unbind(), torch.split(user_RE[order_R], sizes), strict=True)
        logit_RK = torch.cat([torch.addmm(bias_K, part_E, vector_KE.T) for bias_K, vector_KE, part_E in parts])
        return torch.log_softmax(logit_RK, dim=-1)[torch.argsort(order_R)]

    def log_prob(self, user_NE: Tensor, group_NM: Tensor) -> Tensor:
        """Return log p(c|x) for given paths, float32 [N, M]; see :class:`dr_core.model.structure.Structure`."""
        path_NMD = decode_paths(group_NM.clamp_min(0), self.space)
        num_states, num_paths, num_layers = path_NMD.shape
        user_parts = self.user_parts(user_NE)
        tables = self.prefix_tables()
        first_NK = self.layer_log_prob(0, user_parts[0])
        total_NM = first_NK.gather(1, path_NMD[..., 0])
        path_RD = path_NMD.flatten(0, 1)
        row_R = torch.arange(num_states * num_paths, device=user_NE.device)
        prefix_R = row_R // max(num_paths, 1)
        for layer in range(1, num_layers):
            # Paths of one state often share their prefix: each (state, prefix) is evaluated once, at one of its rows.
            unique_U, prefix_R = torch.unique(
                prefix_R * self.space.num_nodes + path_RD[:, layer - 1], return_inverse=True
            )
            row_U = torch.empty_like(unique_U).scatter_(0, prefix_R, row_R)
            state_U = row_U // max(num_paths, 1)
            if layer == len(self.outputs):
                node_UK = self.last_log_prob(user_NE[state_U], as_number(path_RD[row_U, :layer], self.space.num_nodes))
            else:
                rows = [tables[layer][earlier][path_RD[row_U, earlier]] for earlier in reversed(range(layer))]
                node_UK = self.layer_log_prob(layer, conditioned(user_parts[layer][state_U], rows))
            log_p_R = node_UK.view(-1)[prefix_R * self.space.num_nodes + path_RD[:, layer]]
            total_NM = total_NM + log_p_R.view(num_states, num_paths)
        return total_NM.masked_fill(group_NM < 0, -torch.inf)


def decode_paths(path: Tensor, space: PathSpace) -> Tensor:
    """Decode path ids [...] into nodes [..., D] (first layer first)."""
    nodes = []
    for _ in range(space.num_layers):
        nodes.append(path % space.num_nodes)
        path = path // space.num_nodes
    return torch.stack(nodes[::-1], dim=-1)


def as_number(prefix_RD: Tensor, num_nodes: int) -> Tensor:
    """Return prefixes as numbers, the first node the most significant, int64 [R]."""
    number_R = prefix_RD[:, 0]
    for layer in range(1, prefix_RD.shape[1]):
        number_R = number_R * num_nodes + prefix_RD[:, layer]
    return number_R


def conditioned(part: Tensor, rows: Sequence[Tensor]) -> Tensor:
    """Return the hidden units [..., H] before the activation: a user's part under a prefix's table rows [..., 2 H]."""
    scale, shift = sum(rows[1:], rows[0]).chunk(2, dim=-1)
    return torch.addcmul(part + shift, part, scale)
