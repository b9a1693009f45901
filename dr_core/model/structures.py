"""The structure that a configuration names."""

from __future__ import annotations

from dr_core.model.energy_structure import EnergyStructure
from dr_core.model.path_structure import PathStructure
from dr_core.model.structure_config import StructureConfig
from dr_core.paths.space import PathSpace

PathModel = EnergyStructure | PathStructure
"""A structure over a space of paths."""


def build_structure(config: StructureConfig, space: PathSpace, user_dim: int) -> PathModel:
    """Return a structure that has learned nothing."""
    if config.normaliser == "global":
        return EnergyStructure(config, space, user_dim)
    return PathStructure(config, space, user_dim)
