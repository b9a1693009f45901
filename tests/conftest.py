"""Fixtures shared by all tests: one Spark session for the whole run, small models, and one world for all whole runs."""

import json
import logging
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from filelock import FileLock
from pyspark import SparkContext
from pyspark.sql import SparkSession

from dr_core.model.encoder import EncoderConfig
from dr_core.model.energy_structure import EnergyStructure
from dr_core.model.objective import DeepRetrievalModel
from dr_core.model.reranker import RerankerConfig
from dr_core.model.structure_config import StructureConfig
from dr_core.paths.space import PathSpace
from pipelines.spark.session import build_session
from pipelines.storage.workdir import Workdir
from tests.end_to_end.attached import run_program
from tests.end_to_end.world import FIRST, SCRIPT, TinyWorld, write_logs

ModelMaker = Callable[..., DeepRetrievalModel]
SamplesWriter = Callable[..., dict[str, np.ndarray]]
RunAttached = Callable[..., tuple[int, str]]
Contents = Callable[..., pd.DataFrame]
SYSTEM_FOLDERS = ("end_to_end", "jobs", "airflow_dags")
SYSTEM_FIXTURES = {"tiny_world", "run_attached", "submit", "in_airflow"}
LIGHT = {  # for a few rows: compiling a query, by Spark or by the JVM, takes longer than running it; with one compiler alone
    # the JVM would keep 48 MB of code, throw away what no longer fits, and compile it again
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:MetaspaceSize=256m -XX:+UseSerialGC",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.databricks.delta.snapshotPartitions": "1",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test with its tier: ``unit`` starts no JVM, ``spark`` uses the one session, ``system`` whole programs.

    A test that says its tier itself keeps it: one that starts a JVM of its own, without a fixture.
    """
    for item in items:
        if not any(item.get_closest_marker(name) for name in ("unit", "spark", "system")):
            item.add_marker(
                tier(item.path.relative_to(Path(__file__).parent).parts[0], getattr(item, "fixturenames", ()))
            )


def tier(folder: str, fixtures: Sequence[str]) -> str:
    """Return the tier of a test.

    Args:
        folder: below ``tests/``.
        fixtures: names of all that the test uses, itself or through others.
    """
    if folder in SYSTEM_FOLDERS or SYSTEM_FIXTURES & set(fixtures):
        return "system"
    return "spark" if "spark" in fixtures else "unit"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Sums of several threads differ in their last digits from run to run."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    """Commands and jobs configure the loggers of their process; here that process is pytest."""
    loggers = [logging.getLogger(name) for name in ("pipelines", "dr_core", "py4j", "TorchDistributor", "petastorm")]
    before = [(logger, logger.level, logger.handlers, logger.propagate) for logger in loggers]
    yield
    for logger, level, handlers, propagate in before:
        logger.setLevel(level)
        logger.handlers, logger.propagate = handlers, propagate


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    session = build_session(
        "tests",
        master="local[2]",
        conf=LIGHT | {"spark.sql.shuffle.partitions": "2"},
    )
    yield session
    session.stop()


@pytest.fixture(scope="session")
def make_model() -> ModelMaker:
    """A function that draws small models, in evaluation mode, whose probabilities and scores are far from equal."""

    def make(
        num_items: int = 30,
        num_nodes: int = 4,
        num_layers: int = 2,
        *,
        nodes: tuple[int, ...] = (),
        num_paths: int = 0,
        seed: int = 0,
        dim: int = 8,
        counts: np.ndarray | None = None,
        encoder: dict[str, object] | None = None,
        reranker: RerankerConfig = RerankerConfig(),  # noqa: B008
        normaliser: str = "global",
        path_vectors: int = 10**6,
    ) -> DeepRetrievalModel:
        torch.manual_seed(seed)
        space = PathSpace(nodes) if nodes else PathSpace.even(num_nodes, num_layers)
        model = DeepRetrievalModel(
            EncoderConfig.model_validate({"dim": dim, "dropout": 0.0} | (encoder or {})),
            StructureConfig(normaliser=normaliser, hidden=8, path_dim=4, path_vectors=path_vectors),
            reranker,
            space,
            np.arange(1.0, num_items + 1) if counts is None else counts,
        )
        with torch.no_grad():
            if isinstance(model.structure, EnergyStructure):
                for parameter in model.structure.parameters():
                    parameter.normal_(std=dim**-0.5)
            elif model.structure.has_path_vectors:
                model.structure.path_vector_QKE.normal_(std=dim**-0.5)
            for parameter in model.structure.parameters():
                parameter.mul_(2.0)
            model.reranker.output_embedding.weight.mul_(2.0)
        if num_paths:
            rng = np.random.default_rng(seed)
            paths = [rng.choice(space.num_paths, num_paths, replace=False) for _ in range(num_items)]
            model.set_item_paths(np.array(paths, dtype=np.int64))
        return model.eval()

    return make


@pytest.fixture(scope="session")
def write_samples() -> SamplesWriter:
    """A function that writes a tiny samples table, without Spark, and returns its columns."""

    def write(
        folder: str,
        *,
        num_rows: int = 64,
        num_items: int = 30,
        num_files: int = 4,
        groups_per_file: int = 1,
        num_blocks: int = 3,
        length: int = 6,
        num_targets: int = 2,
        seed: int = 0,
    ) -> dict[str, np.ndarray]:
        """Two positions a row, the second one unused in every fifth row; targets follow the history's last items.

        ``context_numeric`` numbers the rows.
        """
        rng = np.random.default_rng(seed)
        used = rng.integers(2, length + 1, num_rows)
        history = np.where(np.arange(length) < used[:, None], rng.integers(0, num_items, (num_rows, length)), -1)
        positions = np.stack([used - 2, used - 1], axis=1)
        seen = np.take_along_axis(history, positions, 1)[..., None]
        targets = (seen + rng.integers(1, 4, (num_rows, 2, num_targets))) % num_items
        weights = rng.integers(2, 9, targets.shape) / 4
        positions[::5, 1] = -1
        targets[::5, 1] = -1
        weights[targets < 0] = 0
        user = np.array([f"u{number // 2:04d}" for number in range(num_rows)])
        columns = {
            "user": user,
            "row": (np.arange(num_rows) % 2).astype(np.int32),
            "block": (np.arange(num_rows) // 2 % num_blocks).astype(np.int32),
            "history": history.astype(np.int32),
            "length": used.astype(np.int32),
            "positions": positions.astype(np.int32),
            "targets": targets.reshape(num_rows, -1).astype(np.int32),
            "weights": weights.reshape(num_rows, -1).astype(np.float32),
            "context_categorical": np.zeros((num_rows, 1), np.int32),
            "context_numeric": np.arange(num_rows, dtype=np.float32)[:, None],
        }
        table = pa.table({name: list(values) if values.ndim == 2 else values for name, values in columns.items()})
        Path(folder).mkdir(parents=True)
        bounds = np.linspace(0, num_rows, num_files + 1).astype(int)
        for number, (start, end) in enumerate(zip(bounds, bounds[1:], strict=False)):
            group_rows = -(-(end - start) // groups_per_file)
            part = table.slice(start, end - start)
            pq.write_table(part, f"{folder}/part-{number:05d}.parquet", row_group_size=group_rows)
        return columns

    return write


@pytest.fixture(scope="session")
def run_attached(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> RunAttached:
    """A function that runs a script in a process of its own; returns its exit code (-9: killed) and its log.

    The process is a driver like any other and can be killed, but it uses the JVM of this test run and is forked from one
    that has imported torch: it begins within a second, where a JVM of its own takes half a minute of CPU to warm up.
    """
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["pipelines.flows.day_one", "pipelines.flows.refresh"])
    folder = tmp_path_factory.mktemp("attached")

    def run(script: Path, *arguments: str, **environment: str) -> tuple[int, str]:
        gateway, log = SparkContext._gateway, folder / "log"
        assert gateway is not None
        secret = gateway.gateway_parameters.auth_token
        given = (str(script), list(arguments), environment, (gateway.gateway_parameters.port, secret), str(log))
        process = processes.Process(target=run_program, args=given)
        process.start()
        process.join()
        assert process.exitcode is not None
        text = log.read_text()
        if process.exitcode not in (0, -signal.SIGKILL):
            print(text[-4000:])
        return process.exitcode, text

    return run


@pytest.fixture(scope="session")
def tiny_world(run_attached: RunAttached, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> TinyWorld:
    """The world after day one, made by whichever worker needs it first and shared by all."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "tiny_world"
    note = folder / "logs.json"
    with FileLock(f"{folder}.lock"):
        if not note.exists():
            logs = write_logs(folder / "logs")
            moments = (FIRST.start.isoformat(), FIRST.end.isoformat())
            code, log = run_attached(SCRIPT, str(folder / "W"), logs["first"], *moments, "first")
            assert code == 0, log[-4000:]
            note.write_text(json.dumps(list(logs.items())))
    return TinyWorld(dict(map(tuple, json.loads(note.read_text()))), folder / "W")


@pytest.fixture(scope="session")
def contents(spark: SparkSession) -> Contents:
    """A function that reads a table of a work folder in a defined order, without moments and the columns named."""

    def read(workdir: Path, table: str, *without: str) -> pd.DataFrame:
        frame = Workdir(str(workdir)).read(spark, table).drop("created_at", *without).toPandas()
        for column in frame.columns:
            if frame[column].map(lambda value: hasattr(value, "__len__") and not isinstance(value, str)).any():
                frame[column] = frame[column].map(lambda value: tuple(value) if value is not None else None)
        return frame.sort_values(list(frame.columns)).reset_index(drop=True)

    return read
