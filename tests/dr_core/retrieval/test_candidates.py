"""From paths to distinct items to the k best of them, against plain Python."""

import numpy as np
import pytest

from dr_core.item_lists import ItemLists
from dr_core.paths.index import PathIndex, build_index
from dr_core.retrieval.candidates import Candidates, gather_candidates, rerank

NUM_ITEMS, NUM_PATHS, NUM_USERS, BEAM, DIM = 50, 20, 9, 5, 7


def mapping(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permuted(np.tile(np.arange(NUM_PATHS), (NUM_ITEMS, 1)), axis=1)[:, :3]


def index_of(paths: np.ndarray) -> PathIndex:
    return build_index(np.arange(len(paths)), paths)


def beams(seed: int = 1) -> np.ndarray:
    """Distinct paths a user; every third slot is empty (-1) or a path that holds nothing."""
    rng = np.random.default_rng(seed)
    beam_UB = rng.permuted(np.tile(np.arange(NUM_PATHS), (NUM_USERS, 1)), axis=1)[:, :BEAM]
    beam_UB[::3, 2] = -1
    beam_UB[1::3, 0] = 10**12
    return beam_UB


def gather(index: PathIndex, beam_UB: np.ndarray) -> Candidates:
    return gather_candidates(beam_UB, index.path_ids, index.offsets, index.item_ids)


def naive_gather(paths: np.ndarray, beam_B: np.ndarray) -> list[tuple[int, int]]:
    found: dict[int, int] = {}
    for slot, path in enumerate(beam_B):
        for item in np.flatnonzero((paths == path).any(axis=1)):
            found.setdefault(int(item), slot)
    return list(found.items())


@pytest.mark.parametrize("seed", range(5))
def test_every_item_of_the_beam_comes_once_at_its_best_path(seed: int) -> None:
    paths, beam_UB = mapping(seed), beams(seed + 10)
    found = gather(index_of(paths), beam_UB)
    for user in range(NUM_USERS):
        part = slice(found.offsets[user], found.offsets[user + 1])
        items = list(zip(found.item_ids[part].tolist(), found.beam_slots[part].tolist(), strict=True))
        assert items == naive_gather(paths, beam_UB[user])


def test_an_empty_index_and_no_users_give_no_candidates() -> None:
    nothing = index_of(np.zeros((0, 1), np.int64))
    assert gather(nothing, beams()).offsets.tolist() == [0] * (NUM_USERS + 1)
    assert gather(index_of(mapping()), np.zeros((0, BEAM), np.int64)).offsets.tolist() == [0]


def test_item_ids_up_to_the_largest_are_told_apart() -> None:
    """Ids of all sizes, many of which collide in their low bits."""
    ids = np.unique(np.r_[np.arange(40) * 2**20, np.arange(40), 2**31 - 1 - np.arange(40) * 2**16])
    index = build_index(np.tile(ids, 2), np.repeat([3, 5], len(ids)))
    found = gather(index, np.array([[5, 3], [3, -1]]))
    assert found.offsets.tolist() == [0, len(ids), 2 * len(ids)]
    for user in range(2):
        np.testing.assert_array_equal(np.sort(found.item_ids[user * len(ids) : (user + 1) * len(ids)]), ids)


def problem(seed: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray, Candidates]:
    rng = np.random.default_rng(seed)
    users, vectors = rng.normal(size=(NUM_USERS, DIM)), rng.normal(size=(NUM_ITEMS, DIM))
    found = gather(index_of(mapping(seed)), beams(seed))
    return users.astype(np.float32), vectors.astype(np.float32), rng.normal(size=NUM_ITEMS).astype(np.float32), found


@pytest.mark.parametrize("k", [1, 4, 100])
def test_reranking_equals_sorting_by_score(k: int) -> None:
    users, vectors, bias, found = problem()
    excluded = [list(range(user, NUM_ITEMS, 4)) for user in range(NUM_USERS)]
    items, scores, slots = rerank(users, found, vectors, bias, k, ItemLists.from_rows(excluded))
    for user in range(NUM_USERS):
        part = slice(found.offsets[user], found.offsets[user + 1])
        slot_of = dict(zip(found.item_ids[part].tolist(), found.beam_slots[part].tolist(), strict=True))
        score_of = {i: float(vectors[i] @ users[user] + bias[i]) for i in slot_of if i not in excluded[user]}
        best = sorted(score_of, key=lambda item: -score_of[item])[:k]
        kept = len(best)
        assert items[user, :kept].tolist() == best
        np.testing.assert_allclose(scores[user, :kept], [score_of[item] for item in best], rtol=1e-4, atol=1e-5)
        assert slots[user, :kept].tolist() == [slot_of[item] for item in best]
        assert (items[user, kept:] == -1).all()
        assert np.isneginf(scores[user, kept:]).all()
        assert (slots[user, kept:] == -1).all()


def test_equal_scores_stand_in_the_order_of_the_beam() -> None:
    users, vectors, bias, found = problem()
    items, _, _ = rerank(users, found, np.zeros_like(vectors), np.zeros_like(bias), 6)
    for user in range(NUM_USERS):
        part = found.item_ids[found.offsets[user] : found.offsets[user + 1]][:6]
        assert items[user, : len(part)].tolist() == part.tolist()


def test_one_users_exclusions_do_not_touch_another() -> None:
    users, vectors, bias, found = problem()
    plain, _, _ = rerank(users, found, vectors, bias, 10)
    excluded = [[] for _ in range(NUM_USERS)]
    excluded[4] = plain[4, :3].tolist() * 2
    items, _, _ = rerank(users, found, vectors, bias, 10, ItemLists.from_rows(excluded))
    others = np.arange(NUM_USERS) != 4
    np.testing.assert_array_equal(items[others], plain[others])
    assert items[4, :7].tolist() == plain[4, 3:].tolist()


def test_exclusions_that_are_no_item_change_nothing() -> None:
    users, vectors, bias, found = problem()
    plain = rerank(users, found, vectors, bias, 10)
    barred = rerank(users, found, vectors, bias, 10, ItemLists.from_rows([[-1, -7, NUM_ITEMS, 2**40]] * NUM_USERS))
    for one, other in zip(plain, barred, strict=True):
        np.testing.assert_array_equal(one, other)


def test_ragged_lists_become_csr() -> None:
    offsets, items = ItemLists.from_rows([[3, 1], [], [2]])
    assert (offsets.tolist(), items.tolist(), items.dtype) == ([0, 2, 2, 3], [3, 1, 2], np.int64)
    assert [part.tolist() for part in ItemLists.from_rows([[], []])] == [[0, 0, 0], []]
