"""What s[v, c] costs: ``python -m benchmarks.scores [--targets N]``. One JSON line.

*Kernel*: user states a second on one core (K = 100, D = 3, S = 20) for the beam search, and for the whole score of a state with
its targets, beside the bare matrix products of that beam in the same run. *Spark*: the scores of N sample targets through the
real stage on ``local[2]``, with the rows and bytes that each shuffle wrote, and the largest Python worker at N and at a quarter of it.
*Top S'*: what keeping only S' paths an item and block saves, and how far its scores and the M-step's objective are then off.
*Parts* (``--only parts``): where the stage's seconds go. The same samples through ever more of the stage; each part is what it adds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pyspark.sql import DataFrame, SparkSession

from benchmarks.kernels import median_seconds
from benchmarks.train import LENGTH, POSITIONS, TARGETS, as_arrays, generate, rounded
from dr_core.learning.checkpoint import save_model
from dr_core.learning.config import ScoresConfig
from dr_core.learning.scoring import score_batch, sum_terms
from dr_core.model.encoder import EncoderConfig
from dr_core.model.objective import DeepRetrievalModel, StateBatch
from dr_core.model.reranker import RerankerConfig
from dr_core.model.structure_config import StructureConfig
from dr_core.paths.assignment import coordinate_descent, penalised_surrogate
from dr_core.paths.kmeans_tree import random_paths
from dr_core.paths.penalty import Penalty, derive_alpha
from dr_core.paths.scores import ScoreRows, to_candidates
from dr_core.paths.space import PathSpace
from dr_core.retrieval.beam_kernel import USERS_AT_ONCE
from dr_core.retrieval.from_model import compiled_structure
from pipelines.spark.session import spark_session
from pipelines.spark.worker_cache import file_identity, model_identity
from pipelines.stages.blocks import block_batches, dealt_by_block, encode_batch, whole_blocks
from pipelines.stages.structure.scores import (
    ROWS_HELD,
    SCORE_SCHEMA,
    FrozenModel,
    path_scores,
    score_blocks,
)

SPACE, CANDIDATES, ROWS_PER_BLOCK = PathSpace.even(100, 3), 20, 4096
CONF = {"spark.sql.shuffle.partitions": "8"}


def build(num_items: int, hidden: int) -> DeepRetrievalModel:
    """Build a model whose beams are as uneven as a trained one's."""
    torch.manual_seed(0)
    model = DeepRetrievalModel(
        EncoderConfig(), StructureConfig(hidden=hidden), RerankerConfig(), SPACE, np.ones(num_items)
    )
    with torch.no_grad():
        for output in model.structure.outputs:
            output.weight.mul_(4)  # type: ignore[operator]
    model.set_item_paths(random_paths(num_items, 1, SPACE, 0))
    return model.eval().requires_grad_(False)


@torch.inference_mode()
def kernel(hidden: int, repeats: int, num_states: int = 4096) -> dict[str, float]:
    """Time the beam and the whole score of a state, beside the products alone."""
    model = build(20_000, hidden)
    rng = np.random.default_rng(0)
    user_NE = torch.from_numpy(rng.standard_normal((num_states, 64), dtype=np.float32))
    targets = torch.from_numpy(rng.integers(0, 20_000, (num_states, TARGETS)))
    batch = StateBatch(user_NE, targets, torch.ones(targets.shape))
    structure = compiled_structure(model.structure)
    hidden_RH, output_HK = torch.rand(USERS_AT_ONCE * CANDIDATES, hidden), torch.rand(hidden, SPACE.num_nodes)
    user_map_EH, logit_RK = torch.rand(64, hidden), torch.empty(len(hidden_RH), SPACE.num_nodes)

    def products() -> None:
        """Multiply what a beam has to multiply, in blocks of the same size, into memory that is there already."""
        for first in range(0, num_states, USERS_AT_ONCE):
            for _ in range(SPACE.num_layers):
                torch.mm(user_NE[first : first + USERS_AT_ONCE], user_map_EH, out=hidden_RH[:USERS_AT_ONCE])
            torch.mm(hidden_RH[:USERS_AT_ONCE], output_HK, out=logit_RK[:USERS_AT_ONCE])
            for _ in range(SPACE.num_layers - 1):
                torch.mm(hidden_RH, output_HK, out=logit_RK)

    bare, search, whole = (
        median_seconds(work, repeats) / num_states * 1e6
        for work in (
            products,
            lambda: structure.search(user_NE.numpy(), CANDIDATES),
            lambda: sum_terms([score_batch(model, structure, batch, CANDIDATES)]),
        )
    )
    return {
        "hidden": hidden,
        "states_per_second_beam": 1e6 / search,
        "states_per_second": 1e6 / whole,
        "microseconds_bare_products": bare,
        "microseconds_beam": search,
        "share_of_bare_products": bare / search,
    }


def write_samples(folder: str, num_targets: int, num_items: int) -> int:
    """Write sample rows, one file a block; return the number of blocks."""
    num_rows = num_targets // (POSITIONS * TARGETS)
    num_blocks = max(1, round(num_rows / ROWS_PER_BLOCK))
    Path(folder).mkdir(parents=True)
    for block in range(num_blocks):
        rows = len(range(block, num_rows, num_blocks))
        arrays = as_arrays(generate(rows, num_items, block))
        arrays["user"] = pa.array([f"{block}-{row}" for row in range(rows)])
        arrays["row"] = pa.array(np.zeros(rows, np.int32))
        arrays["block"] = pa.array(np.full(rows, block, np.int32))
        pq.write_table(pa.table(arrays), f"{folder}/part-{block:05d}.parquet", compression="zstd")
    return num_blocks


def save_frozen(folder: str, num_items: int) -> FrozenModel:
    """Return a model on disk as the stage's workers load it; written when it is not there."""
    if not Path(folder).exists():
        model = build(num_items, 64)
        save_model(model, fsspec.filesystem("file"), folder)
        np.save(f"{folder}/item_paths.npy", model.placement.path_VJ.numpy())
    paths = f"{folder}/item_paths.npy"
    return FrozenModel(folder, model_identity(folder), paths, file_identity(paths))


class WorkerMemory:
    """Largest resident size of a Python worker below this process while the context lasts."""

    def __enter__(self) -> WorkerMemory:
        self.gib, self.ends = 0.0, threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.ends.wait(0.2):
            for child in psutil.Process().children(recursive=True):
                try:
                    if "worker_daemon" in " ".join(child.cmdline()):
                        self.gib = max(self.gib, child.memory_info().rss / 2**30)
                except psutil.NoSuchProcess:
                    continue

    def __exit__(self, *error: object) -> None:
        self.ends.set()
        self.thread.join()


def shuffles(log_folder: str) -> list[dict[str, float]]:
    """Return rows and bytes that each stage of the newest application wrote to a shuffle."""
    files = sorted(path for path in Path(log_folder).rglob("*") if path.is_file() and not path.name.endswith(".crc"))
    written: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for line in "".join(path.read_text() for path in files if "appstatus" not in path.name).splitlines():
        event = json.loads(line)
        if event["Event"] == "SparkListenerTaskEnd" and event.get("Task Metrics"):
            metrics = event["Task Metrics"]["Shuffle Write Metrics"]
            written[event["Stage ID"]][0] += metrics["Shuffle Records Written"]
            written[event["Stage ID"]][1] += metrics["Shuffle Bytes Written"]
    return [{"rows": rows, "mib": size / 2**20} for _, (rows, size) in sorted(written.items()) if rows]


def stage(folder: Path, num_targets: int, num_items: int, per_block: int | None) -> tuple[dict[str, Any], pd.DataFrame]:
    """Run the score stage on its own session; return its figures and scores."""
    samples, target, logs = f"{folder}/samples-{num_targets}", f"{folder}/out", f"{folder}/events"
    blocks = (
        write_samples(samples, num_targets, num_items)
        if not Path(samples).exists()
        else len(list(Path(samples).glob("*")))
    )
    for place in (target, logs):
        shutil.rmtree(place, ignore_errors=True)
    Path(logs).mkdir()
    frozen = save_frozen(f"{folder}/model-{num_items}", num_items)
    conf = {"spark.eventLog.enabled": "true", "spark.eventLog.dir": logs, "spark.eventLog.compress": "false",
            "spark.eventLog.rolling.enabled": "false", **CONF}  # fmt: skip
    config = ScoresConfig(num_candidates=CANDIDATES, candidates_per_block=per_block)
    with spark_session("scores", master="local[2]", conf=conf) as spark, WorkerMemory() as memory:
        frame: DataFrame = path_scores(spark.read.parquet(samples), frozen, config)
        began = time.perf_counter()
        frame.write.parquet(target)
        seconds = time.perf_counter() - began
        plan = _plan(spark, frame)
    states = num_targets // TARGETS
    return {
        "targets": num_targets,
        "blocks": blocks,
        "candidates_per_block": per_block,
        "seconds": seconds,
        "states_per_second_core": states / seconds / 2,
        "shuffles": shuffles(logs),
        "bound_rows": num_targets * (CANDIDATES + 1) if per_block is None else blocks * num_items * (per_block + 1),
        "worker_gib": memory.gib,
        "plan": plan,
    }, pq.read_table(target).to_pandas()


def parts(folder: Path, num_targets: int, num_items: int, repeats: int) -> dict[str, float]:
    """Median seconds that each part of the stage adds, on one session whose workers have started and read the model."""
    samples = f"{folder}/samples-{num_targets}"
    write_samples(samples, num_targets, num_items)
    frozen, config = save_frozen(f"{folder}/model-{num_items}", num_items), ScoresConfig(num_candidates=CANDIDATES)
    work = score_blocks(frozen, config, ROWS_HELD)

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _ in batches:
            pass
        yield from ()

    def encode(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        network, _ = frozen.load()
        for block in whole_blocks(batches):
            for batch in block_batches(block):
                encode_batch(network, batch)
        yield from ()

    def score(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _ in work(batches):
            pass
        yield from ()

    with spark_session("scores", master="local[2]", conf=CONF) as spark:
        frame = spark.read.parquet(samples)
        dealt = dealt_by_block(frame)
        steps: dict[str, Callable[[], DataFrame]] = {
            "read_and_deal": lambda: dealt.mapInArrow(read, SCORE_SCHEMA),
            "encode": lambda: dealt.mapInArrow(encode, SCORE_SCHEMA),
            "beam_and_sums": lambda: dealt.mapInArrow(score, SCORE_SCHEMA),
            "hand_over": lambda: dealt.mapInArrow(work, SCORE_SCHEMA),
            "shuffle_and_best": lambda: path_scores(frame, frozen, config),
        }
        for warm in ("read_and_deal", "beam_and_sums"):
            steps[warm]().write.format("noop").mode("overwrite").save()
        taken = {
            name: median_seconds(lambda step=step: step().write.format("noop").mode("overwrite").save(), repeats)  # type: ignore[misc]
            for name, step in steps.items()
        }
    whole = list(taken.values())
    added = {name: seconds - before for (name, seconds), before in zip(taken.items(), [0.0, *whole], strict=False)}
    return {"targets": num_targets, "items": num_items, "seconds": whole[-1], **added}


def _plan(spark: SparkSession, frame: DataFrame) -> list[str]:
    text = frame._jdf.queryExecution().executedPlan().toString()
    return [line.strip().split("[")[0].split("(")[0].strip(" :+-*") for line in text.splitlines() if "Exchange" in line]


def top_per_block(exact: pd.DataFrame, approximate: pd.DataFrame, num_items: int) -> dict[str, float]:
    """How far the scores of top-S' are off, and what the M-step loses by them, judged by the exact scores."""

    def rows(frame: pd.DataFrame) -> ScoreRows:
        return ScoreRows(*(frame[name].to_numpy().astype(kind) for name, kind in (
            ("item_id", np.int64), ("path_id", np.int64), ("score", np.float64), ("is_current", np.bool_))))  # fmt: skip

    current = random_paths(num_items, 1, SPACE, 0)
    weights = np.bincount(exact["item_id"], exact["score"], num_items)
    candidates = [to_candidates(rows(frame), weights, current) for frame in (exact, approximate)]
    penalty = Penalty(4, derive_alpha(float(weights.mean()), 40.0))
    found = [coordinate_descent(each, penalty, num_paths=1, num_sweeps=3, space=SPACE).path_ids for each in candidates]
    start, best, reached = (penalised_surrogate(candidates[0], paths, penalty) for paths in (current, *found))
    both = exact.merge(approximate, on=["item_id", "path_id"], how="left", suffixes=("", "_approximate"))
    return {
        "candidates_kept": float(both["score_approximate"].notna().mean()),
        "mass_kept": float(both["score_approximate"].sum() / exact["score"].sum()),
        "share_of_exact_gain": (reached - start) / (best - start),
    }


def main() -> int:
    """Run all parts and print one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scores", description=__doc__)
    parser.add_argument("--targets", type=int, default=10_000_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--per-block", type=int, default=CANDIDATES, help="S' (default: 20)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=("kernel", "spark", "parts"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    line: dict[str, Any] = {"benchmark": "scores", "K": SPACE.num_nodes, "D": SPACE.num_layers, "S": CANDIDATES,
                            "targets_a_state": TARGETS, "history": LENGTH}  # fmt: skip
    if arguments.only == "parts":
        with tempfile.TemporaryDirectory() as folder:
            line["parts"] = parts(Path(folder), arguments.targets // 4, arguments.items, arguments.repeats)
        print(json.dumps(rounded(line)))
        return 0
    if arguments.only != "spark":
        line["kernel"] = [kernel(hidden, arguments.repeats) for hidden in (64, 128)]
        print(json.dumps(rounded(line["kernel"])), file=sys.stderr, flush=True)
    if arguments.only != "kernel":
        with tempfile.TemporaryDirectory() as folder:
            line["spark"], exact = [], None
            for targets, per_block in ((arguments.targets, None), (arguments.targets // 4, None),
                                       (arguments.targets // 4, arguments.per_block)):  # fmt: skip
                figures, scores = stage(Path(folder), targets, arguments.items, per_block)
                line["spark"].append(figures)
                print(json.dumps(rounded(figures)), file=sys.stderr, flush=True)
                if per_block is not None and exact is not None:
                    line["top_per_block"] = top_per_block(exact, scores, arguments.items)
                exact = scores
    print(json.dumps(rounded(line)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
