"""The registry of methods: everything that is measured is in it, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.config.load import load_config
from pipelines.evaluation import methods
from pipelines.evaluation.controls import Controls
from pipelines.experiments.baselines import BASELINES, families
from pipelines.experiments.indexes import EQUAL_WORK

WORLDS = sorted((Path(__file__).parents[3] / "conf").glob("*.yaml"))


def test_every_name_is_registered_once() -> None:
    names = [method.name for method in methods.REGISTERED]
    labels = [method.label for method in methods.REGISTERED]
    assert len(set(names)) == len(names)
    assert len(set(labels)) == len(labels)


def test_everything_that_a_comparison_measures_is_registered() -> None:
    measured = {name for group in families().values() for name in group}
    assert measured >= {EQUAL_WORK, *BASELINES}
    for name in measured:
        method = methods.find(name)
        assert method is not None, name
        assert method.explanation
    for name in BASELINES:
        assert methods.find(name).family == "baseline"  # type: ignore[union-attr]
        assert BASELINES[name].build(load_config(WORLDS[0]), BASELINES[name].settings[0], 0).name == name


def test_everything_that_a_run_measures_is_registered(controls_of_every_world: list[Controls]) -> None:
    measured = {methods.SUBJECT, methods.BRUTE_FORCE, methods.PATHS_ONLY, methods.POPULARITY}
    measured |= {*methods.of_family("candidates")}
    for controls in controls_of_every_world:
        measured |= set(controls.all())
    assert {"random_paths", "embedding_paths", "deep_retrieval_random_start"} < measured
    for name in measured:
        method = methods.find(name)
        assert method is not None, name
        assert method.name == name


def test_a_variant_with_another_number_of_paths_is_known_by_its_name() -> None:
    method = methods.find(methods.other_paths_per_item(3))
    assert method is not None
    assert (method.name, method.label, method.family) == ("deep_retrieval_j3", "Deep Retrieval, J=3", "deep_retrieval")
    assert methods.find("deep_retrieval_jx") is None


@pytest.mark.parametrize("name", ["magic", "deep_retrieval_magic"])
def test_another_name_is_not_registered_and_is_read_as_it_is(name: str) -> None:
    assert methods.find(name) is None
    assert methods.label(name) == name.replace("_", " ").capitalize()
    assert methods.explanation(name) == ""


def test_methods_are_listed_reference_first_and_variants_after_the_paths_only() -> None:
    names = ["ease", "random_paths", "mine", "deep_retrieval_j2", "deep_retrieval", "brute_force", "deep_retrieval_mlp"]
    assert methods.ordered([*names, "ease"]) == [
        "brute_force", "deep_retrieval", "deep_retrieval_j2", "deep_retrieval_mlp", "random_paths", "ease", "mine",
    ]  # fmt: skip


def test_the_controls_are_trained_ones_and_candidates_of_another_origin() -> None:
    assert methods.CONTROLS == ("random_paths", "embedding_paths", "popular_candidates", "random_candidates")
    assert methods.of_family("candidates") == ("exact_candidates", "popular_candidates", "random_candidates")
