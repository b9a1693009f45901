"""The E-step and the warm-up: DDP ranks started by Spark's TorchDistributor, fed by Petastorm."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from pyspark.ml.torch.distributor import TorchDistributor

from dr_core.errors import DeepRetrievalError
from dr_core.learning.checkpoint import copy_model, load_model, read_manifest, save_model, table_identity
from dr_core.learning.trainer import EpochResult, Phase, Trainer, TrainingConfig, Validation
from dr_core.model.encoder import EncoderConfig
from dr_core.model.growth import grow_model
from dr_core.model.objective import DeepRetrievalModel, batch_from_arrays
from dr_core.model.reranker import RerankerConfig
from dr_core.model.structure_config import StructureConfig
from dr_core.paths.space import PathSpace
from pipelines.stages.training.petastorm import PetastormSource
from pipelines.stages.training.states import sample_states
from pipelines.storage.faults import reach
from pipelines.storage.workdir import Workdir

STATES_TO_START = 2048
"""User states whose mean is where energies start from."""


@dataclass(frozen=True)
class TrainJob:
    """Everything a rank needs, by value or by URI; it crosses process borders.

    Args:
        workdir: URI of W.
        samples: table folder below W that the ranks read.
        model_id: folder of the result below ``models/``.
        nodes: of each layer of the structure.
        start_from: model whose parameters are the start, or None.
        paths_file: ``.npy`` of pi (int64 [V, J]) below W, or None while warming up.
        counts_file: ``.npy`` of events an item (float64 [V]) below W.
        validation_file: ``.npz`` of one batch of samples columns below W, or None.
        validation_k, validation_filtered: the lists by which epochs are judged.
    """

    workdir: str
    samples: str
    model_id: str
    phases: tuple[Phase, ...]
    seed: int
    nodes: tuple[int, ...]
    encoder: EncoderConfig
    structure: StructureConfig
    reranker: RerankerConfig
    training: TrainingConfig
    counts_file: str
    paths_file: str | None = None
    start_from: str | None = None
    validation_file: str | None = None
    validation_k: int = 10
    validation_filtered: bool = True
    crash_at: int | None = None


def train_model(job: TrainJob) -> list[EpochResult]:
    """Train ``job.model_id`` with ``job.training.num_processes`` ranks and return what each epoch did.

    Progress goes to this process' log; ``models/<id>/metrics.jsonl`` keeps it. Ranks run under torchrun, started by
    TorchDistributor on this machine, or on Spark executors when ``local_processes`` is false.

    Raises:
        InputError: the samples are missing, or in fewer row groups than there are ranks.
        DeepRetrievalError: a rank failed.
    """
    workdir = Workdir(job.workdir)
    metrics = workdir.path("models", job.model_id, "metrics.jsonl")
    workdir.filesystem.makedirs(workdir.path("models", job.model_id), exist_ok=True)
    workdir.write_text("", "models", job.model_id, "metrics.jsonl")
    _source(job, workdir, 0, job.training.num_processes)  # refuses samples that cannot be shared before ranks start
    # What the ranks print is progress for people; this process' stdout belongs to its caller.
    with contextlib.redirect_stdout(sys.stderr):
        if job.training.num_processes == 1 and job.training.local_processes:
            threads = torch.get_num_threads()
            try:
                train_rank(job)
            finally:
                torch.set_num_threads(threads)
        else:
            os.environ.setdefault("OMP_NUM_THREADS", str(job.training.threads_per_process))
            before = os.environ.get("PYTHONSAFEPATH", "")  # an empty one is as good as none
            os.environ["PYTHONSAFEPATH"] = "1"  # else a rank takes packages of the working folder for this project's
            distributor = TorchDistributor(
                num_processes=job.training.num_processes, local_mode=job.training.local_processes, use_gpu=False
            )
            try:
                distributor.run(train_rank, job)
            except RuntimeError as error:
                raise DeepRetrievalError(f"a rank that trained {job.model_id} failed: {error}") from error
            finally:
                os.environ["PYTHONSAFEPATH"] = before
    manifest = read_manifest(workdir.filesystem, workdir.path("models", job.model_id))
    if manifest is None:
        raise DeepRetrievalError(
            f"training {job.model_id} ended without a model; the ranks' output is above, metrics in {metrics}"
        )
    return [EpochResult(**result) for result in manifest["results"]]


def train_rank(job: TrainJob) -> None:
    """Run one rank: build or load the model, run the phases, save on rank 0."""
    torch.set_num_threads(job.training.threads_per_process)
    distributed = "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1
    if distributed:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        _train_rank(job)
    finally:
        # Without this, a rank that ran a Petastorm reader can end in SIGABRT.
        if distributed:
            dist.destroy_process_group()


def _train_rank(job: TrainJob) -> None:
    workdir = Workdir(job.workdir)
    filesystem = workdir.filesystem
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    counts = workdir.read_array(*job.counts_file.split("/"))
    model = build_model(job, workdir, counts)
    paths = workdir.read_array(*job.paths_file.split("/")) if job.paths_file else None
    if paths is not None:
        model.set_item_paths(paths)
        if model.starts_by_formula:
            model.start_structure(sample_states(workdir, job.samples.split("/")[-1], model, STATES_TO_START))
    source = _source(job, workdir, rank, world)
    identity = f"{job.samples}:{'none' if paths is None else table_identity(paths)}:{source.steps_per_epoch}"
    validation = _validation(workdir, job, job.validation_file) if job.validation_file else None
    results: list[EpochResult] = []
    for number, phase in enumerate(job.phases):
        trainer = Trainer(
            model,
            source,
            phase,
            job.training,
            seed=job.seed + number,
            identity=identity,
            checkpoints=(filesystem, workdir.path("models", job.model_id, "checkpoints", str(number))),
            validation=validation,
            report=_reporter(workdir, job.model_id) if rank == 0 else lambda record: None,
            after_checkpoint_file=lambda name: reach("checkpoint:half"),
            crash_at=job.crash_at,
        )
        results += trainer.run()
    if rank == 0:
        extra = {"results": [vars(result) for result in results], "model_id": job.model_id, "ranks": world}
        folder = workdir.path("models", job.model_id)
        save_model(model, filesystem, folder, extra, after_file=lambda name: reach("model:half"))
        checkpoints = workdir.path("models", job.model_id, "checkpoints")
        if filesystem.exists(checkpoints):
            filesystem.rm(checkpoints, recursive=True)


def _source(job: TrainJob, workdir: Workdir, rank: int, world: int) -> PetastormSource:
    return PetastormSource(
        workdir.filesystem,
        workdir.path(*job.samples.split("/")),
        max(1, job.training.batch_rows // world),
        shard=rank,
        num_shards=world,
        seed=job.seed,
    )


def build_model(job: TrainJob, workdir: Workdir, counts: npt.NDArray[np.float64]) -> DeepRetrievalModel:
    """Build the job's model: seeded, then overwritten by ``start_from`` where they agree; or ``start_from``
    itself, grown, when there are more items now."""
    torch.manual_seed(job.seed)
    model = DeepRetrievalModel(job.encoder, job.structure, job.reranker, PathSpace(job.nodes), counts)
    if job.start_from is not None:
        start = load_model(workdir.filesystem, workdir.path("models", job.start_from))
        if start.num_items < len(counts):
            return grow_model(start, counts)
        copy_model(start, model)
    return model


def _validation(workdir: Workdir, job: TrainJob, name: str) -> Validation:
    with fsspec.open(workdir.path(*name.split("/")), "rb") as file:
        batch = batch_from_arrays(dict(np.load(file, allow_pickle=False)))
    return Validation(batch, job.validation_k, job.validation_filtered)


def _reporter(workdir: Workdir, model_id: str) -> Any:
    path = workdir.path("models", model_id, "metrics.jsonl")
    lines: list[str] = []

    def report(record: dict[str, Any]) -> None:
        lines.append(json.dumps(record | {"model_id": model_id, "time": time.time()}))
        with workdir.filesystem.open(path, "w") as file:
            file.write("\n".join(lines) + "\n")
        print(progress_line(record), flush=True)

    return report


def progress_line(record: dict[str, Any]) -> str:
    """Return a metrics record as one line for people."""
    if record["event"] == "progress":
        return (
            f"  {record['phase']} epoch {record['epoch'] + 1} step {record['step']}/{record['steps']}"
            f" loss {record['loss']:.4f} {record['rows_per_second']:.0f} rows/s"
        )
    if record["event"] == "resumed":
        return f"  {record['phase']} goes on from epoch {record['epoch'] + 1}, step {record['step']}"
    losses = " ".join(
        f"{name} {record[key]:.4f}"
        for name, key in (
            ("structure", "loss_structure"),
            ("softmax", "loss_softmax"),
            ("validation", "validation_loss"),
            ("recall", "validation_recall"),
        )
        if record[key] is not None
    )
    return f"  {record['phase']} epoch {record['epoch'] + 1}: {losses} {record['rows_per_second']:.0f} rows/s"
