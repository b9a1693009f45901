"""What the E-step costs: ``python -m benchmarks.train``. One JSON line.

Three questions, each on generated samples of one shape (history 69, 8 positions x 8 targets, GRU of 64). *Reading*: rows
a second through Petastorm beside the same loop fed from memory. *Ranks*: one process beside two with one thread each.
*Items*: the seconds of a step with 20 thousand, 200 thousand and 1.5 million items, sampled softmax. On a GPU, when there
is one: rows a second with and without mixed precision. Medians over ``--repeats`` epochs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from dr_core.learning.trainer import BatchSource, Phase, Trainer, TrainingConfig
from dr_core.model.encoder import EncoderConfig
from dr_core.model.objective import Batch, DeepRetrievalModel, batch_from_arrays
from dr_core.model.reranker import RerankerConfig
from dr_core.model.structure_config import StructureConfig
from dr_core.paths.kmeans_tree import random_paths
from dr_core.paths.space import PathSpace
from pipelines.spark.session import spark_session
from pipelines.stages.training.petastorm import PetastormSource
from pipelines.stages.training.train import TrainJob, train_model
from pipelines.storage.workdir import Workdir

LENGTH, POSITIONS, TARGETS, ROWS_PER_GROUP = 69, 8, 8, 1024
Columns = dict[str, npt.NDArray[np.generic]]


def generate(num_rows: int, num_items: int, seed: int) -> Columns:
    """Draw sample rows: full histories and targets of Zipf-distributed items."""
    rng = np.random.default_rng(seed)

    def items(*shape: int) -> npt.NDArray[np.int64]:
        return np.minimum(num_items * rng.random(shape) ** 3, num_items - 1).astype(np.int64)

    positions = np.sort(rng.permuted(np.tile(np.arange(LENGTH), (num_rows, 1)), axis=1)[:, :POSITIONS], axis=1)
    return {
        "history": items(num_rows, LENGTH),
        "length": np.full(num_rows, LENGTH),
        "positions": positions,
        "targets": items(num_rows, POSITIONS * TARGETS),
        "weights": np.ones((num_rows, POSITIONS * TARGETS), dtype=np.float32),
        "context_categorical": np.zeros((num_rows, 1), dtype=np.int64),
        "context_numeric": np.zeros((num_rows, 1), dtype=np.float32),
    }


def as_arrays(columns: Columns) -> dict[str, pa.Array]:
    """Return the columns with the types of the samples table."""
    return {
        name: pa.array(list(values.astype(np.int32) if values.dtype == np.int64 else values))
        for name, values in columns.items()
    }


def write(columns: Columns, folder: str) -> None:
    """Write the rows as the samples stage does: one row group a file."""
    Path(folder).mkdir(parents=True)
    for number, start in enumerate(range(0, len(columns["length"]), ROWS_PER_GROUP)):
        part = {name: values[start : start + ROWS_PER_GROUP] for name, values in columns.items()}
        pq.write_table(pa.table(as_arrays(part)), f"{folder}/part-{number:05d}.parquet", compression="zstd")


class MemorySource:
    """The same rows from memory, shuffled."""

    def __init__(self, columns: Columns, batch_rows: int) -> None:
        self.columns, self.batch_rows = columns, batch_rows
        self.steps_per_epoch = -(-len(columns["length"]) // batch_rows)

    def batches(self, epoch: int, first_step: int = 0) -> Iterable[Batch]:
        """Yield an epoch's batches."""
        order = np.random.default_rng(epoch).permutation(len(self.columns["length"]))
        for start in range(first_step * self.batch_rows, len(order), self.batch_rows):
            rows = order[start : start + self.batch_rows]
            yield batch_from_arrays({name: values[rows] for name, values in self.columns.items()})


def build(num_items: int, loss: str, seed: int) -> DeepRetrievalModel:
    """Build a model with random paths."""
    torch.manual_seed(seed)
    space = PathSpace.even(max(4, int((2 * num_items / 40) ** 0.5)), 2)
    reranker = RerankerConfig.model_validate({"loss": loss})
    model = DeepRetrievalModel(EncoderConfig(), StructureConfig(hidden=128), reranker, space, np.ones(num_items))
    model.set_item_paths(random_paths(num_items, 1, space, seed))
    return model


def rows_per_second(source: BatchSource, num_items: int, loss: str, config: TrainingConfig, repeats: int) -> float:
    """Return the median over epochs, the first not counted."""
    results = Trainer(build(num_items, loss, 0), source, Phase("joint", "joint", repeats + 1), config, seed=0).run()
    return statistics.median(result.rows_per_second for result in results[1:])


def reading(columns: Columns, samples: str, num_items: int, config: TrainingConfig, repeats: int) -> dict[str, float]:
    """Compare Petastorm with memory; the reader alone beside both."""
    source = PetastormSource(fsspec.filesystem("file"), samples, config.batch_rows)
    alone = []
    for epoch in range(repeats):
        began = time.perf_counter()
        rows = sum(len(batch) for batch in source.batches(epoch))
        alone.append(rows / (time.perf_counter() - began))
    memory = rows_per_second(MemorySource(columns, config.batch_rows), num_items, "full", config, repeats)
    petastorm = rows_per_second(source, num_items, "full", config, repeats)
    return {
        "rows_per_second": petastorm,
        "rows_per_second_memory": memory,
        "rows_per_second_reader_alone": statistics.median(alone),
        "share_of_memory": petastorm / memory,
    }


def ranks(folder: Path, num_items: int, config: TrainingConfig, repeats: int) -> dict[str, float]:
    """Compare one process with two, one thread each, through the launcher that a run uses."""
    workdir = Workdir(str(folder))
    workdir.write_array(np.ones(num_items), "counts.npy")
    space = PathSpace.even(max(4, int((2 * num_items / 40) ** 0.5)), 2)
    workdir.write_array(random_paths(num_items, 1, space, 0), "paths.npy")
    figures = {}
    for world in (1, 2):
        job = TrainJob(
            workdir=str(folder),
            samples="tables/samples",
            model_id=f"ranks-{world}",
            phases=(Phase("joint", "joint", repeats + 1),),
            seed=0,
            nodes=space.nodes,
            encoder=EncoderConfig(),
            structure=StructureConfig(hidden=128),
            reranker=RerankerConfig(),
            training=config.model_copy(update={"num_processes": world}),
            counts_file="counts.npy",
            paths_file="paths.npy",
        )
        with spark_session("train", master="local[1]", conf={"spark.driver.memory": "1g"}):  # which starts the ranks
            figures[world] = statistics.median(result.rows_per_second for result in train_model(job)[1:])
    return {
        "rows_per_second_one_rank": figures[1],
        "rows_per_second_two_ranks": figures[2],
        "ratio": figures[2] / figures[1],
    }


def items(sizes: list[int], num_rows: int, config: TrainingConfig, repeats: int) -> list[dict[str, float]]:
    """Measure a step over catalogues of several sizes, rows of which are touched or all updated."""
    rows = []
    for num_items in sizes:
        source = MemorySource(generate(num_rows, num_items, 1), config.batch_rows)
        row: dict[str, float] = {"items": num_items}
        for name, sparse_rows in (("sparse", 1), ("dense", 10**9)):
            if name == "dense" and num_items > 200_000:
                continue
            changed = config.model_copy(update={"sparse_rows": sparse_rows})
            speed = rows_per_second(source, num_items, "sampled", changed, repeats)
            row[f"seconds_a_step_{name}"] = config.batch_rows / speed
        rows.append(row)
    return rows


def mixed_precision(columns: Columns, num_items: int, config: TrainingConfig, repeats: int) -> dict[str, float]:
    """Compare bfloat16 autocast with float32 on a GPU."""
    source = MemorySource(columns, config.batch_rows)
    return {
        f"rows_per_second_{name}": rows_per_second(
            source, num_items, "full", config.model_copy(update={"mixed_precision": flag}), repeats
        )
        for name, flag in (("bfloat16", True), ("float32", False))
    }


def rounded(value: Any) -> Any:
    """Round the figures of nested data to four digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list) else value


def main() -> int:
    """Run the parts asked for and print one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train", description=__doc__)
    parser.add_argument("--rows", type=int, default=8192, help="sample rows (default: 8,192)")
    parser.add_argument("--items", type=int, default=20_000, help="items of the first two parts (default: 20,000)")
    parser.add_argument("--sizes", type=int, nargs="*", default=[20_000, 200_000, 1_500_000])
    parser.add_argument("--batch-rows", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=("reading", "ranks", "items", "gpu"), nargs="*")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = TrainingConfig(batch_rows=arguments.batch_rows, num_processes=1, checkpoint_every=10**9)
    columns = generate(arguments.rows, arguments.items, 0)
    line: dict[str, Any] = {"benchmark": "train", "rows": arguments.rows, "items": arguments.items,
                            "batch_rows": arguments.batch_rows, "device": "cuda" if torch.cuda.is_available() else "cpu"}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        samples = f"{folder}/tables/samples"
        write(columns, samples)
        parts: dict[str, Callable[[], Any]] = {
            "reading": lambda: reading(columns, samples, arguments.items, config, arguments.repeats),
            "ranks": lambda: ranks(Path(folder), arguments.items, config, arguments.repeats),
            "items": lambda: items(arguments.sizes, arguments.batch_rows * 24, config, arguments.repeats),
            "gpu": lambda: mixed_precision(columns, arguments.items, config, arguments.repeats),
        }
        for name, part in parts.items():
            if name in (arguments.only or parts) and (name != "gpu" or torch.cuda.is_available()):
                line[name] = part()
                print(f"{name}: {json.dumps(rounded(line[name]))}", file=sys.stderr, flush=True)
    print(json.dumps(rounded(line)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
