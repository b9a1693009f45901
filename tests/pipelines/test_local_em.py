"""The in-process EM loop: its scores against sums over the whole distribution, in any number of passes."""

import numpy as np
import pytest
import torch

from dr_core.model.encoder import EncoderConfig
from dr_core.model.objective import DeepRetrievalModel
from dr_core.model.reranker import RerankerConfig
from dr_core.model.structure import StructureConfig
from dr_core.paths.scores import FRACTION_BITS
from dr_core.paths.space import PathSpace
from pipelines import local_em

NUM_ITEMS, NUM_STATES, NUM_TARGETS, SPACE = 23, 50, 3, PathSpace(4, 2)


@pytest.fixture(scope="module")
def world() -> tuple[DeepRetrievalModel, local_em.States, np.ndarray]:
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
    targets = rng.integers(-1, NUM_ITEMS, (NUM_STATES, NUM_TARGETS))
    weights = torch.from_numpy((rng.random(targets.shape) * (targets >= 0)).astype(np.float32))
    states = local_em.States(torch.randn(NUM_STATES, 8), torch.from_numpy(targets), weights)
    paths = np.stack([rng.permutation(SPACE.num_paths)[:2] for _ in range(NUM_ITEMS)])
    return model, states, paths


@pytest.mark.parametrize("targets_per_pass", [7, 40, 4_000_000])
def test_scores_are_the_sums_over_all_states_in_any_number_of_passes(world, monkeypatch, targets_per_pass):
    """With S = all paths, every s[v, c] is the sum of w p(c | x) over the states that have v as a target."""
    model, states, paths = world
    monkeypatch.setattr(local_em, "TARGETS_PER_PASS", targets_per_pass)
    monkeypatch.setattr(local_em, "STATES_PER_BATCH", 16)
    candidates = local_em.score_states(model, states, paths, SPACE.num_paths)
    nodes = torch.from_numpy(SPACE.decode(np.arange(SPACE.num_paths)))
    everything = nodes.expand(NUM_STATES, -1, -1)
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
    """With fewer candidates than paths, each item keeps its own paths and at most S others."""
    model, states, paths = world
    candidates = local_em.score_states(model, states, paths, 3)
    seen = set(states.target_NT[states.target_NT >= 0].tolist())
    for item in seen:
        found = candidates.path_ids[candidates.offsets[item] : candidates.offsets[item + 1]]
        assert set(paths[item]) <= set(found)
        assert len(found) <= 3 + paths.shape[1]
