"""Which algorithm runs is chosen by a rule that says why; what was asked for and cannot run is refused."""

import logging

import pytest

from dr_core.errors import ConfigError
from dr_core.learning.choices import (
    choose_algorithms,
    choose_m_step,
    choose_normaliser,
    choose_path_vectors,
    choose_search,
    filled_paths,
    kept_epochs,
    log_choices,
    round_epochs,
)
from dr_core.learning.config import AssignmentConfig, LearningConfig
from dr_core.model.structure_config import StructureConfig
from dr_core.paths.space import PathSpace

CANNOT = [
    ({}, 100, 2, "paths.paths_per_item"),
    ({"refine_items": 99}, 100, 1, "assignment.refine_items"),
    ({"refine_sweeps": 0}, 100, 1, "assignment.refine_sweeps"),
]


@pytest.mark.parametrize(("normaliser", "kind"), [("layers", "both"), ("global", "refinement")])
def test_one_path_an_item_is_refined_and_descended_only_in_a_product(normaliser, kind) -> None:
    assert choose_m_step(AssignmentConfig(refine_items=100), 100, 1, normaliser).kind == kind


@pytest.mark.parametrize(("config", "num_items", "num_paths", "key"), CANNOT)
def test_auto_descends_alone_where_the_refinement_cannot_run_and_names_the_key(
    config, num_items, num_paths, key
) -> None:
    chosen = choose_m_step(AssignmentConfig(**config), num_items, num_paths, "layers")
    assert (chosen.kind, chosen.descends, chosen.refines) == ("descent", True, False)
    assert key in chosen.reason


@pytest.mark.parametrize("kind", ["refinement", "both"])
@pytest.mark.parametrize(("config", "num_items", "num_paths", "key"), CANNOT)
def test_a_refinement_that_cannot_run_is_refused(kind, config, num_items, num_paths, key) -> None:
    with pytest.raises(ConfigError, match=f"assignment.m_step: {kind} cannot run.*{key}"):
        choose_m_step(AssignmentConfig(m_step=kind, **config), num_items, num_paths, "layers")


def test_several_paths_are_refined_where_energies_say_what_a_further_one_covers() -> None:
    config = LearningConfig.model_validate({"paths": {"paths_per_item": 2}})
    assert choose_m_step(config.assignment, 100, 2).kind == "refinement"
    assert filled_paths(config, 100, 2) == 1
    for update in ({"assignment": {"m_step": "descent"}}, {"structure": {"normaliser": "layers"}}):
        descending = LearningConfig.model_validate({"paths": {"paths_per_item": 2}, **update})
        assert filled_paths(descending, 100, 2) == 2


@pytest.mark.parametrize(
    ("kind", "descends", "refines"), [("descent", True, False), ("refinement", False, True), ("both", True, True)]
)
def test_what_is_configured_runs(kind, descends, refines) -> None:
    chosen = choose_m_step(AssignmentConfig(m_step=kind), 100, 1)
    assert (chosen.kind, chosen.descends, chosen.refines) == (kind, descends, refines)


def test_path_vectors_and_search_of_a_product_follow_the_size_of_the_space() -> None:
    config = StructureConfig(normaliser="layers", path_vectors=100)
    assert choose_path_vectors(config, PathSpace.even(10, 2)).kind == "vectors"
    assert choose_path_vectors(config, PathSpace.even(11, 2)).kind == "mlp"
    assert choose_path_vectors(config, PathSpace.even(50, 1)).kind == "mlp"
    assert choose_search(config, PathSpace.even(2**9, 3)).kind == "p/|c|"
    assert choose_search(config, PathSpace.even(2**9 + 1, 3)).kind == "p"
    for space in (PathSpace.even(10, 2), PathSpace.even(11, 2), PathSpace.even(50, 1)):
        assert config.has_path_vectors(space) == (choose_path_vectors(config, space).kind == "vectors")


def test_the_normaliser_says_how_z_is_made_and_refuses_what_cannot_be() -> None:
    config = StructureConfig(exact_paths=1000)
    assert "Z sums 992 paths" in choose_normaliser(config, PathSpace((31, 32))).reason
    assert "Z is estimated" in choose_normaliser(config, PathSpace((512, 32))).reason
    with pytest.raises(ConfigError, match=r"more than 1000 prefixes.*paths.nodes"):
        choose_normaliser(config, PathSpace((1001, 2)))
    assert choose_normaliser(StructureConfig(normaliser="layers"), PathSpace.even(40, 2)).kind == "layers"


def test_a_product_of_layers_needs_even_ones_and_says_what_else_there_is() -> None:
    config = LearningConfig(structure=StructureConfig(normaliser="layers"))
    choose_algorithms(config, 1000, 1, PathSpace((32, 32)))
    with pytest.raises(ConfigError, match=r"paths.nodes=\[512, 32\].*structure.normaliser: global.*paths.num_nodes"):
        choose_algorithms(config, 1000, 1, PathSpace((512, 32)))


def test_every_choice_of_a_run_is_logged_with_its_reason(caplog) -> None:
    choices = choose_algorithms(LearningConfig(), 1000, 1, PathSpace.even(20, 2))
    assert set(choices) == {"m_step", "normaliser", "path_vectors", "search"}
    with caplog.at_level(logging.INFO):
        log_choices(choices)
    for name, choice in choices.items():
        assert f"{name}: {choice.kind}, since {choice.reason}" in caplog.text


def test_an_e_step_that_only_tells_a_likelihood_takes_one_epoch() -> None:
    def epochs(m_step: str, normaliser: str) -> tuple[int, int]:
        config = LearningConfig.model_validate(
            {"assignment": {"m_step": m_step}, "structure": {"normaliser": normaliser}, "em": {"e_step_epochs": 5}}
        )
        return round_epochs(config, choose_m_step(config.assignment, 100, 1, normaliser)), kept_epochs(config)

    assert epochs("auto", "global") == epochs("refinement", "global") == (1, 0)
    assert epochs("both", "global") == epochs("descent", "global") == (5, 0)
    assert epochs("auto", "layers") == epochs("refinement", "layers") == (5, 5)
