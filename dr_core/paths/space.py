"""The space of paths [K]^D and its numbering by one integer a path."""

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
    """D layers of K nodes; a path is one node a layer (Deep Retrieval, section 2.1).

    A path c = (c_1, ..., c_D) is stored as the base-K number ``path_id`` whose most significant digit is c_1, so that
    paths sharing their first layers are neighbours in sorted order.

    Args:
        num_nodes: K, nodes a layer, at least 2.
        num_layers: D, at least 1.

    Raises:
        ValueError: K < 2, D < 1, or K^D does not fit a signed 64-bit integer.
    """

    num_nodes: int
    num_layers: int

    def __post_init__(self) -> None:
        if self.num_nodes < 2:
            raise ValueError(f"num_nodes must be at least 2, got {self.num_nodes}")
        if self.num_layers < 1:
            raise ValueError(f"num_layers must be at least 1, got {self.num_layers}")
        if self.num_layers >= 63 or self.num_nodes**self.num_layers >= 2**63:
            raise ValueError(
                f"num_nodes ** num_layers = {self.num_nodes} ** {self.num_layers} must be below 2**63 "
                "to be stored as one int64"
            )

    @property
    def num_paths(self) -> int:
        """K^D."""
        num_paths: int = self.num_nodes**self.num_layers
        return num_paths

    @property
    def place_values(self) -> Int64Array:
        """int64 [D], K^(D-1), ..., K, 1."""
        return np.array([self.num_nodes**power for power in range(self.num_layers - 1, -1, -1)], dtype=np.int64)

    def encode(self, nodes: ArrayLike) -> Int64Array:
        """Path ids int64 [...] of nodes int [..., D].

        Raises:
            ValueError: the last axis is not D, or a node lies outside [0, K).
        """
        nodes = integer_array(nodes, "nodes")
        if nodes.ndim == 0 or nodes.shape[-1] != self.num_layers:
            raise ValueError(f"nodes must end in an axis of {self.num_layers} layers, got shape {nodes.shape}")
        if nodes.size and (nodes.min() < 0 or nodes.max() >= self.num_nodes):
            raise ValueError(f"nodes must lie in [0, {self.num_nodes}), got {nodes.min()} to {nodes.max()}")
        path_ids: Int64Array = nodes @ self.place_values
        return path_ids

    def decode(self, path_ids: ArrayLike) -> Int64Array:
        """Nodes int64 [..., D] of path ids int [...], the inverse of :meth:`encode`.

        Raises:
            ValueError: an id lies outside [0, K^D).
        """
        path_ids = self.check(path_ids)
        nodes: Int64Array = path_ids[..., np.newaxis] // self.place_values % self.num_nodes
        return nodes

    def prefix(self, path_ids: ArrayLike, depth: int) -> Int64Array:
        """Ids int64 [...] in [0, K^depth) of the first ``depth`` layers of each path.

        Raises:
            ValueError: ``depth`` outside [0, D] or an id outside [0, K^D).
        """
        if not 0 <= depth <= self.num_layers:
            raise ValueError(f"depth must lie in [0, {self.num_layers}], got {depth}")
        prefixes: Int64Array = self.check(path_ids) // self.num_nodes ** (self.num_layers - depth)
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
