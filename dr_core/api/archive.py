"""A fitted model in a folder: safetensors, npy and JSON, with the sha256 of each. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fsspec.implementations.local import LocalFileSystem

from dr_core.api.item_keys import ItemKeys
from dr_core.arrays import IntArray
from dr_core.errors import ConfigError, InputError
from dr_core.learning.checkpoint import load_model, read_manifest, save_model
from dr_core.model.objective import DeepRetrievalModel

PATHS, KEYS = "item_paths.npy", "items.json"


@dataclass(frozen=True)
class Archive:
    """What is kept of a fitted model.

    Attributes:
        model: in evaluation mode.
        path_VJ: int64, the mapping.
        keys: names of the items.
        facts: how it serves and what it learned, as JSON has it.
    """

    model: DeepRetrievalModel
    path_VJ: IntArray
    keys: ItemKeys
    facts: dict[str, Any]

    def save(self, path: str | Path) -> None:
        """Write the folder in one step: it is there whole, or as it was.

        Raises:
            ConfigError: an item's key is neither a string nor an int.
            InputError: something else than such a folder is there.
        """
        if not all(type(key) in (str, int) for key in self.keys.keys):
            raise ConfigError("item keys must be strings or ints to be saved: JSON has no other")
        target = Path(path).absolute()
        if target.exists() and not (target / PATHS).exists():
            raise InputError(f"{target} is there and holds no saved model: choose another path")
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            np.save(folder / PATHS, self.path_VJ, allow_pickle=False)
            (folder / KEYS).write_text(json.dumps(self.keys.keys))
            hashes = {name: _sha256(folder / name) for name in (PATHS, KEYS)}
            save_model(self.model, LocalFileSystem(), str(folder), {"facts": self.facts, "files": hashes})
            folder.chmod(0o755)
            if target.exists():
                os.replace(target, folder.with_suffix(".old"))
            os.replace(folder, target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(folder.with_suffix(".old"), ignore_errors=True)

    @classmethod
    def load(cls, path: str | Path) -> Archive:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: nothing was saved there, or a file is missing or was changed.
        """
        folder = Path(path).absolute()
        manifest = read_manifest(LocalFileSystem(), str(folder))
        if manifest is None or "files" not in manifest:
            raise InputError(f"{folder} holds no saved model")
        for name, expected in manifest["files"].items():
            file = folder / name
            if not file.exists() or _sha256(file) != expected:
                raise InputError(f"{file} is missing or was changed: save the model again")
        model = load_model(LocalFileSystem(), str(folder))
        path_VJ = np.load(folder / PATHS, allow_pickle=False)
        return cls(model, path_VJ, ItemKeys(json.loads((folder / KEYS).read_text())), manifest["facts"])


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
