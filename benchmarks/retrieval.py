"""Recall against time on one core: ``python -m benchmarks.retrieval --items 1500000``.

A world of items and users on a sphere; the truth of a user are the exact top 200 items by inner product. Deep Retrieval's
paths start as k-means clusters of the item vectors. Its structure model is trained on *other* users of the same world, on
some of the items that an IVF index finds for these users (building that index and searching it counts as its own build
time), with rounds of scores and M-step in between where ``--rounds`` asks for them. The vectors themselves are shared by all
methods, exact search and indexes alike. Every method is timed one user at a time and in blocks of 256, one thread.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure

from dr_core.learning.alpha import AlphaRule
from dr_core.learning.e_step import train_structure
from dr_core.learning.m_step import m_step
from dr_core.learning.scored_items import ItemsInMemory
from dr_core.learning.scoring import score_states
from dr_core.learning.states import States
from dr_core.learning.trainer import TrainingConfig
from dr_core.learning.visits import visited_paths
from dr_core.model.encoder import EncoderConfig
from dr_core.model.objective import DeepRetrievalModel
from dr_core.model.reranker import RerankerConfig
from dr_core.model.structure_config import StructureConfig
from dr_core.paths.health import measure_health
from dr_core.paths.index import build_index
from dr_core.paths.kmeans_tree import fit_kmeans_tree
from dr_core.paths.space import PathSpace
from dr_core.retrieval.from_model import compiled_structure
from dr_core.retrieval.rank import DotProductRanker
from pipelines.cli.console import start_logging

DIM, TOP, BLOCK = 64, 200, 256
NO_ITEMS = (np.zeros(BLOCK + 1, dtype=np.int64), np.zeros(0, dtype=np.int64))
logger = logging.getLogger("pipelines.retrieval")
Vectors = npt.NDArray[np.float32]
Search = Callable[[Vectors], npt.NDArray[np.int64]]


def unit(rows: Vectors) -> Vectors:
    """Return rows of length 1."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


@dataclass(frozen=True)
class World:
    """Item and user vectors. Topics overlap: an item is as much itself as it is of its topic."""

    item_VE: Vectors
    train_NE: Vectors
    test_UE: Vectors

    @classmethod
    def generate(cls, num_items: int, num_train: int, num_test: int, seed: int) -> World:
        """Draw topics, subtopics, items near them, and users between two items of interest."""
        rng = np.random.default_rng(seed)
        num_topics = max(num_items // 3000, 10)

        def normal(rows: int) -> Vectors:
            return rng.standard_normal((rows, DIM), dtype=np.float32) / np.float32(DIM**0.5)

        topics, subtopics = normal(num_topics), normal(num_topics * 20)
        subtopic = rng.integers(0, len(subtopics), num_items)
        items = unit(topics[subtopic // 20] + 0.6 * subtopics[subtopic] + 0.9 * normal(num_items))

        def users(count: int) -> Vectors:
            first, second = rng.integers(0, num_items, (2, count))
            share = rng.uniform(0.5, 1.0, (count, 1)).astype(np.float32)
            return unit(share * items[first] + (1 - share) * items[second] + 0.5 * normal(count))

        return cls(items, users(num_train), users(num_test))


def exact_top(user_UE: Vectors, item_VE: Vectors, k: int) -> npt.NDArray[np.int64]:
    """Return the exact top k of every user by inner product, with all threads."""
    items = torch.from_numpy(item_VE)
    rows = [
        (torch.from_numpy(user_UE[at : at + BLOCK]) @ items.T).topk(k).indices for at in range(0, len(user_UE), BLOCK)
    ]
    return torch.cat(rows).numpy()


def num_lists(num_items: int) -> int:
    """Return the inverted lists of an IVF index."""
    return 4096 if num_items >= 1_000_000 else max(int(2 * num_items**0.5) // 64 * 64, 64)


def found_lists(world: World, num_targets: int, seed: int) -> npt.NDArray[np.int64]:
    """Return, for every training user, some of the top 200 that an IVF index finds, int64 [N, T], -1 where it finds fewer."""
    faiss.omp_set_num_threads(2)
    index = faiss.index_factory(DIM, f"IVF{num_lists(len(world.item_VE))},Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(world.item_VE[np.random.default_rng(0).permutation(len(world.item_VE))[:200_000]])
    index.add(world.item_VE)
    index.nprobe = 16
    rng, parts = np.random.default_rng(seed), []
    for at in range(0, len(world.train_NE), 20_000):
        lists = index.search(world.train_NE[at : at + 20_000], TOP)[1]
        picks = rng.random(lists.shape).argsort(axis=1)[:, :num_targets]
        parts.append(np.take_along_axis(lists, picks, axis=1))
    return np.concatenate(parts)


def first_paths(item_VE: Vectors, space: PathSpace, seed: int) -> npt.NDArray[np.int64]:
    """Return paths int64 [V, 1]: the items' k-means clusters, as many as paths, whose centroids a balanced tree then orders."""
    faiss.omp_set_num_threads(2)
    clusters = faiss.Kmeans(DIM, space.num_paths, niter=10, max_points_per_centroid=64, seed=seed)
    clusters.train(item_VE)
    _, path_C = fit_kmeans_tree(clusters.centroids, space, seed, capacity=1.0, refinement=10)
    cluster_V = clusters.index.search(item_VE, 1)[1][:, 0]
    return path_C[cluster_V, None]


@dataclass
class Built:
    """A method's search at several parameters, and what it cost to build."""

    method: str
    parameters: dict[str, Search]
    build_seconds: float
    index_mib: float
    notes: dict[str, Any] = field(default_factory=dict)


def build_structure(world: World, arguments: argparse.Namespace) -> Built:
    """Build Deep Retrieval's structure: k-means start, rounds of E-step, scores and M-step, and a last E-step."""
    num_items, started = len(world.item_VE), time.perf_counter()
    space = PathSpace.even(max(round((num_items / arguments.items_per_path) ** 0.5), 4), 2)
    target_NT = found_lists(world, arguments.targets, arguments.seed)
    lists_seconds = time.perf_counter() - started
    logger.info("lists of %d users: %.0f s", len(target_NT), lists_seconds)
    paths = first_paths(world.item_VE, space, arguments.seed)
    kmeans_seconds = time.perf_counter() - started - lists_seconds
    logger.info("k-means: K=%d, %.0f s", space.num_nodes, kmeans_seconds)
    torch.manual_seed(arguments.seed)
    model = DeepRetrievalModel(
        EncoderConfig(dim=DIM, embedding_rows=1024),
        StructureConfig(hidden=arguments.hidden, path_dim=arguments.path_dim, path_vectors=arguments.path_vectors),
        RerankerConfig(),
        space,
        np.ones(num_items),
    )
    training = TrainingConfig(num_processes=1, learning_rate=3e-3)
    weight_NT = torch.from_numpy((target_NT >= 0).astype(np.float32))
    states = States(torch.from_numpy(world.train_NE), torch.from_numpy(target_NT), weight_NT)
    e_seconds, m_seconds, alpha = 0.0, [], None
    for number in range(arguments.rounds + 1):
        began = time.perf_counter()
        epochs = arguments.epochs if number < arguments.rounds else arguments.final_epochs
        train_structure(model, states, paths, epochs=epochs, batch_states=BLOCK, training=training, seed=number)
        e_seconds += time.perf_counter() - began
        if number == arguments.rounds:
            break
        began = time.perf_counter()
        candidates = score_states(model, states, paths, 20)
        score_seconds = time.perf_counter() - began
        visited = visited_paths(model, paths, torch.from_numpy(world.train_NE[:2000]), arguments.beam)
        rule = AlphaRule(alpha, float(arguments.items_per_path))
        began = time.perf_counter()
        assigned, done = m_step(ItemsInMemory(candidates, 4, space), rule, visited)
        alpha = done.alpha
        m_seconds.append(time.perf_counter() - began)
        logger.info("scores %.0f s, M-step %.1f s, %d items moved", score_seconds, m_seconds[-1], done.items_moved)
        paths = assigned.path_VJ
    items = DotProductRanker.of(
        build_index(np.arange(num_items), paths), world.item_VE, np.zeros(num_items, np.float32)
    )
    search = compiled_structure(model.structure, items.index.log_sizes(space.num_paths))

    def at(beam: int) -> Search:
        def run(user_UE: Vectors) -> npt.NDArray[np.int64]:
            found, _ = search.search(user_UE, beam)
            nothing = NO_ITEMS[0][: len(user_UE) + 1], NO_ITEMS[1]
            return items.best(user_UE, found, TOP, nothing)[0]

        return run

    health = measure_health(paths, space)
    scanned = {
        str(beam): float(items.index.lookup(search.search(world.test_UE, beam)[0])[1].sum()) for beam in arguments.beams
    }
    starts = {
        str(beam): float(items.index.lookup(search.search(world.test_UE, beam)[0])[0].sum()) for beam in arguments.beams
    }
    notes = {
        "K": space.num_nodes,
        "D": 2,
        "hidden": arguments.hidden,
        "lists_seconds": round(lists_seconds, 1),
        "kmeans_seconds": round(kmeans_seconds, 1),
        "e_step_seconds": round(e_seconds, 1),
        "m_step_seconds": [round(value, 1) for value in m_seconds],
        "largest_path": health.largest_path,
        "mean_path": round(health.mean_path, 1),
        "candidates": {beam: round((scanned[beam] - starts[beam]) / len(world.test_UE)) for beam in scanned},
        "trained_on": f"{arguments.targets} of the top {TOP} that IVF finds for {len(target_NT):,} other users",
    }
    arrays = (items.vector_VE, items.code_RE, items.step_R, items.bias_R, items.index.item_ids, items.index.offsets)
    mib = sum(array.nbytes for array in arrays) / 2**20
    return Built(
        "deep_retrieval", {f"B={beam}": at(beam) for beam in arguments.beams}, time.perf_counter() - started, mib, notes
    )


def build_exact(world: World) -> Built:
    """Exact search: one matrix product and top k."""
    items = torch.from_numpy(world.item_VE)

    def run(user_UE: Vectors) -> npt.NDArray[np.int64]:
        return (torch.from_numpy(user_UE) @ items.T).topk(TOP).indices.numpy()

    return Built("exact", {"all": run}, 0.0, world.item_VE.nbytes / 2**20)


def build_faiss(method: str, world: World, factory: str, settings: list[str]) -> Built:
    """Build a faiss index with two threads; search it at every setting, for example ``nprobe=8,k_factor_rf=4``."""
    faiss.omp_set_num_threads(2)
    started = time.perf_counter()
    index = faiss.index_factory(DIM, factory, faiss.METRIC_INNER_PRODUCT)
    space = faiss.ParameterSpace()
    if method == "hnsw":
        space.set_index_parameter(index, "efConstruction", 128)
    sample = world.item_VE[np.random.default_rng(0).permutation(len(world.item_VE))[:200_000]]
    index.train(sample)
    index.add(world.item_VE)
    seconds = time.perf_counter() - started
    size = len(faiss.serialize_index(index)) / 2**20
    parameters = {}
    for setting in settings:

        def run(user_UE: Vectors, setting: str = setting) -> npt.NDArray[np.int64]:
            space.set_index_parameters(index, setting)
            return index.search(user_UE, TOP)[1]

        parameters[setting] = run
    logger.info("%s %s: built in %.0f s, %.0f MiB", method, factory, seconds, size)
    return Built(method, parameters, seconds, size, {"index": factory})


def build_usearch(world: World, settings: list[int]) -> Built:
    """Build usearch's HNSW with two threads; search it at every expansion."""
    from usearch.index import Index

    started = time.perf_counter()
    index = Index(ndim=DIM, metric="ip", dtype="f32", connectivity=32, expansion_add=128)
    index.add(np.arange(len(world.item_VE)), world.item_VE, threads=2)
    seconds = time.perf_counter() - started
    parameters = {}
    for value in settings:

        def run(user_UE: Vectors, value: int = value) -> npt.NDArray[np.int64]:
            index.expansion_search = value
            keys = index.search(user_UE, TOP, threads=1).keys
            return np.asarray(keys, dtype=np.int64).reshape(len(user_UE), TOP)

        parameters[f"expansion={value}"] = run
    return Built("usearch", parameters, seconds, index.memory_usage / 2**20, {"index": "HNSW, connectivity 32"})


def growth(sizes: list[int], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """What a fixed recall costs as the catalogue grows: the smallest beam that reaches it, and its candidates."""
    rows = []
    for num_items in sizes:
        torch.set_num_threads(2)
        world = World.generate(num_items, arguments.train_users, arguments.test_users, arguments.seed)
        truth = exact_top(world.test_UE, world.item_VE, TOP)
        built = build_structure(world, arguments)
        for row in measure(built, world, truth, 1):
            if row["recall"] >= arguments.at_recall:
                beam = row["parameter"].removeprefix("B=")
                found = built.notes["candidates"][beam]
                rows.append({"items": num_items, "K": built.notes["K"], "beam": int(beam), "candidates": found,
                             "share": round(found / num_items, 5), **row})  # fmt: skip
                break
        else:
            rows.append({"items": num_items, "beam": None})
    return rows


def measure(built: Built, world: World, truth_UK: npt.NDArray[np.int64], repeats: int) -> list[dict[str, Any]]:
    """Return recall and median times of a method at each of its parameters, one thread."""
    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    rows = []
    for parameter, search in built.parameters.items():
        found, blocks = [], []
        for _ in range(repeats):
            for at in range(0, len(world.test_UE), BLOCK):
                part = world.test_UE[at : at + BLOCK]
                began = time.perf_counter()
                answer = search(part)
                blocks.append((time.perf_counter() - began) / len(part))
                if len(found) * BLOCK < len(world.test_UE):
                    found.append(answer)
        singles = []
        for row in range(min(len(world.test_UE), 400 if built.method != "exact" else 40)):
            part = world.test_UE[row : row + 1]
            began = time.perf_counter()
            search(part)
            singles.append(time.perf_counter() - began)
        lists = np.concatenate(found)
        recall = np.mean([len(np.intersect1d(a, b)) / TOP for a, b in zip(lists, truth_UK, strict=True)])
        rows.append({
            "method": built.method,
            "parameter": parameter,
            "recall": round(float(recall), 4),
            "microseconds_one": round(statistics.median(singles) * 1e6, 1),
            "microseconds_block": round(statistics.median(blocks) * 1e6, 1),
        })  # fmt: skip
        logger.info("%s", json.dumps(rows[-1]))
    return rows


def time_at(curves: list[dict[str, Any]], method: str, key: str, recall: float) -> float | None:
    """Return the least time at which a method reaches a recall, interpolated between its measured points in log time."""
    points = sorted((row["recall"], row[key]) for row in curves if row["method"] == method)
    reached = [point for point in points if point[0] >= recall]
    if not reached:
        return None
    below = [point for point in points if point[0] < recall]
    best = min(reached, key=lambda point: point[1])
    if not below or best[1] <= below[-1][1]:
        return float(best[1])
    (low, low_time), (high, high_time) = below[-1], best
    return float(np.exp(np.interp(recall, [low, high], np.log([low_time, high_time]))))


def draw(line: dict[str, Any], target: Path) -> None:
    """Draw recall against time, both modes; of each method the settings that no faster one beats."""
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    for panel, (key, title) in zip(
        figure.subplots(1, 2, sharey=True),
        (("microseconds_one", "one by one"), ("microseconds_block", f"in blocks of {BLOCK}")),
        strict=True,
    ):
        for method, style in zip(
            ("deep_retrieval", "hnsw", "usearch", "ivf_flat", "ivf_pq", "exact"),
            ("o-", "s--", "x--", "^:", "v-.", "D"),
            strict=True,
        ):
            rows = sorted((row[key], row["recall"]) for row in line["curves"] if row["method"] == method)
            best = [(t, recall) for t, recall in rows if recall >= max(r for other, r in rows if other <= t)]
            panel.plot([t for t, _ in best], [recall for _, recall in best], style, label=method, markersize=4)
        panel.set_xscale("log")
        panel.set_xlabel("microseconds a user, one core")
        panel.set_title(f"{line['items']:,} items, {title}")
    panel.legend(frameon=False)
    figure.axes[0].set_ylabel(f"recall of the exact top {TOP}")
    figure.savefig(target)


def main() -> int:
    """Generate, train, build, measure; print one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retrieval", description=__doc__)
    parser.add_argument("--items", type=int, default=1_500_000)
    parser.add_argument("--train-users", type=int, default=800_000)
    parser.add_argument("--targets", type=int, default=48, help="items of a training user's list (default: 48)")
    parser.add_argument("--test-users", type=int, default=1024)
    parser.add_argument("--items-per-path", type=int, default=366)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--path-dim", type=int, default=128)
    parser.add_argument(
        "--path-vectors", type=int, default=0, help="most paths that have vectors of their own (default: 0, none have)"
    )
    parser.add_argument(
        "--rounds", type=int, default=0, help="rounds of E-step and M-step before the last E-step (default: 0)"
    )
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--final-epochs", type=int, default=4)
    parser.add_argument("--beam", type=int, default=40, help="beam that the M-step's budget counts with")
    parser.add_argument("--beams", type=int, nargs="*", default=[5, 10, 20, 30, 40, 50, 60, 80])
    parser.add_argument(
        "--methods", nargs="*", default=["exact", "ivf_flat", "ivf_pq", "hnsw", "usearch", "deep_retrieval"]
    )
    parser.add_argument("--at-recall", type=float, default=0.9)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--growth", type=int, nargs="*", metavar="V", help="measure Deep Retrieval alone at these sizes"
    )
    parser.add_argument("--picture", type=Path, help="SVG file to draw")
    arguments = parser.parse_args()
    start_logging()
    if arguments.growth:
        rows = growth(arguments.growth, arguments)
        print(json.dumps({"benchmark": "retrieval_growth", "at_recall": arguments.at_recall, "rows": rows}))
        return 0
    torch.set_num_threads(2)
    world = World.generate(arguments.items, arguments.train_users, arguments.test_users, arguments.seed)
    truth = exact_top(world.test_UE, world.item_VE, TOP)
    lists = num_lists(arguments.items)
    probes = [value for value in (1, 2, 4, 8, 16, 32, 64, 128) if value <= lists]
    refined = [f"nprobe={probe},k_factor_rf={factor}" for factor in (2, 4, 6, 8, 12) for probe in probes[2:-1]]
    efforts = [200, 256, 320, 400, 512, 800]
    builders: dict[str, Callable[[], Built]] = {
        "exact": lambda: build_exact(world),
        "ivf_flat": lambda: build_faiss("ivf_flat", world, f"IVF{lists},Flat", [f"nprobe={probe}" for probe in probes]),
        "ivf_pq": lambda: build_faiss("ivf_pq", world, f"IVF{lists},PQ32x4fs,RFlat", refined),
        "hnsw": lambda: build_faiss("hnsw", world, "HNSW32,Flat", [f"efSearch={effort}" for effort in efforts]),
        "usearch": lambda: build_usearch(world, efforts),
        "deep_retrieval": lambda: build_structure(world, arguments),
    }
    curves, builds = [], []
    for method in arguments.methods:
        torch.set_num_threads(2)
        built = builders[method]()
        curves += measure(built, world, truth, arguments.repeats)
        builds.append({
            "method": method, "build_seconds": round(built.build_seconds, 1), "index_mib": round(built.index_mib),
            **built.notes,
        })  # fmt: skip
    line: dict[str, Any] = {"benchmark": "retrieval", "items": arguments.items, "curves": curves, "builds": builds}
    for mode in ("block", "one"):
        times = {m: time_at(curves, m, f"microseconds_{mode}", arguments.at_recall) for m in arguments.methods}
        own = times.get("deep_retrieval")
        ratios = {f"ratio_{m}": round(t / own, 2) for m, t in times.items() if t and own and m != "deep_retrieval"}
        if mode == "block":
            line |= ratios | {"at_recall": arguments.at_recall, "mode": mode}
        else:
            line["one_by_one"] = ratios
    line["peak_rss_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    if arguments.picture:
        draw(line, arguments.picture)
    print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
