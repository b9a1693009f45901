"""Day one in memory: histories in; a model, a mapping and its index out."""

import numpy as np
import pytest
import torch

from dr_core.errors import ConfigError
from dr_core.learning.config import LearningConfig
from dr_core.learning.em import Learned, learn
from dr_core.learning.held_out import HeldOut, cut_in_halves, validation_columns
from dr_core.learning.samples import Histories
from dr_core.model.objective import batch_from_arrays
from dr_core.retrieval.from_model import model_retriever

NUM_ITEMS, GROUP = 60, 15
SMALL = {
    "encoder": {"dim": 16, "dropout": 0.0},
    "samples": {"positions": 3, "targets": 3},
    "serving": {"history_length": 8},
    "training": {"batch_rows": 32, "num_processes": 1},
    "budget": {"candidates": 15, "beam": 4},
    "em": {"warm_up_epochs": 8, "e_step_epochs": 4, "final_epochs": 6, "rounds": 2},
}


def readers(seed: int, num_users: int) -> Histories:
    """Users who stay in one of four groups of items."""
    rng = np.random.default_rng(seed)
    return Histories.from_rows([rng.permutation(GROUP)[:10] + GROUP * rng.integers(4) for _ in range(num_users)])


def learned(**sections) -> Learned:
    config = LearningConfig.model_validate(SMALL | sections)
    return learn(readers(0, 400), NUM_ITEMS, config, cut_in_halves(readers(1, 40)))


def share_of_own_group(result: Learned) -> float:
    """Of ten items for users who are not learned from, the share that is of their group."""
    users = cut_in_halves(readers(2, 50))
    retriever = model_retriever(result.model, result.index, width=5, max_length=8)
    found = retriever.retrieve(retriever.encode(users.histories), 10)
    groups = np.array([history[0] // GROUP for history in users.histories])
    return float((found.item_Uk // GROUP == groups[:, None])[found.item_Uk >= 0].mean())


@pytest.fixture(scope="module")
def default() -> Learned:
    return learned()


def test_users_get_items_of_their_own_group(default: Learned) -> None:
    assert share_of_own_group(default) > 0.95


def test_every_item_stands_on_its_path_and_the_index_is_the_inverse(default: Learned) -> None:
    space = default.choice.space
    assert default.path_VJ.shape == (NUM_ITEMS, 1)
    assert 0 <= default.path_VJ.min() <= default.path_VJ.max() < space.num_paths
    for item, path in enumerate(default.path_VJ[:, 0].tolist()):
        assert item in default.index.items(path)
    assert len(default.index.item_ids) == NUM_ITEMS
    assert default.algorithms["m_step"].kind == "refinement"
    assert len(default.rounds) == 2
    assert len(default.warm_up) == 8
    assert {facts.surrogate_after for facts in default.rounds} == {None}, "no scores are collected"


def test_the_same_seed_gives_the_same_mapping_and_model(default: Learned) -> None:
    again, other = learned(), learned(seed=1)
    np.testing.assert_array_equal(again.path_VJ, default.path_VJ)
    for name, value in default.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name
    assert (other.path_VJ != default.path_VJ).any()


@pytest.mark.parametrize(
    "sections",
    [
        {"assignment": {"m_step": "both"}},
        {"assignment": {"m_step": "descent"}},
        {"structure": {"normaliser": "layers", "hidden": 16}},
        {"paths": {"paths_per_item": 2}},
        {"paths": {"start": "random"}, "em": SMALL["em"] | {"rounds": 4}},
        {"em": SMALL["em"] | {"joint_epochs": 2}},
        {"mixed_targets": {"share": 0.0}},
        {"mixed_targets": {"exact_below": 10, "probed_groups": 8, "best_items": 20}},
    ],
    ids=["both", "descent", "layers", "two paths", "random start", "joint", "no mixed targets", "grouped targets"],
)
def test_every_way_of_learning_finds_the_groups(sections) -> None:
    result = learned(**sections)
    assert share_of_own_group(result) > 0.9
    assert result.path_VJ[:, 0].min() >= 0
    if result.algorithms["m_step"].kind != "refinement":
        assert all(facts.surrogate_after_descent >= facts.surrogate_before for facts in result.rounds)


def test_nobody_held_out_leaves_alpha_as_it_was_derived() -> None:
    result = learn(readers(0, 400), NUM_ITEMS, LearningConfig.model_validate(SMALL), HeldOut([], []))
    assert [facts.corrections for facts in result.rounds] == [0, 0]
    assert len(result.warm_up) == 8
    assert share_of_own_group(result) > 0.9


def test_what_cannot_be_learned_is_refused() -> None:
    config = LearningConfig.model_validate(SMALL)
    with pytest.raises(ValueError, match="no history has two events"):
        learn(Histories.from_rows([[1], [2]]), NUM_ITEMS, config, HeldOut([], []))
    with pytest.raises(ConfigError, match="paths_per_item"):
        learned(assignment={"m_step": "refinement"}, paths={"paths_per_item": 2}, structure={"normaliser": "layers"})


def test_held_out_users_are_cut_in_halves_and_judge_at_their_last_state() -> None:
    held = cut_in_halves(Histories.from_rows([[1, 2, 3, 4, 5], [6], [7, 8]]))
    assert [items.tolist() for items in held.histories] == [[1, 2], [7]]
    assert [items.tolist() for items in held.truths] == [[3, 4, 5], [8]]
    batch = batch_from_arrays(validation_columns(held.histories, held.truths, 1))
    assert batch.history_BL.tolist() == [[2], [7]]
    assert batch.position_BP.tolist() == [[0], [0]]
    assert batch.target_BPT[0, 0, :4].tolist() == [3, 4, 5, -1]
    assert batch.weight_BPT[0, 0, :4].tolist() == [1, 1, 1, 0]
