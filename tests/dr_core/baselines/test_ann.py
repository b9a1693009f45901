"""Indexes of vectors: what they find, what they say they looked at, and that wide searches are exact."""

import numpy as np
import pytest

from dr_core.baselines.ann import HNSW, IVF, IVFPQ, LSH, AnnIndex

KINDS = (IVF, HNSW, IVFPQ, LSH)


@pytest.fixture(scope="module")
def vectors() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    items = rng.standard_normal((2000, 24)).astype(np.float32) * rng.uniform(0.3, 2, (2000, 1)).astype(np.float32)
    return items, rng.standard_normal((50, 24)).astype(np.float32)


@pytest.fixture(scope="module", params=KINDS)
def index(request: pytest.FixtureRequest, vectors) -> AnnIndex:
    return request.param(vectors[0])


def recall_of(lists: list[np.ndarray], truth: np.ndarray) -> float:
    return float(np.mean([np.isin(wanted, found).mean() for found, wanted in zip(lists, truth, strict=True)]))


def lists_of(found) -> list[np.ndarray]:
    return np.split(found.candidates.item_ids, found.candidates.offsets[1:-1])


def test_wider_searches_find_more_and_the_widest_everything(index: AnnIndex, vectors) -> None:
    items, users = vectors
    truth = np.argsort(-users @ items.T, axis=1)[:, :20]
    widths = index.widths()
    assert widths == sorted(set(widths))
    chosen = [widths[len(widths) // 3], widths[2 * len(widths) // 3], widths[-1]]
    found = [index.find(users, width) for width in chosen]
    recalls = [recall_of(lists_of(one), truth) for one in found]
    assert recalls[0] < recalls[1] <= recalls[2] + 1e-9
    assert recalls[2] > 0.97
    assert found[0].multiply_adds < found[1].multiply_adds <= found[2].multiply_adds


def test_candidates_are_distinct_items(index: AnnIndex, vectors) -> None:
    for user in lists_of(index.find(vectors[1], index.widths()[len(index.widths()) // 2])):
        assert len(set(user.tolist())) == len(user)
        assert user.min() >= 0
        assert user.max() < 2000


def test_the_items_scored_are_counted(index: AnnIndex, vectors) -> None:
    width = index.widths()[len(index.widths()) // 2]
    found = index.find(vectors[1], width)
    listed = len(found.candidates.item_ids) / len(vectors[1])
    if isinstance(index, IVF):
        assert found.scored == listed
    else:
        assert found.scored >= listed > 0
    assert found.scored <= 2000 * (1 if not isinstance(index, HNSW) else 1.2)


def test_ivf_looks_at_what_faiss_looks_at(vectors) -> None:
    items, users = vectors
    index = IVF(items)
    for width in (3, 20):
        answers = index.search(users, 5, width)
        for listed, user, answer in zip(lists_of(index.find(users, width)), users, answers, strict=True):
            best = listed[np.argsort(-(items[listed] @ user), kind="stable")[:5]]
            assert answer[answer >= 0].tolist() == best.tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengthened", [True, False])
def test_what_is_done_to_the_vectors_changes_no_order(kind: type[AnnIndex], lengthened: bool, vectors) -> None:
    """Biases far below 0 lower all scores of a user alike, and are taken off; so is nothing else of a score."""
    items = np.column_stack([vectors[0], np.full(2000, -50, dtype=np.float32)])
    users = np.column_stack([vectors[1], np.ones(50, dtype=np.float32)])
    index = kind(items, lengthened=lengthened)
    lengths = np.linalg.norm(index.item_VE, axis=1)
    assert (lengths.max() < 1.001 * lengths.min()) == lengthened
    lowered = users @ items.T - index.longer(users) @ index.item_VE.T
    np.testing.assert_allclose(lowered, np.tile(lowered[:, :1], 2000), atol=1e-3)
    truth = np.argsort(-users @ items.T, axis=1)[:, :20]
    assert recall_of(lists_of(index.find(users, index.widths()[-1])), truth) > 0.97
