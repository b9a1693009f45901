"""The compiled search and scan against the search in torch and a sort of all candidates."""

import numpy as np
import pytest
import torch

from dr_core.model.beam_search import beam_search
from dr_core.model.structure import StructureConfig, StructureModel
from dr_core.paths.index import build_index
from dr_core.paths.space import PathSpace
from dr_core.retrieval.candidates import gather_candidates, rerank
from dr_core.retrieval.compiled import CompiledBeam, PathOrderedItems
from dr_core.retrieval.retriever import lists_to_csr

NUM_USERS, DIM = 40, 12


def structure(num_nodes: int, num_layers: int, spread: float = 3.0) -> StructureModel:
    torch.manual_seed(num_nodes * 10 + num_layers)
    model = StructureModel(StructureConfig(hidden=16, path_dim=6), PathSpace(num_nodes, num_layers), DIM)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= spread
    return model


def users() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((NUM_USERS, DIM)).astype(np.float32)


@pytest.mark.parametrize(
    ("num_nodes", "num_layers", "beam"), [(7, 1, 3), (6, 2, 1), (6, 2, 5), (6, 2, 36), (6, 2, 99), (5, 3, 20), (40, 2, 25), (3, 5, 9)]
)  # fmt: skip
def test_the_search_finds_what_the_search_in_torch_finds(num_nodes: int, num_layers: int, beam: int) -> None:
    model, user_UE = structure(num_nodes, num_layers), users()
    paths, log_probs = CompiledBeam(model).search(user_UE, beam)
    expected = beam_search(model, torch.from_numpy(user_UE), beam)
    np.testing.assert_allclose(log_probs, expected.log_prob_NB.numpy(), rtol=1e-5, atol=1e-5)
    same = paths == expected.path_NB.numpy()
    gaps = np.abs(np.diff(expected.log_prob_NB.numpy(), axis=1, prepend=np.inf, append=-np.inf))
    is_clear = np.minimum(gaps[:, :-1], gaps[:, 1:]) > 1e-5
    assert same[is_clear].all(), "paths differ where no two are equally probable"
    assert is_clear.mean() > 0.9
    assert all(len(set(row)) == len(row) for row in paths.tolist())


def test_equal_probabilities_stand_in_order_of_the_path() -> None:
    model = structure(4, 2, spread=0.0)
    paths, log_probs = CompiledBeam(model).search(users(), 16)
    np.testing.assert_array_equal(paths, np.tile(np.arange(16), (NUM_USERS, 1)))
    np.testing.assert_allclose(log_probs, np.log(1 / 16), rtol=1e-5)


def test_far_apart_probabilities_stay_finite() -> None:
    model = structure(6, 2, spread=60.0)
    _, log_probs = CompiledBeam(model).search(users(), 36)
    expected = beam_search(model, torch.from_numpy(users()), 36).log_prob_NB.numpy()
    assert np.isfinite(log_probs).all()
    np.testing.assert_allclose(log_probs, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("num_paths", [1, 3])
@pytest.mark.parametrize("k", [1, 10, 200])
def test_the_scan_finds_what_a_sort_of_all_candidates_finds(num_paths: int, k: int) -> None:
    rng = np.random.default_rng(5)
    num_items, num_path_ids = 300, 36
    mapping = rng.permuted(np.tile(np.arange(num_path_ids), (num_items, 1)), axis=1)[:, :num_paths]
    index = build_index(np.arange(num_items), mapping)
    vectors = rng.standard_normal((num_items, DIM)).astype(np.float32)
    bias = rng.standard_normal(num_items).astype(np.float32)
    beams = rng.permuted(np.tile(np.arange(num_path_ids + 4), (NUM_USERS, 1)), axis=1)[:, :9].astype(np.int64)
    excluded = lists_to_csr([rng.choice(num_items, size, replace=False) for size in rng.integers(0, 60, NUM_USERS)])
    found = gather_candidates(beams, index.path_ids, index.offsets, index.item_ids)
    expected = rerank(users(), found, vectors, bias, k, excluded)
    items = PathOrderedItems(index, vectors, bias)
    assert items.has_repeats == (num_paths > 1)
    best, scores, slots, rows = items.best(users(), beams, k, excluded)
    np.testing.assert_array_equal(best, expected[0])
    np.testing.assert_allclose(scores, expected[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(slots, expected[2])
    counts = np.bincount(mapping.ravel(), minlength=num_path_ids + 4)
    np.testing.assert_array_equal(rows, counts[beams].sum(axis=1))


def test_equal_scores_come_in_the_order_in_which_the_beam_found_them() -> None:
    index = build_index(np.arange(6), np.array([1, 0, 1, 0, 2, 1])[:, None])
    items = PathOrderedItems(index, np.zeros((6, 2), np.float32), np.zeros(6, np.float32))
    nothing = lists_to_csr([[]])
    best, _, slots, _ = items.best(np.ones((1, 2), np.float32), np.array([[1, 0]]), 4, nothing)
    assert best.tolist() == [[0, 2, 5, 1]]
    assert slots.tolist() == [[0, 0, 0, 1]]
