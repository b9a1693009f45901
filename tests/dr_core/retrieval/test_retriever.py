"""The retriever: history to top k, against brute force over all items."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from dr_core.errors import ReleaseMismatch
from dr_core.item_lists import ItemLists
from dr_core.model.objective import DeepRetrievalModel
from dr_core.paths.index import build_index
from dr_core.retrieval.filter import Allowed
from dr_core.retrieval.from_model import model_retriever
from dr_core.retrieval.retriever import Retriever

ModelMaker = Callable[..., DeepRetrievalModel]
NUM_ITEMS, K, L, BEAM = 80, 10, 6, 4


@pytest.fixture
def model(make_model: ModelMaker) -> DeepRetrievalModel:
    return make_model(num_items=NUM_ITEMS, num_paths=2, num_nodes=5)


@pytest.fixture
def retriever(model: DeepRetrievalModel) -> Retriever:
    index = build_index(np.arange(NUM_ITEMS), model.placement.path_VJ.numpy())
    return model_retriever(model, index, width=BEAM, max_length=L)


def histories(num_users: int = 12) -> list[list[int]]:
    rng = np.random.default_rng(51)
    return [rng.choice(NUM_ITEMS, size, replace=False).tolist() for size in rng.integers(0, 12, num_users)]


def brute_force(model: DeepRetrievalModel, user_UE: np.ndarray, k: int) -> np.ndarray:
    return model.reranker.score_all(torch.from_numpy(user_UE)).topk(k, dim=1).indices.numpy()


def test_full_beam_equals_brute_force(model: DeepRetrievalModel, retriever: Retriever) -> None:
    user_UE = retriever.encode(histories())
    found = retriever.retrieve(user_UE, K, width=25)
    np.testing.assert_array_equal(found.item_Uk, brute_force(model, user_UE, K))
    np.testing.assert_array_equal(found.num_candidates_U, NUM_ITEMS)
    expected = model.reranker.score(torch.from_numpy(user_UE), torch.from_numpy(found.item_Uk)).numpy()
    np.testing.assert_allclose(found.score_Uk, expected, rtol=1e-4, atol=1e-5)


def test_full_beam_without_the_history_equals_brute_force_without_it(
    model: DeepRetrievalModel, retriever: Retriever
) -> None:
    seen = histories()
    user_UE = retriever.encode(seen)
    found = retriever.retrieve(user_UE, K, width=25, excluded=seen)
    every = brute_force(model, user_UE, NUM_ITEMS)
    for user, items in enumerate(seen):
        assert found.item_Uk[user].tolist() == [item for item in every[user] if item not in items][:K]


@pytest.mark.parametrize("beam", [1, 3, 8, 25])
def test_items_and_candidates_are_distinct_and_of_the_beam(
    model: DeepRetrievalModel, retriever: Retriever, beam: int
) -> None:
    user_UE = retriever.encode(histories())
    paths = retriever.search(user_UE, beam)
    candidates = retriever.candidates(paths)
    found = retriever.retrieve(user_UE, 30, width=beam)
    np.testing.assert_array_equal(found.num_candidates_U, np.diff(candidates.offsets))
    on_paths = model.placement.path_VJ.numpy()
    for user in range(len(user_UE)):
        items = found.item_Uk[user][found.item_Uk[user] >= 0]
        part = candidates.item_ids[candidates.offsets[user] : candidates.offsets[user + 1]]
        reachable = np.flatnonzero(np.isin(on_paths, paths.path_UB[user]).any(axis=1))
        assert len(np.unique(items)) == len(items) == min(30, len(part))
        assert sorted(part.tolist()) == reachable.tolist()
        assert set(items.tolist()) <= set(part.tolist())


def test_a_wider_beam_never_loses_a_better_item(retriever: Retriever) -> None:
    user_UE = retriever.encode(histories())
    best = [retriever.retrieve(user_UE, 1, width=beam).score_Uk[:, 0] for beam in (5, 25)]
    assert (best[1] >= best[0] - 1e-6).all()


def test_each_item_comes_with_the_first_visited_path_that_holds_it(
    model: DeepRetrievalModel, retriever: Retriever
) -> None:
    user_UE = retriever.encode(histories())
    paths = retriever.search(user_UE)
    found = retriever.retrieve(user_UE, K)
    for user in range(len(user_UE)):
        visited = dict(zip(paths.path_UB[user].tolist(), np.exp(paths.log_prob_UB[user]).tolist(), strict=True))
        for item, path, probability in zip(
            found.item_Uk[user], found.path_Uk[user], found.path_probability_Uk[user], strict=True
        ):
            if item < 0:
                assert (path, probability) == (-1, 0)
                continue
            first = next(p for p in visited if p in model.placement.path_VJ[item].tolist())
            assert (path, probability) == (first, pytest.approx(visited[first], rel=1e-5))


def test_history_and_blocked_items_are_never_returned(retriever: Retriever) -> None:
    seen, blocked = histories(), list(range(0, NUM_ITEMS, 7))
    user_UE = retriever.encode(seen)
    found = retriever.retrieve(user_UE, 40, width=25, excluded=seen, blocked=blocked)
    for user, items in enumerate(seen):
        assert not set(found.item_Uk[user].tolist()) & {*items, *blocked}
    only_blocked = retriever.retrieve(user_UE, 40, width=25, blocked=blocked)
    assert not np.isin(only_blocked.item_Uk, blocked).any()
    np.testing.assert_array_equal(found.num_candidates_U, NUM_ITEMS)


def test_blocking_everything_leaves_nothing(retriever: Retriever) -> None:
    found = retriever.retrieve(retriever.encode(histories()), 3, blocked=range(NUM_ITEMS))
    assert (found.item_Uk == -1).all()
    assert np.isneginf(found.score_Uk).all()


def test_a_block_of_users_equals_one_by_one(retriever: Retriever) -> None:
    seen = histories()
    block = retriever.retrieve(retriever.encode(seen), K, excluded=seen)
    for user, history in enumerate(seen):
        alone = retriever.retrieve(retriever.encode([history]), K, excluded=[history])
        assert alone.item_Uk[0].tolist() == block.item_Uk[user].tolist()
        assert alone.path_Uk[0].tolist() == block.path_Uk[user].tolist()
        np.testing.assert_allclose(alone.score_Uk[0], block.score_Uk[user], rtol=1e-4, atol=1e-5)
        assert alone.num_candidates_U[0] == block.num_candidates_U[user]


def test_only_the_most_recent_items_count(retriever: Retriever) -> None:
    recent = [5, 17, 3, 60, 22, 9]
    states = retriever.encode([recent, [1, 2, *recent], [44, *recent]])
    np.testing.assert_allclose(states[1], states[0])
    np.testing.assert_allclose(states[2], states[0])
    assert not np.allclose(retriever.encode([recent[1:]])[0], states[0])


def test_no_users_get_no_items(retriever: Retriever) -> None:
    user_UE = retriever.encode([])
    assert user_UE.shape == (0, 8)
    assert retriever.retrieve(user_UE, K).item_Uk.shape == (0, K)


def test_an_index_of_more_items_than_the_model_knows_is_refused(model: DeepRetrievalModel) -> None:
    larger = build_index(np.arange(NUM_ITEMS + 1), np.zeros((NUM_ITEMS + 1, 1), np.int64))
    with pytest.raises(ReleaseMismatch, match=f"has {NUM_ITEMS}"):
        model_retriever(model, larger, width=1, max_length=L)


def test_wrong_arguments_are_refused(retriever: Retriever) -> None:
    user_UE = retriever.encode(histories(3))
    with pytest.raises(ValueError, match="k must be"):
        retriever.retrieve(user_UE, 0)
    with pytest.raises(ValueError, match="beam"):
        retriever.retrieve(user_UE, 1, width=0)
    with pytest.raises(ValueError, match="2 sequences for 3 users"):
        retriever.retrieve(user_UE, 1, excluded=[[1], [2]])


def test_an_id_that_the_model_does_not_have_is_refused(retriever: Retriever) -> None:
    """Keys of a log that are taken for item ids would be answered with other items, or be left out without a word."""
    user_UE = retriever.encode([[3, 4], []])
    for wrong in (-1, NUM_ITEMS, 10**9):
        with pytest.raises(
            ValueError, match=f"a history holds {wrong}: item ids are the model's own, 0 to 79, not keys"
        ):
            retriever.encode([[3], [4, wrong]])
        with pytest.raises(ValueError, match=f"excluded holds {wrong}"):
            retriever.retrieve(user_UE, K, excluded=[[3], [wrong, 4]])
        with pytest.raises(ValueError, match=f"blocked holds {wrong}"):
            retriever.retrieve(user_UE, K, blocked=[5, wrong])
    newer = ItemLists.from_rows([[3, NUM_ITEMS, 4], [NUM_ITEMS + 7]])
    np.testing.assert_array_equal(retriever.encode(newer.known(NUM_ITEMS)), user_UE)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2, 1.0])
def test_lists_are_full_of_allowed_items_where_there_are_enough(
    model: DeepRetrievalModel, retriever: Retriever, share: float
) -> None:
    rng, user_UE = np.random.default_rng(7), retriever.encode(histories())
    chosen = rng.choice(NUM_ITEMS, max(1, round(share * NUM_ITEMS)), replace=False)
    found = retriever.retrieve(user_UE, K, allowed=Allowed.of(chosen, NUM_ITEMS))
    for row in found.item_Uk:
        returned = row[row >= 0]
        assert len(np.unique(returned)) == len(returned) == min(K, len(chosen))
        assert set(returned.tolist()) <= set(chosen.tolist())


def test_full_beam_over_allowed_items_equals_brute_force_over_them(
    model: DeepRetrievalModel, retriever: Retriever
) -> None:
    seen, chosen = histories(), np.arange(0, NUM_ITEMS, 3)
    user_UE = retriever.encode(seen)
    found = retriever.retrieve(user_UE, K, width=25, excluded=seen, blocked=[0], allowed=Allowed.of(chosen, NUM_ITEMS))
    every = brute_force(model, user_UE, NUM_ITEMS)
    for user, items in enumerate(seen):
        wanted = [item for item in every[user] if item in chosen and item not in items and item != 0]
        assert found.item_Uk[user][: len(wanted)].tolist() == wanted[:K]
    assert (found.num_candidates_U == len(chosen)).all()


def test_allowing_everything_changes_nothing(retriever: Retriever) -> None:
    user_UE, everything = retriever.encode(histories()), Allowed(np.ones(NUM_ITEMS, np.bool_))
    plain, found = retriever.retrieve(user_UE, K), retriever.retrieve(user_UE, K, allowed=everything)
    is_full_U = plain.item_Uk[:, -1] >= 0
    assert is_full_U.any()
    for one, other in zip(vars(plain).values(), vars(found).values(), strict=True):
        np.testing.assert_array_equal(one[is_full_U], other[is_full_U])


def test_allowing_nothing_leaves_nothing(retriever: Retriever) -> None:
    found = retriever.retrieve(retriever.encode(histories()), K, allowed=Allowed(np.zeros(NUM_ITEMS, np.bool_)))
    assert (found.item_Uk == -1).all()
    assert (found.num_candidates_U == 0).all()


def test_what_follows_from_allowed_items_is_built_once(retriever: Retriever) -> None:
    allowed = Allowed.of(np.arange(5), NUM_ITEMS)
    assert retriever.only(allowed) is retriever.only(allowed)
