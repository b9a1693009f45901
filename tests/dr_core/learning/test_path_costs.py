"""What searches cost over clusters: against enumeration, and what is chosen from it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from dr_core.learning.budget import choose_structure
from dr_core.learning.config import LearningConfig
from dr_core.learning.path_costs import OPENINGS, TrialSearch, choose_paths, measure_growth
from dr_core.model.objective import DeepRetrievalModel
from dr_core.paths.space import PathSpace

NUM_STATES, NUM_ITEMS, WANTED = 7, 60, 4
SPACES = [PathSpace((12,)), PathSpace((5, 3)), PathSpace((3, 2, 2))]


def some_search(
    space: PathSpace, seed: int
) -> tuple[TrialSearch, np.ndarray, list[np.ndarray], np.ndarray, np.ndarray]:
    """A search by random probabilities; one path holds no item."""
    rng = np.random.default_rng(seed)
    path_V = rng.integers(0, space.num_paths - 1, NUM_ITEMS)
    log_p_NP = np.log(rng.dirichlet(np.full(space.num_paths, 0.3), NUM_STATES) + 1e-9).astype(np.float32)
    log_q_NQ = [
        np.log(rng.dirichlet(np.ones(space.num_prefixes(depth)), NUM_STATES)).astype(np.float32)
        for depth in range(1, space.num_layers)
    ]
    wanted_NK = path_V[rng.permuted(np.tile(np.arange(NUM_ITEMS), (NUM_STATES, 1)), axis=1)[:, :WANTED]]
    search = TrialSearch.over(log_p_NP, tuple(log_q_NQ), wanted_NK, path_V, space)
    return search, log_p_NP, log_q_NQ, wanted_NK, path_V


def enumerated(
    space: PathSpace,
    log_p_NP: np.ndarray,
    log_q_NQ: list[np.ndarray],
    wanted_NK: np.ndarray,
    path_V: np.ndarray,
    recall: float,
    cost: float,
) -> tuple[float, float]:
    """Candidates and nodes of the cheapest opening, every price tried."""
    size_P = np.bincount(path_V, minlength=space.num_paths)
    best = None
    for opening in OPENINGS:
        visits, nodes = [], 0.0
        for state in range(NUM_STATES):
            nodes += space.nodes[0]
            open_prefixes = {()}
            for depth in range(1, space.num_layers):
                open_prefixes = {
                    (*prefix, node)
                    for prefix in open_prefixes
                    for node in range(space.nodes[depth - 1])
                    if log_q_NQ[depth - 1][state, number(space, (*prefix, node))] >= opening
                }
                nodes += space.nodes[depth] * len(open_prefixes)
            for path in range(space.num_paths):
                if tuple(space.decode(np.array([path]))[0][:-1]) in open_prefixes and size_P[path]:
                    density = log_p_NP[state, path] - np.log(size_P[path], dtype=np.float32)
                    visits.append((density, size_P[path], (wanted_NK[state] == path).sum()))
        for price in sorted({density for density, _, _ in visits}, reverse=True):
            chosen = [(size, found) for density, size, found in visits if density >= price]
            if sum(found for _, found in chosen) >= recall * wanted_NK.size - 1e-6:
                candidates = sum(size for size, _ in chosen) / NUM_STATES
                work = nodes / NUM_STATES + cost * candidates
                if best is None or work < best[0] - 1e-9:
                    best = work, candidates, nodes / NUM_STATES
                break
    assert best is not None
    return best[1:]


def number(space: PathSpace, prefix: tuple[int, ...]) -> int:
    value = 0
    for nodes, node in zip(space.nodes, prefix, strict=False):
        value = value * nodes + node
    return value


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("recall", [0.2, 0.6, 1.0])
@pytest.mark.parametrize("cost", [0.1, 5.0])
def test_the_cost_of_a_recall_is_that_of_the_cheapest_price_and_opening(
    space: PathSpace, recall: float, cost: float
) -> None:
    for seed in range(4):
        search, *known = some_search(space, seed)
        found = search.cost_of(recall, cost)
        candidates, nodes = enumerated(space, *known, recall=recall, cost=cost)
        assert found.num_paths == space.num_paths
        assert found.nodes + cost * found.candidates == pytest.approx(nodes + cost * candidates, rel=1e-6)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_recall_grows_with_candidates_to_all_that_is_wanted(space: PathSpace) -> None:
    search, *_ = some_search(space, 5)
    recalls = [search.recall_of(candidates) for candidates in range(NUM_ITEMS + 1)]
    assert (np.diff(recalls) >= 0).all()
    assert recalls[-1] == pytest.approx(1.0)
    dearer = [search.cost_of(recall, 1.0) for recall in (0.3, 0.6, 0.9)]
    assert (np.diff([cost.nodes + cost.candidates for cost in dearer]) >= 0).all()


def test_known_groups_are_visited_alone() -> None:
    """Users who want the items of one path each, and know it, need the items of one path."""
    space, path_V = PathSpace((4, 2)), np.repeat(np.arange(8), 5)
    log_p_NP = np.log(np.full((8, 8), 1e-3) + np.eye(8)).astype(np.float32)
    log_q_NQ = np.log(np.full((8, 4), 1e-5) + np.repeat(np.eye(4), 2, axis=0)).astype(np.float32)
    wanted_NK = np.repeat(np.arange(8), 3).reshape(8, 3)
    cost = TrialSearch.over(log_p_NP, (log_q_NQ,), wanted_NK, path_V, space).cost_of(1.0, 1.0)
    assert (cost.candidates, cost.nodes) == (5, 4 + 2)


@pytest.fixture
def warm(make_model: Callable[..., DeepRetrievalModel]) -> tuple[DeepRetrievalModel, torch.Tensor]:
    """A softmax of 600 items around 60 directions, and states around these too."""
    generator = torch.Generator().manual_seed(3)
    centre = 3 * torch.randn(60, 8, generator=generator)
    model = make_model(num_items=600).requires_grad_(False)
    model.reranker.output_embedding.weight[:600] = centre.repeat(10, 1) + torch.randn(600, 8, generator=generator)
    return model, centre.repeat(20, 1) * 0.5 + torch.randn(1200, 8, generator=generator) * 0.3


def config_of(**sections: dict[str, object]) -> LearningConfig:
    return LearningConfig.model_validate({"budget": {"candidates": 40}, **sections})


def test_what_is_measured_is_a_growth_that_repeats(warm: tuple[DeepRetrievalModel, torch.Tensor]) -> None:
    growth = measure_growth(*warm, config_of(), 0)
    assert growth == measure_growth(*warm, config_of(), 0)
    low, high = growth.measured_at
    assert high > low
    assert growth.candidates_at(high) < growth.candidates_at(low)
    assert growth.nodes_at(high) > growth.nodes_at(low)


def test_dearer_candidates_and_more_recall_choose_as_they_should(
    warm: tuple[DeepRetrievalModel, torch.Tensor],
) -> None:
    paths = [
        choose_paths(*warm, config_of(budget={"candidates": 40, "candidate_cost": cost}), 0)[0] for cost in (0.2, 20)
    ]
    assert paths[0].space.num_paths < paths[1].space.num_paths
    recalls = [choose_paths(*warm, config_of(budget={"recall": recall}), 0)[0] for recall in (0.5, 0.95)]
    assert recalls[0].candidates < recalls[1].candidates
    assert recalls[1].space.num_layers == 2


@pytest.mark.parametrize(
    "sections",
    [{"paths": {"nodes": [7, 3]}}, {"paths": {"num_nodes": 5}}, {"structure": {"normaliser": "layers"}}],
    ids=str,
)
def test_nothing_is_measured_where_nothing_follows_from_it(
    sections: dict[str, dict[str, object]], warm: tuple[DeepRetrievalModel, torch.Tensor]
) -> None:
    choice, growth = choose_paths(*warm, config_of(**sections), 0)
    assert growth is None
    assert choice == choose_structure(config_of(**sections), 600, 1)


def test_more_items_than_k_means_holds_are_not_measured(make_model: Callable[..., DeepRetrievalModel]) -> None:
    config = config_of(paths={"kmeans_sample": 1000})
    choice, growth = choose_paths(make_model(num_items=1001), torch.zeros(10, 8), config, 0)
    assert growth is None
    assert "not measured" in " ".join(choice.reasons)


def test_a_handful_of_items_has_paths_too(make_model: Callable[..., DeepRetrievalModel]) -> None:
    choice, _ = choose_paths(make_model(num_items=6), torch.randn(50, 8), LearningConfig(), 0)
    assert choice.space.num_paths >= 4
