"""The structure that a configuration names."""

from __future__ import annotations

from dr_core.errors import ConfigError
from dr_core.model.energy_structure import EnergyStructure
from dr_core.model.path_structure import PathStructure
from dr_core.model.structure_config import StructureConfig
from dr_core.paths.space import PathSpace

PathModel = EnergyStructure | PathStructure
"""A structure over a space of paths."""


def build_structure(config: StructureConfig, space: PathSpace, user_dim: int) -> PathModel:
    """Return a structure that has learned nothing.

    Raises:
        ConfigError: a product of layers of different sizes was asked for.
    """
    if config.normaliser == "global":
        return EnergyStructure(config, space, user_dim)
    if not space.is_even:
        raise ConfigError(
            f"structure.normaliser: layers needs layers of one size, paths.nodes is {list(space.nodes)}: give"
            " paths.num_nodes instead, or take structure.normaliser: global"
        )
    return PathStructure(config, space, user_dim)
