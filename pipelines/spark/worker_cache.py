"""What a Spark worker needs to run the model over blocks of samples.

A block is cut by a hash of the user, so its rows, their order and therefore every float computed from them are the
same however the data is partitioned and however often a task is retried.
"""

from __future__ import annotations

import functools
import io
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import torch

from dr_core.learning.checkpoint import load_model
from dr_core.model.objective import DeepRetrievalModel
from pipelines.storage.workdir import is_local


@functools.lru_cache(maxsize=2)
def cached_model(uri: str, sha256: str) -> DeepRetrievalModel:
    """Load a model once a worker process; ``sha256`` (of its manifest) makes a rewritten model a new entry."""
    torch.set_num_threads(1)
    filesystem, folder = fsspec.core.url_to_fs(uri)
    return load_model(filesystem, folder).requires_grad_(False)


@functools.lru_cache(maxsize=8)
def cached_array(uri: str, sha256: str) -> npt.NDArray[Any]:
    """Load an ``.npy`` file once a worker process; a local file is mapped, not read."""
    filesystem, path = fsspec.core.url_to_fs(uri)
    if is_local(filesystem):
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        return array
    with filesystem.open(path, "rb") as file:
        array = np.load(io.BytesIO(file.read()), allow_pickle=False)
        return array
