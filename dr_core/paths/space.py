"""The space of paths [K]^D and its numbering by one integer a path."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Int64Array = NDArray[np.int64]


def integer_array(values: ArrayLike, name: str) -> Int64Array:
    """``values`` as int64; raises ValueError if they are not integers."""
    array: NDArray[Any] = np.asarray(values)
    if array.size == 0:
        return array.astype(np.int64)
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} must be integers, got dtype {array.dtype}")
    return array.astype(np.int64, copy=False)


@dataclass(frozen=True)
class PathSpace:
    """D layers of nodes; a path is one node a layer (Deep Retrieval, section 2.1).

    The paper's layers all have K nodes (:meth:`even`); here each may have a number of its own. A path
    c = (c_1, ..., c_D) is stored as one number ``path_id`` whose most significant digit is c_1, in base K where layers are
    even, so that paths sharing their first layers are neighbours in sorted order.

    Args:
        nodes: nodes of each layer, at least 2 each, first layer first.

    Raises:
        ValueError: no layer, a layer of fewer than 2 nodes, or more paths than a signed 64-bit integer can number.
    """

    nodes: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.nodes:
            raise ValueError("a space of paths needs at least one layer")
        if min(self.nodes) < 2:
            raise ValueError(f"a layer must have at least 2 nodes, got {list(self.nodes)}")
        if math.prod(self.nodes) >= 2**63:
            raise ValueError(
                f"layers of {list(self.nodes)} nodes make more than 2**63 paths: an int64 cannot number them"
            )

    @classmethod
    def even(cls, num_nodes: int, num_layers: int) -> "PathSpace":
        """Return the space of D layers of K nodes each."""
        return cls((num_nodes,) * num_layers)

    def __str__(self) -> str:
        """Return the shape for people: ``K=104, D=2``, or ``512 x 32 nodes`` where layers differ."""
        if self.is_even:
            return f"K={self.num_nodes}, D={self.num_layers}"
        return f"{' x '.join(map(str, self.nodes))} nodes"

    @property
    def num_layers(self) -> int:
        """D."""
        return len(self.nodes)

    @property
    def is_even(self) -> bool:
        """Whether all layers have the same number of nodes."""
        return len(set(self.nodes)) == 1

    @property
    def num_nodes(self) -> int:
        """K.

        Raises:
            ValueError: layers have different numbers of nodes.
        """
        if not self.is_even:
            raise ValueError(f"layers of {list(self.nodes)} nodes have no K in common")
        return self.nodes[0]

    @property
    def num_paths(self) -> int:
        """K^D where layers are even; the product of their nodes."""
        return math.prod(self.nodes)

    def num_prefixes(self, depth: int) -> int:
        """Return the number of prefixes of ``depth`` nodes; 1 of none."""
        return math.prod(self.nodes[:depth])

    def paths_below(self, depth: int) -> int:
        """Return the number of paths that share a prefix of ``depth`` nodes."""
        return math.prod(self.nodes[depth:])

    @property
    def place_values(self) -> Int64Array:
        """int64 [D], what a node of each layer counts in a path id; K^(D-1), ..., K, 1 where layers are even."""
        return np.array([self.paths_below(depth) for depth in range(1, self.num_layers + 1)], dtype=np.int64)

    def encode(self, nodes: ArrayLike) -> Int64Array:
        """Path ids int64 [...] of nodes int [..., D].

        Raises:
            ValueError: the last axis is not D, or a node lies outside its layer.
        """
        nodes = integer_array(nodes, "nodes")
        if nodes.ndim == 0 or nodes.shape[-1] != self.num_layers:
            raise ValueError(f"nodes must end in an axis of {self.num_layers} layers, got shape {nodes.shape}")
        if nodes.size and (nodes.min() < 0 or np.any(nodes >= np.array(self.nodes))):
            raise ValueError(f"nodes must lie in [0, {list(self.nodes)}), got {nodes.min()} to {nodes.max()}")
        path_ids: Int64Array = nodes @ self.place_values
        return path_ids

    def decode(self, path_ids: ArrayLike) -> Int64Array:
        """Nodes int64 [..., D] of path ids int [...], the inverse of :meth:`encode`.

        Raises:
            ValueError: an id lies outside [0, K^D).
        """
        path_ids = self.check(path_ids)
        nodes: Int64Array = path_ids[..., np.newaxis] // self.place_values % np.array(self.nodes)
        return nodes

    def prefix(self, path_ids: ArrayLike, depth: int) -> Int64Array:
        """Ids int64 [...] in [0, num_prefixes(depth)) of the first ``depth`` layers of each path.

        Raises:
            ValueError: ``depth`` outside [0, D] or an id outside [0, K^D).
        """
        if not 0 <= depth <= self.num_layers:
            raise ValueError(f"depth must lie in [0, {self.num_layers}], got {depth}")
        prefixes: Int64Array = self.check(path_ids) // self.paths_below(depth)
        return prefixes

    def check(self, path_ids: ArrayLike, *, allow_padding: bool = False) -> Int64Array:
        """``path_ids`` as int64, the same shape.

        Args:
            path_ids: int [...].
            allow_padding: accept -1 (no path) too.

        Raises:
            ValueError: an id lies outside [0, K^D).
        """
        path_ids = integer_array(path_ids, "path_ids")
        lowest = -1 if allow_padding else 0
        if path_ids.size and (path_ids.min() < lowest or path_ids.max() >= self.num_paths):
            raise ValueError(
                f"path ids must lie in [{lowest}, {self.num_paths}), got {path_ids.min()} to {path_ids.max()}"
            )
        return path_ids
