"""Models and checkpoints on disk: safetensors and a JSON manifest that is written last. Nothing is ever unpickled.

All functions take an fsspec filesystem and a folder, so that a work folder may live anywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from fsspec import AbstractFileSystem
from safetensors.torch import load, save
from torch import Tensor, nn

from dr_core.errors import InputError
from dr_core.model.encoder import EncoderConfig
from dr_core.model.objective import DeepRetrievalModel
from dr_core.model.reranker import RerankerConfig
from dr_core.model.structure_config import StructureConfig
from dr_core.paths.space import PathSpace

MANIFEST = "manifest.json"


def table_identity(path_VJ: npt.NDArray[np.int64]) -> str:
    """Return the sha256 of a path table, so that a checkpoint knows which pi it was trained on."""
    return hashlib.sha256(np.ascontiguousarray(path_VJ).tobytes() + repr(path_VJ.shape).encode()).hexdigest()


def write_tensors(
    filesystem: AbstractFileSystem,
    folder: str,
    files: dict[str, dict[str, Tensor]],
    manifest: dict[str, Any],
    *,
    after_file: Callable[[str], None] = lambda name: None,
) -> str:
    """Write safetensors files, then the manifest with their sha256; return the manifest's own sha256.

    A folder without a manifest, or whose manifest disagrees with a file, is not a checkpoint. ``after_file`` is called
    with the name of each file once it is written, while the manifest is not.
    """
    filesystem.makedirs(folder, exist_ok=True)
    if filesystem.exists(f"{folder}/{MANIFEST}"):
        filesystem.rm(f"{folder}/{MANIFEST}")
    hashes = {}
    for name, tensors in files.items():
        blob = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
        hashes[name] = hashlib.sha256(blob).hexdigest()
        with filesystem.open(f"{folder}/{name}", "wb") as file:
            file.write(blob)
        after_file(name)
    text = json.dumps(manifest | {"sha256": hashes}, indent=2, sort_keys=True)
    with filesystem.open(f"{folder}/{MANIFEST}.tmp", "w") as file:
        file.write(text)
    filesystem.mv(f"{folder}/{MANIFEST}.tmp", f"{folder}/{MANIFEST}")
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(filesystem: AbstractFileSystem, folder: str) -> dict[str, Any] | None:
    """Return a folder's manifest, or None when it was never finished.

    Raises:
        InputError: the manifest is not JSON.
    """
    try:
        with filesystem.open(f"{folder}/{MANIFEST}", "r") as file:
            manifest: dict[str, Any] = json.loads(file.read())
            return manifest
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(
            f"{folder}/{MANIFEST} was changed or cut short ({error}): restore it or train again"
        ) from error


def read_tensors(filesystem: AbstractFileSystem, folder: str, name: str, manifest: dict[str, Any]) -> dict[str, Tensor]:
    """Read one file of a finished folder.

    Raises:
        InputError: the file is missing or is not the one the manifest describes.
    """
    try:
        with filesystem.open(f"{folder}/{name}", "rb") as file:
            blob = file.read()
    except FileNotFoundError as error:
        raise InputError(
            f"{folder}/{name} is missing although the manifest names it: restore it or train again"
        ) from error
    found = hashlib.sha256(blob).hexdigest()
    if found != manifest["sha256"][name]:
        raise InputError(
            f"{folder}/{name} has sha256 {found[:12]}…, its manifest says {manifest['sha256'][name][:12]}…: the file was"
            " changed or cut short; restore it or train again"
        )
    return load(blob)


def save_model(
    model: DeepRetrievalModel,
    filesystem: AbstractFileSystem,
    folder: str,
    extra: dict[str, Any] | None = None,
    *,
    after_file: Callable[[str], None] = lambda name: None,
) -> str:
    """Write ``model.safetensors`` and the manifest; return the manifest's sha256.

    ``after_file`` is called with the file's name once it is written, while the manifest is not.
    """
    manifest = {
        "encoder": model.encoder.config.model_dump(),
        "structure": model.structure.config.model_dump(),
        "reranker": model.reranker.config.model_dump(),
        "space": {"nodes": list(model.space.nodes)},
        "num_items": model.num_items,
        **(extra or {}),
    }
    files = {"model.safetensors": dict(model.state_dict())}
    return write_tensors(filesystem, folder, files, manifest, after_file=after_file)


def path_space(manifest: dict[str, Any]) -> PathSpace:
    """Return the space of paths from a model's manifest; an older one says K and D."""
    space = manifest["space"]
    return PathSpace(tuple(space["nodes"])) if "nodes" in space else PathSpace.even(**space)


def structure_config(manifest: dict[str, Any]) -> StructureConfig:
    """Return the structure's settings from a model's manifest; an older one names no path vectors, or no normaliser."""
    return StructureConfig.model_validate({"path_vectors": 0, "normaliser": "layers"} | manifest["structure"])


def reranker_config(manifest: dict[str, Any]) -> RerankerConfig:
    """Return the softmax's settings from a model's manifest; an older one also names how its negatives were drawn."""
    return RerankerConfig.model_validate({name: it for name, it in manifest["reranker"].items() if name != "negatives"})


def load_model(filesystem: AbstractFileSystem, folder: str) -> DeepRetrievalModel:
    """Load a model written by :func:`save_model`, in evaluation mode.

    Raises:
        InputError: no finished model is there, or a file fails its sha256.
    """
    manifest = read_manifest(filesystem, folder)
    if manifest is None:
        raise InputError(f"{folder} holds no finished model ({MANIFEST} is missing)")
    tensors = read_tensors(filesystem, folder, "model.safetensors", manifest)
    model = DeepRetrievalModel(
        EncoderConfig.model_validate(manifest["encoder"]),
        structure_config(manifest),
        reranker_config(manifest),
        path_space(manifest),
        np.zeros(manifest["num_items"]),
    )
    model.load_state_dict(tensors)
    return model.eval()


def copy_parameters(source: nn.Module, target: nn.Module) -> None:
    """Copy every parameter and buffer of the same name and shape."""
    wanted = target.state_dict()
    same = {k: v for k, v in source.state_dict().items() if k in wanted and v.shape == wanted[k].shape}
    target.load_state_dict(same, strict=False)


def copy_model(source: DeepRetrievalModel, target: DeepRetrievalModel) -> None:
    """Copy encoder and softmax, and the structure where it is of the same kind and over the same paths."""
    copy_parameters(source.encoder, target.encoder)
    copy_parameters(source.reranker, target.reranker)
    if source.space == target.space and source.structure.config == target.structure.config:
        copy_parameters(source.structure, target.structure)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Flatten an optimizer's per-parameter state into named tensors."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{key}": torch.as_tensor(value) for index, values in state.items() for key, value in values.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` took."""
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        is_count = tensor.dtype == torch.int64 and tensor.dim() == 0
        state.setdefault(int(index), {})[key] = int(tensor) if is_count else tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
