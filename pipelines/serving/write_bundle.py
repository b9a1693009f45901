"""Writing what a release is served from: ``python -m pipelines.serving.write_bundle --workdir W --release R``."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from dr_core.errors import DeepRetrievalError, InputError
from dr_core.learning.checkpoint import load_model
from dr_core.paths.index import PathIndex
from dr_core.retrieval.from_model import structure_arrays
from dr_core.retrieval.rank import ScanRows, in_order_of_use, most_repeats
from pipelines.serving.bundle import (
    DERIVED,
    DETAILS,
    FILES,
    KEYS,
    MANIFEST,
    PLACES,
    ROWS,
    SCAN,
    SETTINGS,
    STRUCTURE,
    VECTORS,
    VERSION,
)
from pipelines.storage import delta_reader
from pipelines.storage.files import Files

if TYPE_CHECKING:
    import pyarrow as pa


def write_bundle(folder: Files, release_id: str) -> str:
    """Write ``bundle/`` beside a version's model and return the sha256 of its manifest, which the release row keeps.

    The same model, index and items give the same bundle.

    Args:
        folder: W; holds the model, the index, ``serving.json`` and the table ``items``.
        release_id: version that is to be published, or was before there were bundles.

    Raises:
        InputError: a file is missing.
        DeepRetrievalError: index or items are not those of the model.
    """
    model = load_model(folder.filesystem, folder.path("models", release_id))
    if model.encoder.config.context_cardinalities or model.encoder.config.num_numeric:
        raise InputError(f"{release_id}: an encoder of context features cannot be served by histories alone")
    if json.loads(folder.read_text("models", release_id, SETTINGS))["release_id"] != release_id:
        raise InputError(
            f"{folder.path('models', release_id, SETTINGS)} is of another release: publish {release_id} again"
        )
    index = PathIndex.load(folder.local_folder("models", release_id, "index"))
    _check_index(folder, release_id, index)
    items = delta_reader.read_columns(
        folder.path("tables", "items"),
        ["item_id", "item_key", "title", "category"],
        f"WHERE item_id < {model.num_items} ORDER BY item_id",
    )
    if not np.array_equal(items["item_id"].to_numpy(), np.arange(model.num_items)):
        raise DeepRetrievalError(
            f"{folder.uri}: the table items lacks items of {release_id}, which knows {model.num_items}"
        )
    vector_VE, bias_V = (part.detach().numpy() for part in model.reranker.item_vectors())
    index = index.ordered(bias_V)
    used_Q, place_R = in_order_of_use(model.item_rows.numpy()[index.item_ids])
    weights = model.reranker.output_embedding.weight.detach().numpy()
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "bundle").mkdir()
        save_file(structure_arrays(model.structure), f"{place}/{STRUCTURE}")
        _save(place, (ROWS,), (index.item_ids,))
        _save(place, SCAN, ScanRows.of(index, np.ascontiguousarray(vector_VE), np.ascontiguousarray(bias_V)))
        _save(place, (VECTORS, PLACES), (weights[used_Q], place_R))
        _save(place, KEYS, _keys(items["item_key"]))
        _save(place, DETAILS, _details(items))
        folder.put_files(f"{place}/bundle", "models", release_id, "bundle")
        derived = {name: _entry(Path(place, name).read_bytes()) for name in DERIVED}
    others = {name: _entry(_read(folder, release_id, name)) for name in FILES if name not in DERIVED}
    manifest = {
        "version": VERSION,
        "release_id": release_id,
        "K": model.space.nodes[0],
        "D": model.space.num_layers,
        "nodes": list(model.space.nodes),
        "num_items": model.num_items,
        "encoder": {"kind": model.encoder.config.kind, "num_heads": model.encoder.config.num_heads},
        "most_repeats": most_repeats(index),
        "files": others | derived,
    }
    text = json.dumps(manifest, indent=2, sort_keys=True)
    folder.write_text(text, "models", release_id, MANIFEST)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_index(folder: Files, release_id: str, index: PathIndex) -> None:
    """Raise when the index files are not the inverse that the table ``path_items`` holds of this version."""
    rows = delta_reader.read_columns(
        folder.path("tables", "path_items"),
        ["path_id", "item_ids"],
        f"WHERE release_id = '{release_id}' ORDER BY path_id",
    ).combine_chunks()
    lists = rows["item_ids"].combine_chunks()
    is_same = np.array_equal(rows["path_id"].to_numpy(), index.path_ids) and np.array_equal(
        lists.flatten().to_numpy(), index.item_ids
    )
    if not is_same:
        raise DeepRetrievalError(
            f"{folder.path('models', release_id, 'index')} is not the inverse in the table path_items: build the index again"
        )


def _keys(column: pa.ChunkedArray) -> tuple[npt.NDArray[Any], ...]:
    import pyarrow as pa
    import pyarrow.compute as pc

    keys = _one(column)
    by_key = pc.sort_indices(keys.cast(pa.large_binary())).to_numpy().astype(np.int32)
    return *_bytes_and_offsets(keys), by_key


def _details(items: pa.Table) -> tuple[npt.NDArray[Any], ...]:
    import pyarrow as pa

    rows = zip(items["title"].to_pylist(), items["category"].to_pylist(), strict=True)
    texts = [json.dumps({"title": title, "category": category}, ensure_ascii=False) for title, category in rows]
    return _bytes_and_offsets(pa.array(texts, pa.large_string()))


def _one(column: pa.ChunkedArray) -> pa.Array:
    import pyarrow as pa

    merged = column.combine_chunks()
    return pa.concat_arrays(merged.chunks) if isinstance(merged, pa.ChunkedArray) else merged


def _bytes_and_offsets(texts: pa.Array) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the two buffers of a ``large_string`` array."""
    _, offsets, data = texts.buffers()
    offset_V = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    held = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    return held[offset_V[0] : offset_V[-1]], offset_V - offset_V[0]


def _save(place: str, names: tuple[str, ...], arrays: tuple[npt.NDArray[Any], ...]) -> None:
    for name, array in zip(names, arrays, strict=True):
        np.save(os.path.join(place, name), array, allow_pickle=False)


def _read(folder: Files, release_id: str, name: str) -> bytes:
    path = folder.path("models", release_id, name)
    try:
        return bytes(folder.filesystem.cat_file(path))
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: run the stage that writes it") from error


def _entry(blob: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(blob).hexdigest(), "size": len(blob)}


def main(argv: list[str] | None = None) -> int:
    """Write the bundle of a release that was published before there were bundles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--release", required=True)
    arguments = parser.parse_args(argv)
    try:
        print(write_bundle(Files(arguments.workdir), arguments.release))
    except DeepRetrievalError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
