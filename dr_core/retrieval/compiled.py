"""The kernel of a structure, from its arrays alone: what a release is served with needs no deep-learning library."""

from __future__ import annotations

from collections.abc import Mapping

from dr_core.arrays import FloatArray
from dr_core.paths.index import PathIndex
from dr_core.retrieval.beam_kernel import CompiledStructure, StructureTables
from dr_core.retrieval.energy_kernel import EXACT_PATHS, CompiledEnergies, EnergyLayers

CompiledPaths = CompiledEnergies | CompiledStructure


def compiled(
    arrays: Mapping[str, FloatArray],
    index: PathIndex | None = None,
    bias_V: FloatArray | None = None,
    *,
    exact_paths: int = EXACT_PATHS,
) -> CompiledPaths:
    """Return the kernel of a structure.

    Args:
        arrays: of :func:`dr_core.retrieval.from_model.structure_arrays`.
        index: whose paths are searched, by their sizes; by default all paths.
        bias_V: of :class:`dr_core.retrieval.energy_kernel.CompiledEnergies`; a product of layers visits paths whole.
        exact_paths: of :class:`dr_core.retrieval.energy_kernel.CompiledEnergies`; visits do not depend on it.
    """
    if "vectors_0" in arrays:
        return CompiledEnergies(EnergyLayers.of(arrays), index, bias_V=bias_V, exact_paths=exact_paths)
    whole = CompiledStructure(StructureTables(**arrays))
    if index is None:
        return whole
    return CompiledStructure(whole.tables, index.log_sizes(whole.space.num_paths))
