"""From a trained model to what serves it: the only file of retrieval that runs the model's own modules.

Shape legend: U users, E user dimension, V items.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from dr_core.arrays import FloatArray
from dr_core.errors import ReleaseMismatch
from dr_core.item_lists import ItemLists
from dr_core.model.energy_structure import EnergyStructure
from dr_core.model.histories import encode_histories
from dr_core.model.objective import DeepRetrievalModel
from dr_core.model.path_structure import PathStructure
from dr_core.model.structures import PathModel
from dr_core.paths.index import PathIndex
from dr_core.retrieval.beam_kernel import StructureTables
from dr_core.retrieval.compiled import CompiledPaths, compiled
from dr_core.retrieval.energy_kernel import EnergyLayers
from dr_core.retrieval.rank import DotProductRanker
from dr_core.retrieval.retriever import Retriever
from dr_core.retrieval.router import Width


class ModelEncoder:
    """A model's own encoder, for blocks of many histories.

    Args:
        model: put in evaluation mode.
        max_length: L, most recent items of a history that count.
    """

    def __init__(self, model: DeepRetrievalModel, max_length: int) -> None:
        self.model, self.max_length = model.eval().requires_grad_(False), max_length

    @property
    def num_items(self) -> int:
        """V."""
        return self.model.num_items

    def encode(self, histories: ItemLists) -> FloatArray:
        """Return the state after each whole history, float32 [U, E]."""
        return _array(encode_histories(self.model, histories, self.max_length))


def model_retriever(model: DeepRetrievalModel, index: PathIndex, *, width: Width, max_length: int) -> Retriever:
    """Return the retriever of a model held in memory.

    Args:
        model: encoder, structure model and reranker.
        index: the inverse of the mapping that the model was trained on.
        width: a beam or a price, where a call names none.
        max_length: L, most recent history items used.

    Raises:
        ReleaseMismatch: the index names items that the model does not know.
    """
    if len(index.item_ids) and int(index.item_ids.max()) >= model.num_items:
        raise ReleaseMismatch(f"the index names items the model does not know (it has {model.num_items})")
    encoder = ModelEncoder(model, max_length)
    vector_VE, bias_V = (_array(part) for part in model.reranker.item_vectors())
    index = index.ordered(bias_V)
    router = compiled_structure(model.structure, index, bias_V)
    return Retriever(encoder, router, index, DotProductRanker.of(index, vector_VE, bias_V), width=width)


def compiled_structure(
    structure: PathModel, index: PathIndex | None = None, bias_V: FloatArray | None = None
) -> CompiledPaths:
    """Return a structure model compiled for search; with an index, over its paths by their sizes; with biases by which its
    items are ordered, cut inside paths by a price."""
    return compiled(structure_arrays(structure), index, bias_V, exact_paths=structure.config.exact_paths)


def structure_arrays(structure: PathModel) -> dict[str, FloatArray]:
    """Return a structure model's weights as its kernel reads them, by name."""
    if isinstance(structure, EnergyStructure):
        return energy_layers(structure).arrays()
    return structure_tables(structure)._asdict()


def energy_layers(structure: EnergyStructure) -> EnergyLayers:
    """Return a structure's energies as the kernel reads them."""
    space = structure.space
    shapes = [(space.num_prefixes(depth), space.nodes[depth]) for depth in range(space.num_layers)]
    return EnergyLayers(
        tuple(
            np.ascontiguousarray(_array(vector).reshape(*shape, -1).transpose(0, 2, 1))
            for vector, shape in zip(structure.vectors, shapes, strict=True)
        ),
        tuple(_array(bias).reshape(shape) for bias, shape in zip(structure.biases, shapes, strict=True)),
    )


@torch.no_grad()
def structure_tables(structure: PathStructure) -> StructureTables:
    """Return a structure model's weights as the kernel reads them."""
    hidden, nodes, num_mlps = structure.config.hidden, structure.space.num_nodes, len(structure.outputs)
    user_maps, user_biases = zip(*(_linear(layer) for layer in structure.user_maps), strict=True)
    outputs, biases = zip(*(_linear(layer) for layer in structure.outputs), strict=True)
    table_WWKT = np.zeros((num_mlps, num_mlps, nodes, 2 * hidden), dtype=np.float32)
    for layer, tables in enumerate(structure.prefix_tables()):
        for earlier, table in enumerate(tables):
            table_WWKT[layer, earlier] = table.numpy()
        if layer:
            table_WWKT[layer, layer - 1, :, :hidden] += 1  # the scale that all tables add to
    vector_QKE, bias_QK = np.zeros((0, nodes, 0), np.float32), np.zeros((0, nodes), np.float32)
    if structure.has_path_vectors:
        vector_QKE, bias_QK = _array(structure.path_vector_QKE), _array(structure.path_bias_QK)
    return StructureTables(
        user_map_WEH=np.stack(user_maps),
        user_bias_WH=np.stack(user_biases),
        table_WWKT=table_WWKT,
        output_WKH=np.ascontiguousarray(np.stack(outputs).transpose(0, 2, 1)),
        bias_WK=np.stack(biases),
        path_vector_QKE=vector_QKE,
        path_bias_QK=bias_QK,
    )


def _linear(layer: nn.Module) -> tuple[FloatArray, FloatArray]:
    """Return a linear map's weight [in, out], contiguous, and its bias [out]."""
    assert isinstance(layer, nn.Linear)
    return np.ascontiguousarray(layer.weight.detach().numpy().T), layer.bias.detach().numpy()


def _array(tensor: Tensor) -> FloatArray:
    return np.ascontiguousarray(tensor.detach().numpy())
