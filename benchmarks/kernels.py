"""The hot loops of learning and retrieval, one JSON line each: ``python -m benchmarks.kernels [--items N]``.

M-step sweeps, score accumulation, beam search (beside its bare matrix products) and retrieval (beside the exact
product and top-k over all items), on generated data, one thread. Times are medians of ``--repeats`` runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from dr_core.model.encoder import EncoderConfig
from dr_core.model.objective import DeepRetrievalModel
from dr_core.model.reranker import RerankerConfig
from dr_core.model.structure_config import StructureConfig
from dr_core.paths.assignment import coordinate_descent
from dr_core.paths.index import build_index
from dr_core.paths.kmeans_tree import random_paths
from dr_core.paths.penalty import Penalty, derive_alpha
from dr_core.paths.scores import PathCandidates, accumulate_block
from dr_core.paths.space import PathSpace
from dr_core.retrieval.from_model import model_retriever

CANDIDATES, PATHS = 20, 3


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the median time of a call, after one that is not counted."""
    work()
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def mstep(num_items: int, repeats: int) -> dict[str, object]:
    """One sweep of coordinate descent: Zipf weights, S = 20, J = 3."""
    generator = np.random.default_rng(0)
    space = PathSpace.even(int((2 * num_items * PATHS / 40) ** 0.5) + 1, 2)
    weights = 1e6 / np.arange(1, num_items + 1) ** 0.8
    current = random_paths(num_items, PATHS, space, 0)
    centre = generator.integers(space.num_paths, size=num_items)
    drawn = (centre[:, None] + generator.integers(0, 400, size=(num_items, CANDIDATES * 2))) % space.num_paths
    rows = np.sort(drawn, axis=1)
    fresh = np.concatenate([np.ones((num_items, 1), bool), rows[:, 1:] != rows[:, :-1]], axis=1)
    fresh &= np.cumsum(fresh, axis=1) <= CANDIDATES
    offsets = np.r_[0, np.cumsum(fresh.sum(1))].astype(np.int64)
    scores = generator.random(int(offsets[-1])) * np.repeat(weights, np.diff(offsets)) / CANDIDATES
    candidates = PathCandidates(offsets, rows[fresh], scores, weights, current)
    penalty = Penalty(4, derive_alpha(float(weights.mean()), 60.0))
    seconds = median_seconds(
        lambda: coordinate_descent(candidates, penalty, num_paths=PATHS, num_sweeps=1, space=space), repeats
    )
    return {
        "benchmark": "mstep_sweep",
        "items": num_items,
        "S": CANDIDATES,
        "J": PATHS,
        "items_per_second": num_items / seconds,
    }


def scores(repeats: int, num_states: int = 10_000, num_targets: int = 16) -> dict[str, object]:
    """Partial sums of s[v, c] of one block."""
    generator = np.random.default_rng(0)
    target = generator.zipf(1.3, size=(num_states, num_targets)) % 50_000
    beam = np.argsort(generator.random((num_states, 500)), axis=1)[:, :CANDIDATES]
    own = generator.integers(1000, 2000, size=(num_states, num_targets, 1))
    weight = np.ones(target.shape)
    probs = generator.random(beam.shape) / CANDIDATES
    own_probs = generator.random(own.shape) / CANDIDATES
    seconds = median_seconds(lambda: accumulate_block(target, weight, beam, probs, own, own_probs), repeats)
    return {"benchmark": "accumulate_scores", "targets": target.size, "targets_per_second": target.size / seconds}


def retrieval(
    num_items: int, repeats: int, num_users: int = 512, beam: int = 10, k: int = 50
) -> list[dict[str, object]]:
    """Beam search against its matrix products, and the whole retriever against exact scoring, in one run."""
    torch.manual_seed(0)
    space = PathSpace.even(int((2 * num_items / 40) ** 0.5) + 1, 2)
    model = DeepRetrievalModel(
        EncoderConfig(), StructureConfig(hidden=128), RerankerConfig(), space, np.ones(num_items)
    ).eval()
    retriever = model_retriever(
        model, build_index(np.arange(num_items), random_paths(num_items, 1, space, 0)), beam=beam, max_length=30
    )
    user = torch.randn(num_users, 64)
    hidden = torch.randn(num_users * beam, 128)
    output = torch.randn(128, space.num_nodes)
    vectors = model.reranker.item_vectors()[0].detach()
    with torch.inference_mode():
        search = median_seconds(lambda: retriever.search(user.numpy(), beam), repeats)
        products = median_seconds(
            lambda: (hidden @ output, hidden[:num_users] @ output, user @ user.T[:, :256]), repeats
        )
        whole = median_seconds(lambda: retriever.retrieve(user.numpy(), k), repeats)
        exact = median_seconds(lambda: (user @ vectors.T).topk(k), repeats)
    return [
        {
            "benchmark": "beam_search", "K": space.num_nodes, "D": 2, "beam": beam,
            "states_per_second": num_users / search, "share_of_bare_products": products / search,
        },
        {
            "benchmark": "retrieve_block", "items": num_items, "k": k, "microseconds": whole / num_users * 1e6,
            "exact_microseconds": exact / num_users * 1e6, "ratio_exact": exact / whole,
        },
    ]  # fmt: skip


def main() -> None:
    """Run all and print one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=200_000, help="items of the M-step and of retrieval")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = [mstep(arguments.items, arguments.repeats), scores(arguments.repeats)]
    for line in [*lines, *retrieval(arguments.items, arguments.repeats)]:
        print(
            json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in line.items()}),
            flush=True,
        )


if __name__ == "__main__":
    main()
