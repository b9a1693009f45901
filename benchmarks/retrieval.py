"""Recall against time on one core: ``python -m benchmarks.retrieval --items 1500000``.

Deep Retrieval and its peers search the same item vectors; the truth of a user are the exact top 200 items by inner product.
Every method may have several indexes (IVF: two lengths of lists) and several kinds of width; each is swept on validation
users. What no faster setting beats there is measured on test users, in blocks of 256 and one by one, on one thread, the
settings of all methods taking turns. At a recall, the narrowest setting of every sweep that reaches it on the validation users
is timed there once more, and the fastest of a method's is its result; ``ratio_<method>`` is its time over Deep Retrieval's.

Worlds (``--world``): ``users_like_items`` and ``users_unlike_items``, both generated, see :mod:`benchmarks.vector_worlds`.
With ``--model W``, a work folder of ``dr run`` or an .npz of ``vector_VE``, ``bias_V`` and ``state_NE``, the second world is that
model's softmax, scaled up.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import sys
import time
from collections.abc import Callable
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from benchmarks.learned_lists import LearnedLists
from benchmarks.vector_indexes import (
    BUILD_THREADS,
    Centroids,
    InvertedLists,
    VectorIndex,
    peers,
)
from benchmarks.vector_structures import (
    EnergiesOverVectors,
    LayersOverVectors,
    found_states,
)
from benchmarks.vector_timing import MODES, Mode, Questions, Setting, fastest, frontier, measure, narrowest, swept
from benchmarks.vector_worlds import (
    BLOCK,
    SoftmaxVectors,
    World,
    WorldSize,
    exact_top,
    users_like_items,
    users_unlike_items,
    world_of_model,
)  # fmt: skip
from dr_core.learning.states import States
from pipelines.cli.console import start_logging

TOP, CHILDREN = 200, 32
WORLDS = {"users_like_items": users_like_items, "users_unlike_items": users_unlike_items}
METHODS = ("exact", "ivf_flat", "ivf_sq8", "ivf_pq", "ivf_learned", "rabitq", "hnsw", "usearch", "deep_retrieval")
STYLES = dict(zip((*METHODS, "deep_retrieval_layers"), ("kD", "^:", "v:", "<-.", "p:", "h-.", "s--", "x--", "o-", "*-"), strict=True))  # fmt: skip
logger = logging.getLogger("pipelines.retrieval")


def parse() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.retrieval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--world", choices=WORLDS, default="users_like_items")
    parser.add_argument("--model", help="work folder or .npz of a softmax that users_unlike_items is drawn from")
    parser.add_argument("--items", type=int, default=1_500_000)
    parser.add_argument("--train-users", type=int, default=40_000)
    parser.add_argument("--routing-users", type=int, default=8_000, help="training users whose exact top is searched")
    parser.add_argument("--users", type=int, default=1024, help="validation users, and as many test users")
    parser.add_argument("--targets", type=int, default=48, help="items of a training user's list")
    parser.add_argument(
        "--items-per-path",
        type=int,
        nargs="*",
        default=[366, 92],
        help="lengths of path; the best at each recall counts",
    )
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--methods", nargs="*", choices=tuple(STYLES), default=METHODS)
    parser.add_argument("--at-recall", type=float, nargs="*", default=[0.9, 0.95])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--singles", type=int, default=200, help="users asked one by one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, help="SVG file to draw")
    parser.add_argument(
        "--growth", type=int, nargs="*", metavar="V", help="measure Deep Retrieval alone at these sizes"
    )
    arguments = parser.parse_args()
    if arguments.growth and arguments.picture:
        parser.error("--growth draws no picture: leave one of the two out")
    if arguments.model and arguments.world != "users_unlike_items":
        parser.error("--model draws the world users_unlike_items: add --world users_unlike_items")
    return arguments


def draw_world(arguments: argparse.Namespace) -> World:
    """Return the world that the arguments ask for."""
    size = WorldSize(arguments.items, arguments.train_users, arguments.users, arguments.users)
    if arguments.model:
        return world_of_model(SoftmaxVectors.read(arguments.model, arguments.seed), size, arguments.seed)
    return WORLDS[arguments.world](size, arguments.seed)


def builders(world: World, arguments: argparse.Namespace) -> dict[str, Callable[[], list[VectorIndex]]]:
    """Return how to build each method's indexes."""
    centroids, num_items, seed = Centroids(world), arguments.items, arguments.seed

    def routed(lists: InvertedLists) -> VectorIndex:
        users = world.train_NE[: arguments.routing_users]
        torch.set_num_threads(BUILD_THREADS)
        return LearnedLists(lists, users, exact_top(users, world.item_VE, TOP))

    @cache
    def states() -> tuple[States, float]:
        lists = InvertedLists("ivf_flat", world, centroids, "Flat")
        started = time.perf_counter()
        found = found_states(lists, world.train_NE, arguments.targets, seed)
        return found, lists.build_seconds + time.perf_counter() - started

    def energies() -> list[VectorIndex]:
        found, seconds = states()
        shapes = [(max(round(num_items / length / CHILDREN), 4), CHILDREN) for length in arguments.items_per_path]
        return [
            EnergiesOverVectors(world, found, nodes, epochs=arguments.epochs, seed=seed, list_seconds=seconds)
            for nodes in shapes
        ]

    def layers() -> list[VectorIndex]:
        found, seconds = states()
        nodes = [max(round((num_items / length) ** 0.5), 4) for length in arguments.items_per_path[:1]]
        return [
            LayersOverVectors(world, found, K, epochs=arguments.epochs, seed=seed, list_seconds=seconds) for K in nodes
        ]

    return peers(world, centroids, routed) | {"deep_retrieval": energies, "deep_retrieval_layers": layers}


def results(
    picked: dict[tuple[float, Mode, str], Setting], rows: dict[Setting, dict[str, Any]]
) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """Return, by recall, mode and method, the chosen setting with its time over Deep Retrieval's."""
    table: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for (recall, mode, method), setting in picked.items():
        table.setdefault(str(recall), {}).setdefault(mode, {})[method] = dict(rows[setting])
    for modes in table.values():
        for mode, methods in modes.items():
            if own := methods.get("deep_retrieval") or methods.get("deep_retrieval_layers"):
                for row in methods.values():
                    row["ratio"] = round(row[f"microseconds_{mode}"] / own[f"microseconds_{mode}"], 2)
    return table


def headline(table: dict[str, dict[str, dict[str, dict[str, Any]]]], recall: float) -> dict[str, Any]:
    """Return the ratios of one recall: in blocks as ``ratio_<method>``, one by one below ``one_by_one``."""
    block, one = (
        {
            f"ratio_{method}": row["ratio"]
            for method, row in table.get(str(recall), {}).get(mode, {}).items()
            if "ratio" in row and not method.startswith("deep_retrieval")
        }
        for mode in MODES
    )
    return {**block, "at_recall": recall, "mode": "block", "one_by_one": one}


def draw(line: dict[str, Any], target: Path) -> None:
    """Draw recall against time, both modes; of each method the settings that no faster one beats."""
    figure = Figure(figsize=(10.0, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, mode, title in zip(panels, MODES, (f"in blocks of {BLOCK}", "one by one"), strict=True):
        for method in line["methods"]:
            key = f"microseconds_{mode}"
            rows = sorted((row[key], row["recall"]) for row in line["curves"] if row["method"] == method)
            best = [(time, recall) for time, recall in rows if recall >= max(r for other, r in rows if other <= time)]
            panel.plot(*zip(*best, strict=True), STYLES[method], label=method, markersize=4)
        panel.set_xscale("log")
        panel.set_ylim(0.6, 1.005)
        panel.set_xlabel("microseconds a user, one core")
        panel.set_title(f"{line['items']:,} items, {title}")
    panels[1].legend(frameon=False, fontsize="small")
    panels[0].set_ylabel(f"recall of the exact top {TOP}")
    figure.savefig(target)


def questions(world: World) -> tuple[Questions, Questions]:
    """Return the validation users and the test users with their exact best items."""
    torch.set_num_threads(BUILD_THREADS)
    validation, test = (
        Questions(users, exact_top(users, world.item_VE, TOP)) for users in (world.validation_UE, world.test_UE)
    )
    return validation, test


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Build, tune and measure every method in one world; return the JSON line."""
    world = draw_world(arguments)
    validation, test = questions(world)
    build, builds = builders(world, arguments), []
    sweeps: dict[str, list[list[Setting]]] = {}
    for method in arguments.methods:
        sweeps[method] = []
        for index in build[method]():
            builds.append({
                "method": method, "index": index.label, "build_seconds": round(index.build_seconds, 1),
                "index_mib": round(index.index_mib), **index.notes,
            })  # fmt: skip
            logger.info("%s", json.dumps(builds[-1]))
            found = swept(index, validation)
            sweeps[method] += found
            for best in frontier(chain(*found), "block"):
                logger.info("%s: %.4f, %.0f µs", best.width, best.recall, best.microseconds("block"))
    finalists = {
        (recall, method): narrowest(sweeps[method], recall)
        for recall in arguments.at_recall
        for method in arguments.methods
    }
    # Sweeps were timed one after the other; what competes is timed once more, in turn.
    measure(
        list(dict.fromkeys(chain(*finalists.values()))),
        validation,
        repeats=arguments.repeats,
        singles=arguments.singles,
    )
    picked = {
        (recall, mode, method): setting
        for (recall, method), settings in finalists.items()
        for mode in MODES
        if (setting := fastest(settings, mode))
    }
    shown = [setting for method in arguments.methods for setting in frontier(chain(*sweeps[method]), "block")]
    on_test = {setting: Setting(setting.index, setting.width) for setting in (*shown, *picked.values())}
    measure(list(on_test.values()), test, repeats=arguments.repeats, singles=arguments.singles)
    rows = {setting: measured.row(world.test_UE) for setting, measured in on_test.items()}
    table = results(picked, rows)
    return {
        "benchmark": "retrieval", "world": arguments.world, "items": arguments.items, "dimensions": world.item_VE.shape[1],
        "unlikeness": round(world.unlikeness(), 3), "methods": list(arguments.methods),
        "curves": list(rows.values()), "builds": builds, "at": table, **headline(table, arguments.at_recall[0]),
    }  # fmt: skip


def growth(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the first recall asked for costs Deep Retrieval as the catalogue grows, as a JSON line."""
    recall, rows = arguments.at_recall[0], []
    for num_items in arguments.growth:
        arguments.items = num_items
        world = draw_world(arguments)
        validation, test = questions(world)
        sweeps = [
            sweep for index in builders(world, arguments)["deep_retrieval"]() for sweep in swept(index, validation)
        ]
        if setting := fastest(narrowest(sweeps, recall), "block"):
            measured = Setting(setting.index, setting.width)
            measure([measured], test, repeats=arguments.repeats, singles=arguments.singles)
            assert isinstance(setting.index, EnergiesOverVectors)
            found = setting.index.candidates(world.test_UE, setting.width)
            share = {"candidates": round(found), "share": round(found / num_items, 5)}
            rows.append({"items": num_items, **measured.row(world.test_UE), **share})
    return {"benchmark": "retrieval_growth", "at_recall": recall, "rows": rows}


def main() -> int:
    """Print one JSON line."""
    arguments = parse()
    start_logging()
    line = growth(arguments) if arguments.growth else compare(arguments)
    line["peak_rss_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    if arguments.picture:
        draw(line, arguments.picture)
    print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
