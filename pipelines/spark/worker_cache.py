"""Models and arrays that a Spark worker loads once, however many blocks of samples it works on.

A worker lives longer than a stage, and a file may be written again under its name. The driver therefore says which
contents it means (:func:`model_identity`, :func:`file_identity`), and workers keep what they load by those.
"""

from __future__ import annotations

import functools
import hashlib
import io
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import torch

from dr_core.errors import InputError
from dr_core.learning.checkpoint import MANIFEST, load_model
from dr_core.model.objective import DeepRetrievalModel
from pipelines.storage.files import is_local


def model_identity(uri: str) -> str:
    """Return the sha256 of a model's manifest, which names the sha256 of its parameters.

    Raises:
        InputError: no finished model is there.
    """
    filesystem, folder = fsspec.core.url_to_fs(uri)
    try:
        return hashlib.sha256(filesystem.cat_file(f"{folder}/{MANIFEST}")).hexdigest()
    except FileNotFoundError as error:
        raise InputError(f"{uri} holds no finished model ({MANIFEST} is missing): train it first") from error


def file_identity(uri: str) -> str:
    """Return what changes whenever a file is written: a hash of its size, time and whatever else its file system tells.

    Raises:
        InputError: the file is missing.
    """
    filesystem, path = fsspec.core.url_to_fs(uri)
    filesystem.invalidate_cache()
    try:
        return str(filesystem.ukey(path))
    except FileNotFoundError as error:
        raise InputError(f"{uri} is missing: run the stage that writes it") from error


@functools.lru_cache(maxsize=2)
def cached_model(uri: str, identity: str) -> DeepRetrievalModel:
    """Load a model once a worker process; ``identity`` is its :func:`model_identity`."""
    torch.set_num_threads(1)
    filesystem, folder = fsspec.core.url_to_fs(uri)
    return load_model(filesystem, folder).requires_grad_(False)


@functools.lru_cache(maxsize=8)
def cached_array(uri: str, identity: str) -> npt.NDArray[Any]:
    """Load an ``.npy`` file once a worker process; ``identity`` is its :func:`file_identity`. A local file is mapped."""
    filesystem, path = fsspec.core.url_to_fs(uri)
    if is_local(filesystem):
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        return array
    with filesystem.open(path, "rb") as file:
        array = np.load(io.BytesIO(file.read()), allow_pickle=False)
        return array
