"""A release as a server maps it: every file named, with its sha256, by one manifest that the release row names in turn.

``models/<release_id>/`` holds the model, its ``index/`` and ``serving.json``; ``bundle/`` beside them holds what is derived
for serving, and the manifest of all of it. Opening imports neither torch nor Spark.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from dr_core.arrays import FloatArray
from dr_core.errors import InputError, ReleaseMismatch
from dr_core.paths.index import PathIndex
from dr_core.retrieval.compiled import CompiledPaths, compiled
from dr_core.retrieval.encoder import ArrayEncoder
from dr_core.retrieval.rank import DotProductRanker, ScanRows
from dr_core.retrieval.retriever import Retriever
from dr_core.retrieval.router import width_of
from pipelines.serving.item_keys import ItemKeys, Texts
from pipelines.serving.mapped import map_array, map_tensors
from pipelines.storage import host_cache
from pipelines.storage.files import Files
from pipelines.storage.releases import Release, find_release

MANIFEST = "bundle/manifest.json"
VERSION = 3
"""1 had each path's items in the order of their ids: such a release visits paths whole. 2 had the float32 vectors in the
model's file alone, in the order of their items."""
MODEL = "model.safetensors"
SETTINGS = "serving.json"
"""What a release is served with: price or beam, history length; written before it is published."""
INDEX = tuple(f"index/{name}.npy" for name in ("path_ids", "offsets", "item_ids"))
STRUCTURE = "bundle/structure.safetensors"
ROWS = "bundle/item_ids.npy"
"""``index/item_ids.npy`` with the items of each path by their bias, the best first; the order of :data:`SCAN`."""
SCAN = tuple(f"bundle/{name}.npy" for name in ScanRows._fields)
VECTORS, PLACES = "bundle/vectors.npy", "bundle/places.npy"
"""The float32 vectors of the items as the rows need them first, and which of these each row has
(:func:`dr_core.retrieval.rank.in_order_of_use`)."""
KEYS = tuple(f"bundle/{name}.npy" for name in ("key_bytes", "key_offsets", "items_by_key"))
DETAILS = tuple(f"bundle/{name}.npy" for name in ("detail_bytes", "detail_offsets"))
DERIVED = (STRUCTURE, ROWS, *SCAN, VECTORS, PLACES, *KEYS, *DETAILS)
FILES = (MODEL, "manifest.json", SETTINGS, *INDEX, *DERIVED)
"""Below ``models/<release_id>/``."""


@dataclass(frozen=True)
class ReleaseBundle:
    """What serves a release, mapped into memory; of each file only the pages that are used are read."""

    release: Release
    manifest: dict[str, Any]
    paths: dict[str, Path]
    """Of each of :data:`FILES`, on this host."""

    @classmethod
    def open(cls, folder: Files, release_id: str | None = None) -> Self:
        """Open a release, by default the live one, and check that everything in it belongs to it.

        Every time: the manifest's sha256 against the release row, ids, and the size of each file. The sha256 of a file is
        computed when this host has not seen it in its present state (size and time of its last change).

        Raises:
            InputError: there is no such release, it has no bundle, or a file is missing.
            ReleaseMismatch: a file is not the one that was published.
        """
        release = find_release(folder, release_id)
        name = release.release_id
        if not folder.exists("models", name, MANIFEST):
            raise InputError(
                f"{folder.path('models', name)} has no bundle to serve from: `python -m pipelines.serving.write_bundle"
                f" --workdir {folder.uri} --release {name}` writes it"
            )
        text = folder.read_text("models", name, MANIFEST)
        manifest = json.loads(text)
        _check_manifest(
            release, manifest, hashlib.sha256(text.encode()).hexdigest(), folder.path("models", name, MANIFEST)
        )
        return cls(release, manifest, _checked_files(folder, name, manifest["files"]))

    def arrays(self, names: Sequence[str]) -> list[npt.NDArray[Any]]:
        """Map some of the ``.npy`` files."""
        return [map_array(self.paths[name]) for name in names]

    @cached_property
    def index(self) -> PathIndex:
        """Paths to items, those of each path by their bias."""
        rows = ROWS if self.is_ordered else INDEX[2]
        return PathIndex(*self.arrays((*INDEX[:2], rows)))

    @property
    def is_ordered(self) -> bool:
        """Whether a price may cut inside the paths."""
        return ROWS in self.paths

    @cached_property
    def keys(self) -> ItemKeys:
        """Item keys to ids and back."""
        key_bytes, offsets, by_key = self.arrays(KEYS)
        return ItemKeys(Texts(key_bytes, offsets), by_key)

    @cached_property
    def details(self) -> Texts:
        """Title and category of each item as JSON."""
        return Texts(*self.arrays(DETAILS))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What the release is served with."""
        return dict(json.loads(self.paths[SETTINGS].read_text()))

    def item(self, item_id: int) -> dict[str, Any]:
        """Return an item's key, and its title and category when there are any."""
        return {"item_key": self.keys.keys[item_id], **json.loads(self.details[item_id])}

    def retriever(self, beam: int | None = None) -> Retriever:
        """Return the release's retriever; it searches by a ``beam``, or as the release was published."""
        model, settings = map_tensors(self.paths[MODEL]), self.settings
        encoder, rows_V = self.manifest["encoder"], model["item_rows"]
        tensors = {key.removeprefix("encoder."): value for key, value in model.items() if key.startswith("encoder.")}
        if VECTORS in self.paths:
            vector_QE, place_R = self.arrays((VECTORS, PLACES))
        else:
            vector_QE = model["reranker.output_embedding.weight"]
            place_R = rows_V[self.index.item_ids].astype(np.int32)
        return Retriever(
            ArrayEncoder(
                encoder["kind"],
                tensors,
                rows_V,
                max_length=int(settings["history_length"]),
                num_heads=encoder["num_heads"],
            ),
            self.router,
            self.index,
            DotProductRanker(
                self.index, vector_QE, ScanRows(*self.arrays(SCAN)), self.manifest["most_repeats"], place_R
            ),
            width=beam or width_of(settings),
        )

    @cached_property
    def router(self) -> CompiledPaths:
        """The structure, ranking paths by the probability of their items."""
        return compiled(map_tensors(self.paths[STRUCTURE]), self.index, self._bias_V if self.is_ordered else None)

    @property
    def _bias_V(self) -> FloatArray:
        bias_V = np.zeros(self.manifest["num_items"], np.float32)
        bias_V[self.index.item_ids] = ScanRows(*self.arrays(SCAN)).bias_R
        return bias_V


def _check_manifest(release: Release, manifest: dict[str, Any], sha256: str, place: str) -> None:
    if not 1 <= manifest["version"] <= VERSION:
        raise InputError(
            f"{place} is of version {manifest['version']}, this release of the project reads versions up to {VERSION}: write it"
            " again"
        )
    wanted = {
        "release_id": release.release_id,
        "model_sha256": release.model_sha256,
        "K": release.K,
        "D": release.D,
        "nodes": list(release.space.nodes),
        "num_items": release.num_items,
    }
    found = {
        "model_sha256": manifest["files"][MODEL]["sha256"],
        "nodes": [manifest["K"]] * manifest["D"],  # of a manifest that is older than layers of different sizes
    } | manifest
    for key, value in wanted.items():
        if found[key] != value:
            raise ReleaseMismatch(
                f"{place} has {key} {found[key]}, release {release.release_id} was published with {value}: restore that"
                " release's files, or serve another release"
            )
    if release.bundle_sha256 not in (None, sha256):
        raise ReleaseMismatch(
            f"{place} is not the one that {release.release_id} was published with (its sha256 is {sha256[:12]}…, the"
            f" release's {str(release.bundle_sha256)[:12]}…): restore it, or serve another release"
        )


def _checked_files(folder: Files, release_id: str, files: dict[str, dict[str, Any]]) -> dict[str, Path]:
    """Return where each file lies on this host, after checking that it is the one that the manifest describes."""
    known = _Verified(folder.path("models", release_id))
    paths = {}
    for name, wanted in files.items():
        path = _on_this_host(folder, wanted["sha256"], "models", release_id, *name.split("/"))
        source = folder.path("models", release_id, name)
        try:
            state = [wanted["sha256"], path.stat().st_size, path.stat().st_mtime_ns]
        except FileNotFoundError as error:
            raise InputError(
                f"{source} is missing although the bundle names it: restore it, or serve another release"
            ) from error
        is_same = state[1] == wanted["size"] and (known.states.get(name) == state or _sha256(path) == wanted["sha256"])
        if not is_same:
            raise ReleaseMismatch(
                f"{source} is not the file that {release_id} was published with: restore it, or serve another release"
            )
        known.states[name], paths[name] = state, path
    known.save()
    return paths


def _on_this_host(folder: Files, sha256: str, *parts: str) -> Path:
    """Return a file's own path, or that of its copy in this user's cache, which is named by its contents."""
    if folder.is_local:
        return Path(folder.path(*parts))
    path = host_cache.use(sha256) / parts[-1]
    if not path.exists():
        unfinished = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            folder.filesystem.get_file(folder.path(*parts), str(unfinished))
        except FileNotFoundError:
            return path
        os.replace(unfinished, path)
        host_cache.evict()
    return path


class _Verified:
    """The files of a release whose sha256 this host has computed: name to [sha256, size, time of the last change]."""

    def __init__(self, source: str) -> None:
        self.states: dict[str, list[Any]] = {}
        self.path: Path | None = None
        try:
            root = host_cache.cache_root() / "verified"
            root.mkdir(exist_ok=True)
            self.path = root / f"{hashlib.sha256(source.encode()).hexdigest()}.json"
            self.text = self.path.read_text()
            self.states = json.loads(self.text)
        except (OSError, ValueError):
            self.text = ""  # without a cache every file is read through every time

    def save(self) -> None:
        text = json.dumps(self.states)
        if self.path is None or text == self.text:
            return
        unfinished = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        unfinished.write_text(text)
        os.replace(unfinished, self.path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
