"""Models on disk: what is read back is what was written, or an error that says why not."""

import json
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from dr_core.errors import InputError
from dr_core.learning.checkpoint import (
    MANIFEST,
    copy_parameters,
    load_model,
    optimizer_tensors,
    read_manifest,
    read_tensors,
    restore_optimizer,
    save_model,
    table_identity,
    write_tensors,
)
from dr_core.model.objective import DeepRetrievalModel
from dr_core.model.reranker import RerankerConfig
from dr_core.paths.space import PathSpace

ModelMaker = Callable[..., DeepRetrievalModel]
LOCAL = fsspec.filesystem("file")


@pytest.mark.parametrize("embedding_rows", [1000, 12])
def test_a_model_comes_back_as_it_was(make_model: ModelMaker, tmp_path: Path, embedding_rows: int) -> None:
    """Also with fewer embedding rows than items, whose rows depend on counts that are not stored."""
    counts = np.random.default_rng(41).permutation(30).astype(np.float64)
    model = make_model(
        counts=counts,
        encoder={"embedding_rows": embedding_rows, "context_cardinalities": (3,)},
        reranker=RerankerConfig(loss="sampled", num_negatives=4),
    )
    save_model(model, LOCAL, str(tmp_path / "m"), {"note": 1})
    again = load_model(LOCAL, str(tmp_path / "m"))
    assert again.encoder.config == model.encoder.config
    assert again.reranker.config == model.reranker.config
    assert (again.space, again.num_items, again.training) == (model.space, 30, False)
    for (name, value), (other_name, other) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other_name
        assert torch.equal(value, other)
    history, length = torch.arange(30)[:, None], torch.ones(30, dtype=torch.int64)
    context = (torch.zeros(30, 1, dtype=torch.int64), torch.zeros(30, 1))
    states = model.encode_last(history, length, context)
    assert torch.equal(states, again.encode_last(history, length, context))
    assert torch.equal(model.reranker.score_all(states), again.reranker.score_all(states))
    assert read_manifest(LOCAL, str(tmp_path / "m"))["note"] == 1


def test_a_model_from_before_path_vectors_comes_back_too(make_model: ModelMaker, tmp_path: Path) -> None:
    model = make_model(normaliser="layers", path_vectors=0)
    save_model(model, LOCAL, str(tmp_path))
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    del manifest["structure"]["path_vectors"], manifest["structure"]["normaliser"]
    manifest["space"] = {"num_nodes": 4, "num_layers": 2}
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    again = load_model(LOCAL, str(tmp_path))
    assert again.space == model.space
    assert not again.structure.has_path_vectors
    states, paths = torch.randn(3, 8), torch.randint(0, 16, (3, 5))
    assert torch.equal(model.structure.log_prob(states, paths), again.structure.log_prob(states, paths))


@pytest.mark.parametrize("nodes", [(4, 4), (7, 3), (5, 2, 3)])
def test_a_model_of_layers_of_different_sizes_comes_back(
    make_model: ModelMaker, tmp_path: Path, nodes: tuple[int, ...]
) -> None:
    model = make_model(nodes=nodes)
    save_model(model, LOCAL, str(tmp_path))
    again = load_model(LOCAL, str(tmp_path))
    assert again.space == PathSpace(nodes)
    states, paths = torch.randn(3, 8), torch.arange(again.space.num_paths).repeat(3, 1)
    assert torch.equal(model.structure.log_prob(states, paths), again.structure.log_prob(states, paths))


def test_a_model_from_when_negatives_had_a_choice_comes_back_too(make_model: ModelMaker, tmp_path: Path) -> None:
    model = make_model(reranker=RerankerConfig(loss="sampled", num_negatives=4))
    save_model(model, LOCAL, str(tmp_path))
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    manifest["reranker"]["negatives"] = "popularity"
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    assert load_model(LOCAL, str(tmp_path)).reranker.config == model.reranker.config


def test_another_kind_of_filesystem_holds_models_too(make_model: ModelMaker) -> None:
    memory = fsspec.filesystem("memory")
    save_model(make_model(), memory, "/models/m")
    save_model(make_model(seed=1), memory, "/models/m")
    assert torch.equal(load_model(memory, "/models/m").reranker.bias, make_model(seed=1).reranker.bias)


def test_the_manifest_is_written_last(make_model: ModelMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at any write before the end, the folder is no model: not the new one, and not a mixture with the old."""
    folder = str(tmp_path / "m")
    model = make_model()
    for already_there in (False, True):
        if already_there:
            save_model(model, LOCAL, folder)
        with monkeypatch.context() as patch:
            patch.setattr(type(LOCAL), "mv", lambda *args, **more: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                save_model(model, LOCAL, folder)
        assert (tmp_path / "m" / "model.safetensors").exists()
        assert read_manifest(LOCAL, folder) is None
        with pytest.raises(InputError, match="no finished model"):
            load_model(LOCAL, folder)
    save_model(model, LOCAL, folder)
    assert load_model(LOCAL, folder).num_items == 30


def test_a_folder_that_was_never_written_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished model"):
        load_model(LOCAL, str(tmp_path / "nowhere"))


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "remove", "manifest"])
def test_a_tampered_file_is_an_input_error_that_names_it(make_model: ModelMaker, tmp_path: Path, harm: str) -> None:
    save_model(make_model(), LOCAL, str(tmp_path))
    file = tmp_path / ("model.safetensors" if harm != "manifest" else MANIFEST)
    blob = bytearray(file.read_bytes())
    blob[-3] ^= 1
    changed = {"flip": bytes(blob), "cut": bytes(blob[:-10]), "empty": b"", "manifest": bytes(blob[:-10])}
    if harm == "remove":
        file.unlink()
    else:
        file.write_bytes(changed[harm])
    with pytest.raises(InputError, match=file.name):
        load_model(LOCAL, str(tmp_path))


def test_the_identity_of_a_model_covers_every_byte_of_it(make_model: ModelMaker, tmp_path: Path) -> None:
    first = save_model(make_model(), LOCAL, str(tmp_path / "a"))
    assert save_model(make_model(), LOCAL, str(tmp_path / "b")) == first
    changed = make_model()
    with torch.no_grad():
        changed.reranker.bias[0] += 1e-3
    assert save_model(changed, LOCAL, str(tmp_path / "c")) != first
    assert save_model(make_model(), LOCAL, str(tmp_path / "d"), {"note": 1}) != first


def test_files_of_a_folder_are_checked_one_by_one(tmp_path: Path) -> None:
    tensors = {"a.safetensors": {"x": torch.arange(3)}, "b.safetensors": {"y": torch.zeros(0), "z": torch.tensor(2.5)}}
    write_tensors(LOCAL, str(tmp_path), tensors, {"step": 7})
    manifest = read_manifest(LOCAL, str(tmp_path))
    assert manifest["step"] == 7
    (tmp_path / "a.safetensors").write_bytes(b"")
    found = read_tensors(LOCAL, str(tmp_path), "b.safetensors", manifest)
    assert found["y"].shape == (0,)
    assert float(found["z"]) == 2.5
    with pytest.raises(InputError, match=r"a\.safetensors"):
        read_tensors(LOCAL, str(tmp_path), "a.safetensors", manifest)


def test_identity_of_a_path_table_depends_on_every_entry_and_the_shape() -> None:
    table = np.arange(12, dtype=np.int64).reshape(6, 2)
    seen = {table_identity(table), table_identity(table.reshape(4, 3))}
    for entry in range(12):
        changed = table.copy()
        changed.flat[entry] += 1
        seen.add(table_identity(changed))
    assert len(seen) == 14
    assert table_identity(np.asfortranarray(table)) == table_identity(table)


def test_an_optimizer_goes_on_as_if_it_had_never_stopped() -> None:
    def start() -> tuple[torch.nn.Linear, torch.optim.AdamW]:
        torch.manual_seed(42)
        layer = torch.nn.Linear(3, 2)
        return layer, torch.optim.AdamW(layer.parameters(), lr=0.1)

    def step(layer: torch.nn.Linear, optimizer: torch.optim.AdamW) -> None:
        optimizer.zero_grad()
        layer(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()

    layer, optimizer = start()
    for _ in range(3):
        step(layer, optimizer)
    stored = {name: value.clone() for name, value in optimizer_tensors(optimizer).items()}
    other, restored = start()
    other.load_state_dict(layer.state_dict())
    restore_optimizer(restored, stored)
    for pair in ((layer, optimizer), (other, restored)):
        step(*pair)
    assert torch.equal(layer.weight, other.weight)


def test_copying_takes_what_fits_and_leaves_the_rest(make_model: ModelMaker) -> None:
    source, target = make_model(seed=1), make_model(seed=2, num_nodes=5)
    structure = {name: value.clone() for name, value in target.structure.state_dict().items()}
    copy_parameters(source, target)
    assert torch.equal(source.reranker.output_embedding.weight, target.reranker.output_embedding.weight)
    assert torch.equal(source.encoder.gru.weight_hh_l0, target.encoder.gru.weight_hh_l0)
    outputs = [name for name in structure if name.startswith("outputs")]
    assert all(torch.equal(target.structure.state_dict()[name], structure[name]) for name in outputs)
    assert json.dumps(target.space.num_nodes) == "5"


def test_between_its_files_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    """The caller is told after each file, while there is no manifest yet: also over a folder that had one."""
    tensors = {"a": {"x": torch.ones(2)}, "b": {"y": torch.zeros(1)}}
    seen: list[tuple[str, object]] = []
    for _ in range(2):
        write_tensors(
            LOCAL, str(tmp_path), tensors, {}, after_file=lambda name: seen.append((name, read_manifest(LOCAL, str(tmp_path))))
        )  # fmt: skip
    assert seen == [("a", None), ("b", None)] * 2
    assert read_manifest(LOCAL, str(tmp_path)) is not None
