"""The M-step over items that do not fit in memory: ``python -m benchmarks.mstep --items 100000000``.

Items with Zipf weights and candidates clustered on few prefixes are written to disk once, 32-bit ids and scores. Then
sweeps of coordinate descent stream them: ``seconds`` counts the sweeps with reading and writing, not the generation.
``--spark`` lets two Spark tasks do the same instead. Path sizes are compared with a fresh count at the end.
``--limits`` takes the kernel apart instead, in memory and on one core.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from dr_core.learning.config import AssignmentConfig
from dr_core.paths._descent import sweep_items
from dr_core.paths.assignment import coordinate_descent, log_score
from dr_core.paths.penalty import Penalty, derive_alpha
from dr_core.paths.scores import PathCandidates
from dr_core.paths.sizes import PathSizes
from dr_core.paths.space import PathSpace
from dr_core.paths.streaming import StreamingDescent
from pipelines.spark.session import spark_session
from pipelines.stages.structure.candidate_files import CandidateFiles
from pipelines.stages.structure.parts import PartFiles
from pipelines.storage.workdir import Workdir

ITEMS_PER_PATH = 40
MEAN_WEIGHT = 30.0
PREFIXES, WIDTH = 3, 100
"""A cluster's candidates: this many first nodes, and under each this many paths."""
PARTS = 2
PREFIX_ITEMS = 1_000_000


@njit(cache=True)
def _draw(seed: int, num_items: int, num_candidates: int, num_nodes: int, suffixes: int, num_clusters: int) -> Any:
    """Candidates int32 [n, S] ascending and distinct, and their shares float32 [n, S], summing to at most 1."""
    np.random.seed(seed)
    path_ids = np.empty((num_items, num_candidates), dtype=np.int32)
    shares = np.empty((num_items, num_candidates), dtype=np.float32)
    for v in range(num_items):
        cluster = int(num_clusters * np.random.random() ** 1.3)
        for i in range(num_candidates):
            while True:
                # Within a cluster few paths are on many lists, as the paths that a beam returns are.
                prefix = (cluster * 7919 + int(PREFIXES * np.random.random() ** 2) * 104729) % num_nodes
                suffix = (cluster * 31 + cluster // num_nodes + int(WIDTH * np.random.random() ** 2) * 17) % suffixes
                path = prefix * suffixes + suffix
                is_new = True
                for other in range(i):
                    is_new = is_new and path_ids[v, other] != path
                if is_new:
                    break
            path_ids[v, i] = path
        path_ids[v] = np.sort(path_ids[v])
        total = 0.0
        for i in range(num_candidates):
            shares[v, i] = np.random.random() ** 3
            total += shares[v, i]
        for i in range(num_candidates):
            shares[v, i] *= 0.8 / total
    return path_ids, shares


def blocks(num_items: int, num_candidates: int, num_paths: int, space: PathSpace) -> Iterator[PathCandidates]:
    """Yield generated blocks of items."""
    suffixes = space.num_paths // space.num_nodes
    num_clusters = max(space.num_paths // 60, 1)
    scale = MEAN_WEIGHT * 0.2 * num_items**0.8
    for number, first in enumerate(range(0, num_items, AssignmentConfig().block_items)):
        item_ids = np.arange(first, min(first + AssignmentConfig().block_items, num_items))
        rank = item_ids * 2_654_435_761 % num_items + 1
        weights = (scale / rank**0.8).astype(np.float32)
        path_ids, shares = _draw(number, len(item_ids), num_candidates, space.num_nodes, suffixes, num_clusters)
        picks = np.random.default_rng(number).permuted(np.tile(np.arange(num_candidates), (len(item_ids), 1)), axis=1)
        yield PathCandidates(
            np.arange(len(item_ids) + 1, dtype=np.int64) * num_candidates,
            path_ids.ravel(),
            (shares * weights[:, None]).ravel(),
            weights,  # type: ignore[arg-type]
            np.take_along_axis(path_ids, picks[:, :num_paths], axis=1),
            item_ids,
        )


def generate(workdir: Workdir, num_items: int, num_candidates: int, num_paths: int, space: PathSpace) -> None:
    """Write the blocks, dealt to the parts in turn."""
    for number, block in enumerate(blocks(num_items, num_candidates, num_paths, space)):
        part_files(workdir, number % PARTS).write(number, block)
        if number % 32 == 0:
            print(f"  {(number + 1) * AssignmentConfig().block_items:,} items are written", file=sys.stderr, flush=True)


def part_files(workdir: Workdir, part: int) -> CandidateFiles:
    """Return the files of a part."""
    return CandidateFiles(workdir, "mstep", f"part-{part:05d}")


def every_block(workdir: Workdir, version: str) -> Iterator[tuple[CandidateFiles, int, PathCandidates]]:
    """Yield all blocks of all parts."""
    for part in range(PARTS):
        files = part_files(workdir, part)
        for number, block in files.stream(version):
            yield files, number, block


def count_sizes(workdir: Workdir, version: str, num_codes: int) -> PathSizes:
    """Count the items of every path anew."""
    counts = np.zeros(num_codes, dtype=np.int64)
    for part in range(PARTS):
        files = part_files(workdir, part)
        for number in files.blocks():
            counts += np.bincount(files.read_array(number, f"paths-{version}").ravel(), minlength=num_codes)
    return PathSizes(counts.astype(np.int32))


def objective(workdir: Workdir, version: str, sizes: PathSizes, penalty: Penalty) -> float:
    """Return the penalised surrogate of the paths on disk."""
    score = sum(log_score(block, block.current_paths) for _, _, block in every_block(workdir, version))
    return score - penalty.total(sizes.occupied()[1])


def descend(
    workdir: Workdir, space: PathSpace, penalty: Penalty, num_sweeps: int, num_threads: int
) -> tuple[list[float], PathSizes]:
    """Stream all blocks ``num_sweeps`` times; return the seconds of each sweep and the sizes after the last."""
    seconds = []
    sizes = count_sizes(workdir, "0", space.num_paths)
    with StreamingDescent(sizes, space.num_paths, penalty, num_threads=num_threads) as descent:
        for sweep in range(num_sweeps):
            started = time.perf_counter()
            changed = 0
            for files, number, block in every_block(workdir, "done" if sweep else "0"):
                paths, more = descent.sweep(block)
                files.write_array(number, "paths-done", paths)
                changed += more
            seconds.append(time.perf_counter() - started)
            print(f"  sweep {sweep + 1}: {seconds[-1]:.1f} s, {changed:,} slots changed", file=sys.stderr, flush=True)
        return seconds, descent.sizes


def descend_on_spark(
    workdir: Workdir, space: PathSpace, penalty: Penalty, num_sweeps: int
) -> tuple[list[float], PathSizes]:
    """Let two tasks of Spark sweep their parts side by side; return the seconds and the sizes."""
    with spark_session("mstep", master=f"local[{PARTS}]", conf={"spark.driver.memory": "2g"}) as spark:
        parts = PartFiles(spark, workdir, "mstep", PARTS, space)
        sizes = parts.sizes()
        started = time.perf_counter()
        sizes, version = parts.descend("spark", sizes, penalty, num_sweeps)
        seconds = time.perf_counter() - started
    for part in range(PARTS):
        files = part_files(workdir, part)
        for number in files.blocks():
            files.write_array(number, "paths-done", files.read_array(number, f"paths-{version}"))
    return [seconds], sizes


def prefix_objectives(
    num_items: int, arguments: argparse.Namespace, penalty: Penalty, folder: Path
) -> tuple[float, float]:
    """Return the objective of the in-memory and of the streaming kernel on the first items alone."""
    space = space_of(num_items, arguments.paths)
    workdir = Workdir(str(folder / "prefix"))
    generate(workdir, num_items, arguments.candidates, arguments.paths, space)
    parts = [block for _, _, block in every_block(workdir, "0")]
    whole = PathCandidates(
        np.r_[0, np.cumsum(np.concatenate([np.diff(block.offsets) for block in parts]))],
        *(
            np.concatenate([getattr(block, name) for block in parts]).astype(dtype)
            for name, dtype in (("path_ids", np.int64), ("scores", np.float64), ("weights", np.float64))
        ),
        np.concatenate([block.current_paths for block in parts]).astype(np.int64),
    )
    local = coordinate_descent(whole, penalty, num_paths=arguments.paths, num_sweeps=arguments.sweeps, space=space)
    _, sizes = descend(workdir, space, penalty, arguments.sweeps, arguments.threads)
    return local.objective_after, objective(workdir, "done", sizes, penalty)


@njit(cache=True)
def _read(path_ids: Any, scores: Any, sizes: Any, gathers: bool) -> float:
    """Read all candidates, and with ``gathers`` the sizes of their paths with f's three products."""
    total = 0.0
    for i in range(len(path_ids)):
        total += scores[i] * path_ids[i]
        if gathers:
            size = float(sizes[path_ids[i]])
            total += ((size + 1.0 + size) * (size + 1.0) + size * size) * (size + 1.0)
    return total


def limits(num_items: int, num_candidates: int, num_paths: int, penalty: Penalty, spread: int) -> dict[str, Any]:
    """Time sweeps of one core with the sizes side by side and ``spread`` places apart, and their parts alone."""
    space = space_of(num_items, num_paths)
    parts = list(blocks(num_items, num_candidates, num_paths, space))
    offsets = np.r_[0, np.cumsum(np.concatenate([np.diff(block.offsets) for block in parts]))]
    ids, scores, weights, current = (
        np.concatenate([getattr(block, name) for block in parts])
        for name in ("path_ids", "scores", "weights", "current_paths")
    )
    nothing = np.full(num_items, -1), np.zeros((0, 0), np.int64)
    rates: dict[str, Any] = {}
    for name, apart in (("side_by_side", 1), ("spread", spread)):
        codes, found = ids * apart, []
        for _ in range(3):
            paths = current * apart
            sizes = np.bincount(paths.ravel(), minlength=space.num_paths * apart).astype(np.int32)
            seconds = []
            for _ in range(3):
                began = time.perf_counter()
                sweep_items(offsets, codes, scores, weights, paths, sizes, 1, penalty.alpha, penalty.power, *nothing)
                seconds.append(time.perf_counter() - began)
            found.append(seconds)
        rates[f"sweeps_{name}"] = (num_items / np.median(found, axis=0)).round().tolist()
        for part, gathers in (("read", False), ("read_and_gather", True)):
            _read(codes, scores, sizes, gathers)
            began = time.perf_counter()
            _read(codes, scores, sizes, gathers)
            rates[f"{part}_{name}"] = round(num_items / (time.perf_counter() - began))
        rates[f"sizes_mib_{name}"] = round(sizes.nbytes / 2**20, 1)
    source = np.ones(2**26, np.float32)
    target = np.zeros_like(source)
    began = time.perf_counter()
    np.copyto(target, source)
    copied = 2 * source.nbytes / (time.perf_counter() - began)
    item_bytes = num_candidates * 8 + num_paths * 4 + 12
    share = item_bytes * rates["sweeps_spread"][-1] / copied
    return {"benchmark": "mstep_limits", "items": num_items, "S": num_candidates, "J": num_paths, "items_per_second": rates,
            "bytes_an_item": item_bytes, "copy_gib_per_second": round(copied / 2**30, 1), "share_of_bandwidth": round(share, 4)}  # fmt: skip


def space_of(num_items: int, num_paths: int) -> PathSpace:
    """Return the space with two layers whose paths hold about ``ITEMS_PER_PATH`` items where they are in use."""
    return PathSpace.even(max(math.isqrt(2 * num_items * num_paths // ITEMS_PER_PATH), WIDTH) + 1, 2)


def main() -> int:
    """Generate, sweep, check; print one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mstep", description=__doc__)
    parser.add_argument("--items", type=int, default=20_000_000)
    parser.add_argument("--sweeps", type=int, default=3)
    parser.add_argument("--candidates", type=int, default=20, help="S")
    parser.add_argument("--paths", type=int, default=3, help="J")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--spark", action="store_true", help="let two Spark tasks sweep")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder, removed at the end)")
    parser.add_argument("--limits", action="store_true", help="time the kernel and its parts on one core, in memory")
    arguments = parser.parse_args()
    if arguments.limits:
        penalty = Penalty(4, derive_alpha(MEAN_WEIGHT, ITEMS_PER_PATH))
        print(json.dumps(limits(arguments.items, arguments.candidates, arguments.paths, penalty, 100)))
        return 0
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="mstep"))
    space = space_of(arguments.items, arguments.paths)
    penalty = Penalty(4, derive_alpha(MEAN_WEIGHT, ITEMS_PER_PATH))
    workdir = Workdir(str(folder / "all"))
    started = time.perf_counter()
    generate(workdir, arguments.items, arguments.candidates, arguments.paths, space)
    generation = time.perf_counter() - started
    before = objective(workdir, "0", count_sizes(workdir, "0", space.num_paths), penalty)
    if arguments.spark:
        seconds, sizes = descend_on_spark(workdir, space, penalty, arguments.sweeps)
    else:
        seconds, sizes = descend(workdir, space, penalty, arguments.sweeps, arguments.threads)
    recount = count_sizes(workdir, "done", space.num_paths)
    if not np.array_equal(recount.of(np.arange(space.num_paths)), sizes.of(np.arange(space.num_paths))):
        raise SystemExit("the path sizes that the sweeps kept differ from a fresh count")
    after = objective(workdir, "done", sizes, penalty)
    in_memory, streamed = prefix_objectives(min(arguments.items, PREFIX_ITEMS), arguments, penalty, folder)
    line = {
        "benchmark": "mstep",
        "items": arguments.items,
        "sweeps": arguments.sweeps,
        "S": arguments.candidates,
        "J": arguments.paths,
        "mode": "spark" if arguments.spark else "streaming",
        "threads": PARTS if arguments.spark else arguments.threads,
        "seconds": round(sum(seconds), 2),
        "seconds_by_sweep": [round(value, 2) for value in seconds],
        "items_per_second_core": round(
            arguments.items * arguments.sweeps / sum(seconds) / (PARTS if arguments.spark else arguments.threads)
        ),
        "generation_seconds": round(generation, 1),
        "peak_rss_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "objective_before": before,
        "objective": after,
        "objective_in_memory_prefix": in_memory,
        "objective_prefix": streamed,
        "paths": space.num_paths,
        "largest_path": int(sizes.counts.max()),
        "mean_path": round(arguments.items * arguments.paths / len(sizes.occupied()[0]), 2),
    }
    if arguments.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
