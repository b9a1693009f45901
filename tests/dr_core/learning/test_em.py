"""The in-process EM loop: its scores against sums over the whole distribution, in any number of passes."""

import numpy as np
import pytest
import torch

from dr_core.learning import scoring
from dr_core.learning import states as states_module
from dr_core.learning.mixed_targets import MixedTargetsConfig, TargetSampler
from dr_core.learning.states import States
from dr_core.model.encoder import EncoderConfig
from dr_core.model.objective import DeepRetrievalModel
from dr_core.model.reranker import RerankerConfig
from dr_core.model.structure_config import StructureConfig
from dr_core.paths.scores import FRACTION_BITS
from dr_core.paths.space import PathSpace
from dr_core.retrieval.from_model import compiled_structure

NUM_ITEMS, NUM_STATES, NUM_TARGETS, SPACE = 23, 50, 3, PathSpace.even(4, 2)


@pytest.fixture(scope="module")
def world() -> tuple[DeepRetrievalModel, States, np.ndarray]:
    """An untrained model, states with missing targets and a mapping with two paths an item."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = DeepRetrievalModel(
        EncoderConfig(dim=8, embedding_rows=NUM_ITEMS),
        StructureConfig(hidden=16, path_dim=4),
        RerankerConfig(),
        SPACE,
        np.ones(NUM_ITEMS),
    )
    for parameter in model.structure.parameters():
        parameter.data.normal_()
    targets = rng.integers(-1, NUM_ITEMS, (NUM_STATES, NUM_TARGETS))
    weights = torch.from_numpy((rng.random(targets.shape) * (targets >= 0)).astype(np.float32))
    states = States(torch.randn(NUM_STATES, 8), torch.from_numpy(targets), weights)
    paths = np.stack([rng.permutation(SPACE.num_paths)[:2] for _ in range(NUM_ITEMS)])
    return model, states, paths


@pytest.mark.parametrize("targets_per_pass", [7, 40, 4_000_000])
def test_scores_are_the_sums_over_all_states_in_any_number_of_passes(world, monkeypatch, targets_per_pass):
    """With S = all paths, every s[v, c] is the sum of w p(c | x) over the states that have v as a target."""
    model, states, paths = world
    monkeypatch.setattr(scoring, "TARGETS_PER_PASS", targets_per_pass)
    monkeypatch.setattr(states_module, "STATES_PER_BATCH", 16)
    candidates = scoring.score_states(model, states, paths, SPACE.num_paths)
    everything = torch.arange(SPACE.num_paths).expand(NUM_STATES, -1)
    with torch.inference_mode():
        prob_NC = model.structure.log_prob(states.user_NE, everything).exp().numpy()
    weight_NV = np.zeros((NUM_STATES, NUM_ITEMS))
    for state, target in zip(*np.nonzero(states.target_NT.numpy() >= 0), strict=True):
        weight_NV[state, states.target_NT[state, target]] += float(states.weight_NT[state, target])
    expected_VC = weight_NV.T @ prob_NC
    for item in range(NUM_ITEMS):
        row = slice(candidates.offsets[item], candidates.offsets[item + 1])
        dense = np.zeros(SPACE.num_paths)
        dense[candidates.path_ids[row]] = candidates.scores[row]
        np.testing.assert_allclose(dense, expected_VC[item], rtol=1e-4, atol=NUM_STATES * 2.0**-FRACTION_BITS)
    np.testing.assert_allclose(candidates.weights, weight_NV.sum(axis=0), atol=1e-6)


def test_the_best_candidates_and_the_current_paths_are_kept(world):
    """With S below the number of paths, an item keeps its own paths and its S best others among all that were scored."""
    model, states, paths = world
    candidates = scoring.score_states(model, states, paths, 3)
    structure, users = compiled_structure(model.structure), states.user_NE.numpy()
    beams = structure.search(users, 3)[0]
    prob_NC = np.exp(structure.log_prob(users, np.tile(np.arange(SPACE.num_paths), (NUM_STATES, 1))))
    cut = 0
    for item in range(NUM_ITEMS):
        found = candidates.path_ids[candidates.offsets[item] : candidates.offsets[item + 1]]
        scores = np.zeros(SPACE.num_paths)
        for state, place in zip(*np.nonzero(states.target_NT.numpy() == item), strict=True):
            scores[beams[state]] += float(states.weight_NT[state, place]) * prob_NC[state, beams[state]]
        others = [path for path in np.argsort(-scores, kind="stable") if scores[path] > 0 and path not in paths[item]]
        expected = {*others[:3], *(paths[item] if scores.any() else ())}
        assert set(found) == expected
        cut += len(others) > 3
    assert cut > 0


def test_mixed_targets_carry_their_share_of_every_state(world):
    """Drawn items are among the softmax's best, weigh the asked share of a state, and nothing where a state weighs nothing."""
    model, states, _ = world
    states = States(states.user_NE, states.target_NT, states.weight_NT.clone())
    states.weight_NT[3] = 0
    config = MixedTargetsConfig(share=0.4, draws=6, best_items=5)
    mixed = states.mixed(TargetSampler(model.reranker, config, None), seed=1)
    drawn, weight = mixed.target_NT[:, NUM_TARGETS:], mixed.weight_NT[:, NUM_TARGETS:]
    torch.testing.assert_close(weight.sum(1), 0.4 * mixed.weight_NT.sum(1))
    assert (drawn[3] == -1).all()
    best = model.reranker.score_all(states.user_NE).topk(5, dim=1).indices
    with_weight = states.weight_NT.sum(1) > 0
    found = (drawn[:, :, None] == best[:, None, :]).any(2)
    assert found[with_weight].all()
    torch.testing.assert_close(mixed.target_NT[:, :NUM_TARGETS], states.target_NT)
