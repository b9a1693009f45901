"""A work folder with two releases, published without Spark: Delta tables written by delta-rs, bundles by the product."""

import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from dr_core.learning.checkpoint import read_manifest, save_model
from dr_core.model.objective import DeepRetrievalModel
from dr_core.paths.index import PathIndex, build_index
from pipelines.serving.write_bundle import write_bundle
from pipelines.storage.files import Files
from pipelines.storage.releases import Release

NUM_ITEMS, NUM_NEWER, LENGTH, BEAM = 40, 2, 6, 5
KEYS = [f"{(7 * item) % 41}" if item % 5 else f"café {item} ☕" for item in range(NUM_ITEMS + NUM_NEWER)]
"""Of every item: neither in the order of the ids nor plain ASCII."""


@dataclass(frozen=True)
class Published:
    """A work folder, and what its live release consists of."""

    folder: Files
    models: dict[str, DeepRetrievalModel]
    indexes: dict[str, PathIndex]

    def release_folder(self, release_id: str = "r-2") -> Path:
        return Path(self.folder.path("models", release_id))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this host remembers of files is this test's alone."""
    monkeypatch.setenv("DR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def published(tmp_path: Path, make_model: Callable[..., DeepRetrievalModel]) -> Published:
    """Releases r-1, retired, and r-2, live: as alike in size as two releases can be."""
    folder = Files(str(tmp_path / "W"))
    write_items(folder)
    models, indexes = {}, {}
    for number, status in ((1, "retired"), (2, "live")):
        model = make_model(NUM_ITEMS, 4, 2, num_paths=2, seed=number, encoder={"kind": "gru"})
        models[f"r-{number}"], indexes[f"r-{number}"] = model, publish(folder, f"r-{number}", model, status)
    return Published(folder, models, indexes)


def write_items(folder: Files) -> None:
    count = len(KEYS)
    table = pa.table(
        {
            "item_id": pa.array(range(count), pa.int32()),
            "item_key": KEYS,
            "title": [f"Title {item}" if item % 3 else None for item in range(count)],
            "category": ["" if item % 2 else "films" for item in range(count)],
        }
    )
    write_deltalake(folder.path("tables", "items"), table.take(pa.array(range(count - 1, -1, -1))))


def publish(
    folder: Files, release_id: str, model: DeepRetrievalModel, status: str, *, bundled: bool = True, **more: object
) -> PathIndex:
    """Write a release as the flows do: model, index, ``path_items``, ``serving.json``, bundle, row."""
    place = folder.path("models", release_id)
    save_model(model, folder.filesystem, place)
    index = build_index(np.arange(NUM_ITEMS), model.placement.path_VJ.numpy())
    index.save(f"{place}/index")
    lists = [index.item_ids[slice(*index.offsets[at : at + 2])].tolist() for at in range(index.num_paths)]
    rows = {"release_id": [release_id] * index.num_paths, "path_id": index.path_ids, "item_ids": lists}
    schema = pa.schema({"release_id": pa.string(), "path_id": pa.int64(), "item_ids": pa.list_(pa.int32())})
    write_deltalake(folder.path("tables", "path_items"), pa.table(rows, schema), mode="append")
    settings = {"release_id": release_id, "beam": BEAM, "history_length": LENGTH} | more
    folder.write_text(json.dumps(settings), "models", release_id, "serving.json")
    manifest = read_manifest(folder.filesystem, place)
    assert manifest is not None
    release = Release(
        release_id=release_id,
        status=status,
        interval_start="2024-01-01",
        interval_end="2024-01-02",
        parent_release=None,
        model_uri=place,
        model_sha256=manifest["sha256"]["model.safetensors"],
        K=model.space.nodes[0],
        D=model.space.num_layers,
        J=2,
        num_items=NUM_ITEMS,
        config_hash="ab",
        gates="{}",
        created_at=datetime(2024, 1, 1) + timedelta(days=int(release_id[-1])),
        nodes=None if model.space.is_even else list(model.space.nodes),
    )
    if bundled:
        release = replace(release, bundle_sha256=write_bundle(folder, release_id))
    write_row(folder, release)
    return index


def write_row(folder: Files, release: Release) -> None:
    row = vars(release) | {"created_at": release.created_at.replace(tzinfo=UTC)}
    kinds = {
        "int": pa.int32(),
        "float | None": pa.float64(),
        "list[str]": pa.list_(pa.string()),
        "list[int] | None": pa.list_(pa.int32()),
    }
    types = {field.name: kinds.get(str(field.type), pa.string()) for field in fields(Release)}
    schema = pa.schema(types | {"created_at": pa.timestamp("us", "UTC")})
    write_deltalake(folder.path("tables", "releases"), pa.Table.from_pylist([row], schema), mode="append")
