"""What is measured is what is served: against the plain definitions, on a small model that was never trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dr_core.evaluation.evaluator import EvaluationUsers, Evaluator, Variant, choose_beam, nearest
from dr_core.evaluation.metrics import candidate_recall, overlap, user_metrics
from dr_core.item_lists import ItemLists
from dr_core.model.encoder import EncoderConfig
from dr_core.model.objective import DeepRetrievalModel
from dr_core.model.reranker import RerankerConfig
from dr_core.model.structure_config import StructureConfig
from dr_core.paths.space import PathSpace
from dr_core.retrieval.candidates import rerank
from dr_core.retrieval.router import Price
from tests.oracles.protocol import select_k

NUM_ITEMS, NUM_USERS, SPACE, KS = 60, 300, PathSpace.even(4, 2), (3, 8)
RETIRED = np.array([5, 17])


@pytest.fixture(
    scope="module",
    params=[(1, "global"), (2, "global"), (2, "layers")],
    ids=["one path", "two paths", "two paths of a product"],
)
def variant(request: pytest.FixtureRequest) -> Variant:
    torch.manual_seed(1)
    rng, (num_paths, normaliser) = np.random.default_rng(1), request.param
    model = DeepRetrievalModel(
        EncoderConfig(dim=8, embedding_rows=NUM_ITEMS), StructureConfig(normaliser=normaliser, hidden=16, path_dim=4),
        RerankerConfig(), SPACE, np.ones(NUM_ITEMS),
    )  # fmt: skip
    for parameter in model.structure.parameters():
        parameter.data.normal_()
    paths = np.stack([rng.permutation(SPACE.num_paths)[:num_paths] for _ in range(NUM_ITEMS)])
    paths[RETIRED] = -1
    return Variant("deep_retrieval", model, paths)


@pytest.fixture(scope="module")
def evaluator(variant: Variant) -> Evaluator:
    rng = np.random.default_rng(2)
    users = EvaluationUsers(
        [f"u{number}" for number in range(NUM_USERS)],
        [rng.integers(0, NUM_ITEMS, rng.integers(1, 12)) for _ in range(NUM_USERS)],
        [rng.integers(0, NUM_ITEMS, rng.integers(1, 6)) for _ in range(NUM_USERS)],
    )
    counts = rng.integers(0, 100, NUM_ITEMS).astype(np.float64)
    return Evaluator(
        variant.model, users, ks=KS, max_length=10, counts_V=counts, max_exact=NUM_ITEMS, retired=RETIRED, seed=0
    )


@pytest.mark.parametrize("beam", [1, 4, 16])
def test_a_points_figures_are_those_of_its_candidates_reranked_exactly(
    variant: Variant, evaluator: Evaluator, beam: int
) -> None:
    """Brute reranking of the very candidates is the oracle of the scan that serves."""
    point = evaluator.measure_width(variant, beam)
    retriever = evaluator.retriever_of(variant)
    found = retriever.candidates(retriever.search(evaluator.user_UE.numpy(), beam))
    np.testing.assert_array_equal(point.candidates, np.diff(found.offsets))
    expected = candidate_recall(ItemLists(found.offsets, found.item_ids), evaluator.truth)
    np.testing.assert_array_equal(point.candidate_recall, expected)
    history = (evaluator.history.offsets, evaluator.history.item_ids)
    for filtered, excluded in ((False, None), (True, history)):
        items, _, _ = rerank(evaluator.user_UE.numpy(), found, evaluator.vector_VE, evaluator.bias_V, max(KS), excluded)
        for k in KS:
            metrics = user_metrics(items, evaluator.truth, k)
            for name in ("precision", "recall", "f1", "ndcg", "hit_rate"):
                np.testing.assert_array_equal(point.figures[(filtered, k, name)], getattr(metrics, name))
            reference = overlap(items[:, :k], evaluator.reference[filtered][:, :k])
            np.testing.assert_array_equal(point.figures[(filtered, k, "overlap")], reference)
    visits = retriever.search(evaluator.user_UE.numpy(), beam)
    assert point.beam == pytest.approx((visits.path_UB >= 0).sum(axis=1).mean())
    assert point.multiply_adds == pytest.approx(visits.work_U.mean() + point.mean_candidates * evaluator.dim)


def test_the_widest_beam_finds_what_brute_force_finds(variant: Variant, evaluator: Evaluator) -> None:
    point = evaluator.measure_width(variant, SPACE.num_paths)
    assert point.candidates.tolist() == [NUM_ITEMS - len(RETIRED)] * NUM_USERS
    for filtered in (False, True):
        for k in KS:
            assert point.figures[(filtered, k, "overlap")].min() == 1.0


def test_brute_force_is_the_best_of_all_items_history_removed(evaluator: Evaluator) -> None:
    scores = evaluator.user_UE.numpy() @ evaluator.vector_VE.T + evaluator.bias_V
    ranked = np.argsort(-scores, axis=1, kind="stable")[:, : NUM_ITEMS - len(RETIRED)]
    np.testing.assert_array_equal(evaluator.reference[True][:, :8], select_k(ranked, 8, evaluator.history))
    np.testing.assert_array_equal(evaluator.reference[False][:, :8], select_k(ranked, 8))


def test_without_the_reranker_items_come_by_path_and_popularity(variant: Variant, evaluator: Evaluator) -> None:
    beam = 3
    point = evaluator.measure_paths_only(variant, beam, method="deep_retrieval_paths_only")
    retriever = evaluator.retriever_of(variant)
    paths, _, work_U, _ = retriever.search(evaluator.user_UE.numpy(), beam)
    lists = np.full((NUM_USERS, 8), -1)
    for user in range(NUM_USERS):
        listed: list[int] = []
        for path in paths[user]:
            on_path = np.flatnonzero((variant.path_VJ == path).any(axis=1))
            order = np.lexsort((on_path, -evaluator.counts_V[on_path]))
            listed += [item for item in on_path[order].tolist() if item not in listed]
        lists[user, : len(listed[:8])] = listed[:8]
    expected = user_metrics(lists, evaluator.truth, 8).precision
    np.testing.assert_array_equal(point.figures[(False, 8, "precision")], expected)
    assert point.multiply_adds == pytest.approx(work_U.mean())


def test_a_curve_widens_until_it_reaches_the_candidates_asked_for(variant: Variant, evaluator: Evaluator) -> None:
    curve = evaluator.curve(variant, up_to=20, including=7)
    candidates = [point.mean_candidates for point in curve]
    assert candidates == sorted(candidates)
    assert 7 in [point.width for point in curve]
    if variant.model.structure.config.normaliser == "global":
        priced = [point for point in curve if isinstance(point.width, Price)]
        assert all(point.mean_candidates >= 0.9 * (point.wanted or 0) for point in priced)
    assert curve[-1].mean_candidates >= 20
    assert choose_beam(curve, 10).mean_candidates >= 10
    assert choose_beam(curve, 1e9) is curve[-1]
    first = {point.mean_candidates: point for point in reversed(curve)}
    assert nearest(curve, curve[2].mean_candidates + 1e-6) is first[curve[2].mean_candidates]
