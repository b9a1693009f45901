"""A release opens only with the files that it was published with, without a JVM, and answers as its model does."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from dr_core.errors import DeepRetrievalError, InputError, ReleaseMismatch
from dr_core.retrieval.from_model import model_retriever
from dr_core.retrieval.router import Price
from pipelines.serving import bundle
from pipelines.serving.bundle import DERIVED, DETAILS, FILES, MANIFEST, ReleaseBundle
from pipelines.serving.bundle import KEYS as KEY_FILES
from pipelines.serving.mapped import map_array, map_tensors
from pipelines.serving.write_bundle import main, write_bundle
from pipelines.storage.files import Files
from tests.pipelines.serving.conftest import BEAM, KEYS, LENGTH, NUM_ITEMS, Published, publish

ALIKE = (*KEY_FILES, *DETAILS, "index/path_ids.npy", "index/offsets.npy")
"""Files that may be the same in both releases: of the same items, with as many of them on the same paths."""
HISTORIES = [[3, 17, 5], [0], list(range(12)), []]


@pytest.mark.parametrize(
    ("encoder", "nodes"),
    [
        ({"kind": "gru"}, (4, 4)),
        ({"kind": "attention"}, (4, 4)),
        ({"kind": "decay", "embedding_rows": 20}, (4, 4)),
        ({"kind": "gru"}, (7, 3)),
        ({"kind": "gru"}, (3, 2, 4)),
    ],
)
def test_a_bundle_answers_as_the_model_does(
    published: Published, make_model, encoder: dict[str, object], nodes: tuple[int, ...]
) -> None:
    model = make_model(NUM_ITEMS, nodes=nodes, num_paths=2, seed=5, encoder=encoder)
    index = publish(published.folder, "r-5", model, "candidate")
    found = ReleaseBundle.open(published.folder, "r-5").retriever()
    expected = model_retriever(model, index, width=BEAM, max_length=LENGTH)
    one, other = (r.retrieve(r.encode(HISTORIES), 8, excluded=HISTORIES) for r in (found, expected))
    np.testing.assert_array_equal(one.item_Uk, other.item_Uk)
    np.testing.assert_array_equal(one.path_Uk, other.path_Uk)
    np.testing.assert_array_equal(one.num_candidates_U, other.num_candidates_U)
    np.testing.assert_allclose(one.score_Uk, other.score_Uk, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one.path_probability_Uk, other.path_probability_Uk, rtol=1e-4, atol=1e-6)


def test_a_price_cuts_inside_paths_as_the_model_does(published: Published, make_model) -> None:
    model = make_model(NUM_ITEMS, nodes=(3, 2), num_paths=1, seed=6, encoder={"kind": "gru"})
    index = publish(published.folder, "r-6", model, "candidate")
    opened = ReleaseBundle.open(published.folder, "r-6")
    found, expected = opened.retriever(), model_retriever(model, index, width=BEAM, max_length=LENGTH)
    width = Price(-3.5, -np.inf, 2**62)
    one, other = (r.retrieve(r.encode(HISTORIES), 8, width=width, excluded=HISTORIES) for r in (found, expected))
    np.testing.assert_array_equal(one.item_Uk, other.item_Uk)
    np.testing.assert_array_equal(one.num_candidates_U, other.num_candidates_U)
    state_UE = expected.encode(HISTORIES)
    start_UB, end_UB = index.lookup(expected.search(state_UE, width).path_UB)
    assert one.num_candidates_U.sum() < (end_UB - start_UB).sum()

    older = replace(opened, paths={name: path for name, path in opened.paths.items() if name != bundle.ROWS})
    np.testing.assert_array_equal(older.index.item_ids, index.item_ids)
    whole = older.router.visit(state_UE, width)
    start_UB, end_UB = index.lookup(whole.path_UB)
    np.testing.assert_array_equal(whole.items_UB, end_UB - start_UB)


@pytest.mark.parametrize("rows", [NUM_ITEMS, 20])
def test_vectors_that_are_in_the_models_file_alone_give_the_same_answers(
    published: Published, make_model, rows: int
) -> None:
    model = make_model(NUM_ITEMS, nodes=(4, 4), num_paths=2, seed=7, encoder={"kind": "gru", "embedding_rows": rows})
    publish(published.folder, "r-7", model, "candidate")
    opened = ReleaseBundle.open(published.folder, "r-7")
    files = (bundle.VECTORS, bundle.PLACES)
    assert len(map_array(opened.paths[bundle.VECTORS])) == rows
    older = replace(opened, paths={name: path for name, path in opened.paths.items() if name not in files})
    one, other = (
        found.retrieve(found.encode(HISTORIES), 8, excluded=HISTORIES)
        for found in (opened.retriever(), older.retriever())
    )
    for name, array in vars(one).items():
        np.testing.assert_array_equal(array, vars(other)[name])


def test_keys_lead_to_ids_and_back(published: Published) -> None:
    opened = ReleaseBundle.open(published.folder)
    assert [opened.keys.id_of(key) for key in KEYS[:NUM_ITEMS]] == list(range(NUM_ITEMS))
    assert [opened.item(item)["item_key"] for item in range(NUM_ITEMS)] == KEYS[:NUM_ITEMS]
    assert opened.keys.ids(["nowhere", KEYS[7], "", KEYS[NUM_ITEMS]]) == ([7], ["nowhere", "", KEYS[NUM_ITEMS]])
    assert opened.item(3) == {"item_key": KEYS[3], "title": None, "category": ""}
    assert opened.item(4) == {"item_key": KEYS[4], "title": "Title 4", "category": "films"}


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
@pytest.mark.parametrize("opened_before", [False, True])
def test_a_file_of_another_release_is_noticed(published: Published, name: str, opened_before: bool) -> None:
    if opened_before:
        ReleaseBundle.open(published.folder)
    own, others = published.release_folder() / name, published.release_folder("r-1") / name
    if own.read_bytes() == others.read_bytes():
        assert name in ALIKE
        changed = bytearray(own.read_bytes())
        changed[-1] ^= 1
        own.write_bytes(changed)
    else:
        shutil.copy(others, own)
    with pytest.raises(ReleaseMismatch, match="r-2"):
        ReleaseBundle.open(published.folder)


def test_a_whole_folder_of_another_release_is_noticed(published: Published) -> None:
    shutil.rmtree(published.release_folder())
    shutil.copytree(published.release_folder("r-1"), published.release_folder())
    with pytest.raises(ReleaseMismatch, match="release_id r-1"):
        ReleaseBundle.open(published.folder)
    assert ReleaseBundle.open(published.folder, "r-1").release.status == "retired"


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(published: Published, name: str) -> None:
    (published.release_folder() / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        ReleaseBundle.open(published.folder)


def test_a_file_in_a_known_state_is_not_read_through_again(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    ReleaseBundle.open(published.folder)
    read: list[Path] = []
    monkeypatch.setattr(bundle, "_sha256", lambda path: read.append(path) or "")
    ReleaseBundle.open(published.folder)
    assert read == []
    touched = published.release_folder() / DERIVED[0]
    os.utime(touched, ns=(1, 1))
    with pytest.raises(ReleaseMismatch):
        ReleaseBundle.open(published.folder)
    assert read == [touched]


def test_a_release_older_than_bundles_is_told_how_to_get_one(published: Published, make_model) -> None:
    model = make_model(NUM_ITEMS, 4, 2, num_paths=2, seed=3)
    publish(published.folder, "r-3", model, "candidate", bundled=False)
    with pytest.raises(InputError, match=r"write_bundle --workdir .* --release r-3"):
        ReleaseBundle.open(published.folder, "r-3")
    assert main(["--workdir", published.folder.uri, "--release", "r-3"]) == 0
    assert ReleaseBundle.open(published.folder, "r-3").release.bundle_sha256 is None
    shutil.copy(published.release_folder() / "model.safetensors", published.release_folder("r-3"))
    with pytest.raises(ReleaseMismatch):
        ReleaseBundle.open(published.folder, "r-3")


def test_writing_a_bundle_again_changes_nothing(published: Published) -> None:
    assert write_bundle(published.folder, "r-2") == ReleaseBundle.open(published.folder).release.bundle_sha256


def test_no_bundle_is_made_of_another_releases_index(published: Published) -> None:
    shutil.copytree(published.release_folder("r-1") / "index", published.release_folder() / "index", dirs_exist_ok=True)
    with pytest.raises(DeepRetrievalError, match="build the index again"):
        write_bundle(published.folder, "r-2")


def test_serving_loads_neither_torch_nor_spark_nor_pandas(published: Published) -> None:
    code = (
        "import sys; from pipelines.serving import open_release; from pipelines.storage.releases import list_releases;"
        f"from pipelines.storage.files import Files; W = {published.folder.uri!r};"
        f"print(len(list_releases(Files(W)))); print(len(open_release(W).recommend([[{KEYS[3]!r}]])[0].document['items']));"
        "print([name for name in ('torch', 'pyspark', 'pandas', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    releases, items, heavy = done.stdout.split("\n")[:3]
    assert (releases, heavy) == ("2", "[]")
    assert int(items) > 0


def test_a_remote_file_is_copied_once_and_by_its_contents() -> None:
    folder = Files("memory://served")
    folder.filesystem.pipe_file(folder.path("models", "r", "a.npy"), b"one")
    first = bundle._on_this_host(folder, "ab12", "models", "r", "a.npy")
    folder.filesystem.pipe_file(folder.path("models", "r", "a.npy"), b"two")
    assert bundle._on_this_host(folder, "ab12", "models", "r", "a.npy") == first
    assert first.read_bytes() == b"one"
    assert bundle._on_this_host(folder, "cd34", "models", "r", "a.npy").read_bytes() == b"two"


def test_mapped_arrays_are_those_that_are_read(published: Published, tmp_path: Path) -> None:
    path = published.release_folder() / "model.safetensors"
    mapped = map_tensors(path)
    for name, array in load_file(path).items():
        np.testing.assert_array_equal(mapped[name], array)
        assert (mapped[name].dtype, mapped[name].shape) == (array.dtype, array.shape)
    for array in (np.arange(6).reshape(2, 3), np.zeros((0, 4), np.float32)):
        np.save(tmp_path / "a.npy", array)
        np.testing.assert_array_equal(map_array(tmp_path / "a.npy"), array)
        assert map_array(tmp_path / "a.npy").shape == array.shape


def test_a_manifest_names_every_file(published: Published) -> None:
    folder = published.release_folder()
    named = json.loads((folder / MANIFEST).read_text())["files"]
    assert sorted(named) == sorted(FILES)
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert there == {*FILES, MANIFEST}


def test_a_bundle_of_layers_of_other_sizes_is_noticed_and_an_older_one_is_of_one_k(
    published: Published, make_model
) -> None:
    publish(published.folder, "r-3", make_model(NUM_ITEMS, 4, 2, num_paths=2, seed=3), "candidate", bundled=False)
    write_bundle(published.folder, "r-3")
    place = published.release_folder("r-3") / MANIFEST
    manifest = json.loads(place.read_text())
    assert manifest.pop("nodes") == [4, 4]
    place.write_text(json.dumps(manifest))
    assert ReleaseBundle.open(published.folder, "r-3").router.num_groups == 16
    place.write_text(json.dumps(manifest | {"nodes": [4, 2]}))
    with pytest.raises(ReleaseMismatch, match=r"has nodes \[4, 2\], release r-3 was published with \[4, 4\]"):
        ReleaseBundle.open(published.folder, "r-3")
