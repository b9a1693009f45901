"""How p(c|x) is made and how large it is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dr_core.config import Config
from dr_core.paths.space import PathSpace

Normaliser = Literal["global", "layers"]


class StructureConfig(Config):
    """The structure model."""

    normaliser: Normaliser = "global"
    """`global`: every path has an energy, p(c|x) is a softmax over all paths, earlier layers lead to the paths that are worth
    looking at. `layers`: p(c|x) is the product of a softmax in each layer (paper, equation 1); one first layer that is off
    shifts all paths below it."""
    exact_paths: int = Field(131_072, ge=1)
    """Most paths whose energies are all summed in Z; with more, Z is estimated from the prefixes that a state opens.
    `global` only."""
    hidden: int = Field(64, ge=1)
    """H, hidden units of each layer's MLP; a beam costs H*K multiply-adds a kept prefix and layer. `layers` only."""
    path_dim: int = Field(32, ge=1)
    """Dimension of the embedding of one node of a path prefix. `layers` only."""
    path_vectors: int = Field(131_072, ge=0)
    """Most paths K^D that each have a vector of their own, E numbers; with more, the last layer is an MLP as the others are.
    0: always. `layers` only."""

    def has_path_vectors(self, space: PathSpace) -> bool:
        """Whether the last layer of the product is made of path vectors."""
        return space.num_layers > 1 and space.num_paths <= self.path_vectors
