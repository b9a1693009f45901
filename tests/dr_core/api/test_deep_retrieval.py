"""Fit, recommend, explain, save and load: what people who run no Spark rely on."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dr_core import DeepRetrieval
from dr_core.errors import ConfigError, InputError
from dr_core.learning.config import LearningConfig
from tests.dr_core.api.conftest import FAST, SHELF, own_share, readers

STRANGERS = readers(1, 40)


def lists(model: DeepRetrieval, histories: list[list[str]] = STRANGERS) -> list[list[str]]:
    return [found.items for found in model.recommend_all(histories)]


def test_readers_get_books_of_their_shelf_and_none_they_know(model: DeepRetrieval) -> None:
    assert own_share(model, STRANGERS) > 0.95
    for history, found in zip(STRANGERS, model.recommend_all(STRANGERS), strict=True):
        assert len(found.items) == len(set(found.items)) == 4
        assert not set(found.items) & set(history)
        assert (np.diff(found.scores) <= 0).all()
        assert model.recommend(history).items == found.items


def test_layers_may_have_different_numbers_of_nodes(tmp_path: Path) -> None:
    nodes = (8, 3)
    model = DeepRetrieval(k=4, seed=0, paths={"nodes": nodes}, **FAST).fit(readers(0, 300))
    assert own_share(model, STRANGERS) > 0.9
    visited = [path.nodes for path in model.explain(["a1", "a2"], beam=10**6)]
    assert len(set(visited)) == len(visited)
    assert all((np.array(path) < nodes).all() for path in visited)
    model.save(tmp_path / "saved")
    assert lists(DeepRetrieval.load(tmp_path / "saved")) == lists(model)


def test_the_same_seed_gives_the_same_lists_whatever_torch_has_drawn(model: DeepRetrieval) -> None:
    torch.manual_seed(77)
    assert lists(DeepRetrieval(k=4, seed=0, **FAST).fit(readers(0, 300))) == lists(model)
    other = DeepRetrieval(k=4, seed=5, **FAST).fit(readers(0, 300))
    assert other.learned is not None
    assert model.learned is not None
    assert (other.learned.path_VJ != model.learned.path_VJ).any()


def test_a_table_of_the_same_events_gives_the_same_lists(model: DeepRetrieval) -> None:
    rows = [(user, book, place) for user, books in enumerate(readers(0, 300)) for place, book in enumerate(books)]
    frame = pd.DataFrame(rows, columns=["user", "item", "order"]).sample(frac=1, random_state=0)
    assert lists(DeepRetrieval(k=4, seed=0, **FAST).fit(frame)) == lists(model)


def test_what_is_left_out_can_be_chosen(model: DeepRetrieval) -> None:
    history = ["a1", "a2", "a3"]
    everything = model.recommend(history, k=48, exclude=False).items
    assert sorted(everything) == sorted(model.items), "a list of all items is full, though the beam be narrow"
    assert model.recommend(history, k=48).items == [book for book in everything if book not in history]
    assert model.recommend(history, k=48, exclude=["a4", "d1"]).items == [
        book for book in everything if book not in ("a4", "d1")
    ]
    keeping = DeepRetrieval(k=4, **FAST | {"serving": {"history_length": 8, "filter_history": False}})
    assert "a1" in keeping.fit(readers(0, 300)).recommend(history, k=48).items


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_lists_of_allowed_items_are_full_and_in_the_same_order(model: DeepRetrieval, share: float) -> None:
    mask = np.random.default_rng(3).random(len(model.items)) < share
    mask[[3, 40]] = True
    allowed = [book for book, is_allowed in zip(model.items, mask, strict=True) if is_allowed]
    everything = model.recommend(["b5"], k=48).items
    expected = [book for book in everything if book in allowed]
    assert sorted(model.recommend(["b5"], k=48, allowed=mask).items) == sorted(expected)
    assert model.recommend(["b5"], k=48, allowed=allowed).items == model.recommend(["b5"], k=48, allowed=mask).items
    assert len(model.recommend(["b5"], k=2, allowed=mask).items) == 2
    assert model.recommend(["b5"], k=48, allowed=mask, beam=10**6).items == expected


@pytest.mark.parametrize("k", [2, 3])
def test_a_list_does_not_depend_on_who_else_is_asked_about(model: DeepRetrieval, k: int) -> None:
    """With a beam of 1 the lists of some are short, and only their beams grow."""
    together = [found.items for found in model.recommend_all(STRANGERS, k, beam=1)]
    assert together == [model.recommend(history, k, beam=1).items for history in STRANGERS]
    assert {len(items) for items in together} == {k}


def test_nothing_allowed_is_an_empty_list(model: DeepRetrieval) -> None:
    assert model.recommend(["b5"], allowed=np.zeros(len(model.items), dtype=bool)).items == []
    assert model.recommend(["b5"], allowed=["b5"]).items == []


def test_unknown_keys_are_named_and_a_history_of_nothing_else_is_refused(model: DeepRetrieval) -> None:
    with pytest.warns(UserWarning, match="1 history items are unknown and left out: 'zzz'"):
        found = model.recommend(["a1", "zzz"])
    assert found.items == model.recommend(["a1"]).items
    with pytest.warns(UserWarning, match="1 excluded items are unknown and left out: 'zzz'"):
        assert "a2" not in model.recommend(["a1"], exclude=["a2", "zzz"]).items
    for given in ({"history": "a1"}, {"history": ["a1"], "exclude": "a2"}, {"history": ["a1"], "allowed": "a2"}):
        with pytest.raises(InputError, match="is one text: give a list of keys"):
            model.recommend(**given)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="1 allowed items are unknown and left out: 'zzz'"):
        assert model.recommend(["a1"], allowed=["a2", "zzz"]).items == ["a2"]
    for history, named in ((["zzz"], "'zzz'"), ([], "it is empty")):
        with pytest.raises(InputError, match=f"no item of the history is known \\({named}\\)"):
            model.recommend(history)
        with pytest.raises(InputError, match="no item of the history is known"):
            model.explain(history)
    with pytest.raises(InputError, match=r"allowed has shape \(3,\), the model 48 items"):
        model.recommend(["a1"], allowed=np.ones(3, dtype=bool))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.recommend(["a1", "a2"])


def test_an_explanation_holds_the_paths_of_what_is_recommended(model: DeepRetrieval) -> None:
    history = ["c1", "c2"]
    paths = model.explain(history, beam=6)
    space = model.retriever.router.space
    assert len(paths) == 6
    assert all(len(path.nodes) == space.num_layers for path in paths)
    on_paths = {book for path in paths for book in path.items}
    assert set(model.recommend(history, k=1, beam=6).items) <= on_paths
    per_item = [path.probability / len(path.items) for path in paths if path.items]
    assert per_item == sorted(per_item, reverse=True)
    every = model.explain(history, beam=10**6)
    whole, user_1E = model.retriever.router, model.retriever.encode([[model.items.index(book) for book in history]])
    empty = np.setdiff1d(np.arange(space.num_paths), model.retriever.index.path_ids)[None]
    left = float(np.exp(whole.log_prob(user_1E, empty)).sum())
    assert sum(path.probability for path in every) + left == pytest.approx(1, abs=1e-3)
    assert sorted(book for path in every for book in path.items) == sorted(model.items)


def test_a_search_finds_as_many_candidates_as_wanted(model: DeepRetrieval) -> None:
    few, many, fixed = (
        DeepRetrieval(k=2, seed=0, **FAST | {"serving": {"history_length": 8, **serving}}).fit(readers(0, 300))
        for serving in ({"candidates": 2}, {"candidates": 16}, {"beam": 3})
    )
    sizes = [[sum(len(path.items) for path in each.explain(history)) for history in STRANGERS] for each in (few, many)]
    assert np.mean(sizes[1]) > 12
    assert np.mean(sizes[0]) < np.mean(sizes[1])
    assert fixed.width == len(fixed.explain(["a1"])) == 3


def test_others_may_be_held_out_and_nobody_may(model: DeepRetrieval) -> None:
    for validation in (readers(9, 30), 0):
        fitted = DeepRetrieval(k=4, seed=0, **FAST).fit(readers(0, 300), validation=validation)
        assert own_share(fitted, STRANGERS) > 0.9
        assert fitted.learned is not None
        assert fitted.learned.model.reranker.output_embedding.weight.shape[0] == 4 * SHELF
    with pytest.raises(ConfigError, match="validation=1"):
        DeepRetrieval(**FAST).fit(readers(0, 20), validation=1)


def test_a_loaded_model_answers_as_the_saved_one(model: DeepRetrieval, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "model"
    model.save(folder)
    assert {file.name for file in folder.iterdir()} == {
        "item_paths.npy",
        "items.json",
        "manifest.json",
        "model.safetensors",
    }
    loaded = DeepRetrieval.load(folder)
    assert lists(loaded) == lists(model)
    assert (loaded.k, loaded.seed, loaded.config, loaded.items) == (model.k, model.seed, model.config, model.items)
    assert loaded.explain(["a1"]) == model.explain(["a1"])
    loaded.save(folder)
    assert lists(DeepRetrieval.load(folder)) == lists(model)
    assert [file.name for file in folder.parent.iterdir()] == ["model"], "nothing half written is left"


@pytest.mark.parametrize("name", ["item_paths.npy", "items.json", "model.safetensors"])
def test_a_changed_or_missing_file_is_noticed(model: DeepRetrieval, tmp_path: Path, name: str) -> None:
    model.save(tmp_path / "model")
    file = tmp_path / "model" / name
    blob = bytearray(file.read_bytes())
    blob[-1] ^= 1
    file.write_bytes(blob)
    with pytest.raises(InputError, match=name):
        DeepRetrieval.load(tmp_path / "model")
    file.unlink()
    with pytest.raises(InputError, match=name):
        DeepRetrieval.load(tmp_path / "model")


def test_only_a_saved_model_is_read_or_replaced(model: DeepRetrieval, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no saved model"):
        DeepRetrieval.load(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds no saved model"):
        model.save(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    mixed = DeepRetrieval(k=2, **FAST).fit([[("a", 1), ("a", 2), ("b", 1)]] * 40)
    with pytest.raises(ConfigError, match="strings or ints"):
        mixed.save(tmp_path / "tuples")


def test_a_model_that_is_not_fitted_says_so() -> None:
    model = DeepRetrieval()
    for use in (
        lambda: model.recommend(["a"]),
        lambda: model.explain(["a"]),
        lambda: model.save("x"),
        lambda: model.items,
    ):
        with pytest.raises(ConfigError, match="not fitted"):
            use()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k=0"),
        ({"serving": {"beam": 0}}, r"serving\.beam"),
        ({"encodr": {}}, "encodr: .*sections are"),
        ({"em": {"rounds": 0}}, r"em\.rounds"),
        ({"em": {"round": 1}}, r"em\.round"),
        ({"config": LearningConfig(), "em": {}}, "config and em"),
    ],
)
def test_a_wrong_option_is_named(options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        DeepRetrieval(**options)


def test_sections_and_a_whole_configuration_mean_the_same() -> None:
    config = LearningConfig.model_validate(FAST)
    whole, sections = DeepRetrieval(seed=3, config=config), DeepRetrieval(seed=3, **FAST)
    assert whole.config == sections.config
    assert (whole.config.seed, whole.config.training.num_processes, whole.config.serving.k) == (3, 1, 10)


def test_progress_is_told_on_stderr_only_when_asked(capsys) -> None:
    for progress in (False, True):
        DeepRetrieval(k=2, **FAST).fit(readers(0, 40), progress=progress)
        captured = capsys.readouterr()
        assert ("round 1 of 1" in captured.err) == progress
        assert captured.out == ""


def test_an_unhealthy_structure_is_told() -> None:
    """Ten users of one long shelf and K = 2: a path holds far more than a twentieth of the items."""
    with pytest.warns(UserWarning, match="largest path"):
        DeepRetrieval(k=2, **FAST, paths={"num_nodes": 2}).fit(readers(0, 40))


def test_neither_spark_nor_torch_is_loaded_before_it_is_used() -> None:
    code = (
        "import sys, json, dr_core; before = 'torch' in sys.modules; from dr_core import DeepRetrieval;"
        "print(json.dumps([before, 'torch' in sys.modules, any(n in sys.modules for n in ('pyspark', 'pipelines'))]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout) == [False, True, False]
    with pytest.raises(ImportError, match="Nothing"):
        from dr_core import Nothing  # noqa: F401
