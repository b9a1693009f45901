"""One training loop for one process, ``torchrun`` and Spark's TorchDistributor.

The loop asks torch.distributed whether it is alone; the launcher is not its business. All randomness of a step is
drawn from (seed, rank, epoch, step), so a resumed run needs no saved generator to equal an uninterrupted one.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
import torch.distributed as dist
from fsspec import AbstractFileSystem
from pydantic import Field
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dr_core.config import Config
from dr_core.errors import DeepRetrievalError, InputError
from dr_core.learning import checkpoint
from dr_core.model.objective import Batch, DeepRetrievalModel, StateBatch

logger = logging.getLogger(__name__)
SECONDS_BETWEEN_REPORTS = 5.0

PhaseKind = Literal["warm_up", "joint", "frozen"]


class TrainingConfig(Config):
    """How the parameters are learned."""

    batch_rows: int = Field(256, ge=1)
    """Sample rows a step, shared out over the ranks, so that their number does not change what is learned; a row holds
    `samples.positions` user states."""
    learning_rate: float = Field(4e-3, gt=0)
    """Peak rate of Adam for the encoder and the softmax; warms up over 5 % of the steps, then falls as a cosine."""
    structure_learning_rate: float = Field(4e-3, gt=0)
    """Peak rate for the structure model."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay (AdamW) of the encoder and the softmax; item rows that are updated sparsely have none.
    What it was worth in one world: docs/decisions.md."""
    clip_norm: float = Field(5.0, gt=0)
    """Largest gradient norm of a step, over the dense parameters."""
    mixed_precision: bool = True
    """bfloat16 autocast; on a GPU only."""
    num_processes: int = Field(2, ge=1)
    """DDP ranks."""
    local_processes: bool = True
    """True starts the ranks on the driver's machine, False on Spark executors (barrier stage)."""
    threads_per_process: int = Field(1, ge=1)
    """CPU threads of a rank."""
    sparse_rows: int = Field(100_000, ge=1)
    """Item rows from which on, with the sampled softmax, a step updates only the rows it touched (SparseAdam: rows that
    rest keep their momentum), so that its cost does not grow with the catalogue. Not on several GPUs: NCCL adds up dense
    gradients."""
    checkpoint_every: int = Field(200, ge=1)
    """Steps between checkpoints."""
    validation_k: int = Field(10, ge=1)
    """Length of the lists by whose recall the warm-up's epochs are judged on the validation users."""
    validation_filtered: bool = True
    """Whether those lists leave out the user's history; false where users come back to the same items."""
    patience: int = Field(3, ge=1)
    """Epochs in a row after which a phase stops when each ranks clearly worse than the best one did for the validation
    users: its recall is more than a standard error lower. Kept is the last epoch that is not clearly worse."""


@dataclass(frozen=True)
class Phase:
    """One stretch of training.

    ``warm_up`` trains encoder and softmax, ``joint`` everything, ``frozen`` the structure model alone (the paper
    freezes the softmax embeddings after its joint epochs, section 4.1).
    """

    name: str
    kind: PhaseKind
    epochs: int

    @property
    def uses_structure(self) -> bool:
        """Whether Q_str is part of the objective."""
        return self.kind != "warm_up"

    @property
    def uses_softmax(self) -> bool:
        """Whether Q_softmax is part of the objective."""
        return self.kind != "frozen"


class BatchSource(Protocol):
    """What the loop reads: the same order for the same (seed, epoch), the same number of steps on every rank."""

    steps_per_epoch: int

    def batches(self, epoch: int, first_step: int) -> Iterable[Batch | StateBatch]:
        """Yield the batches of an epoch from ``first_step`` on."""


@dataclass(frozen=True)
class EpochResult:
    """What one epoch did; losses are means a unit of sample weight."""

    phase: str
    epoch: int
    loss_structure: float | None
    loss_softmax: float | None
    validation_loss: float | None
    rows_per_second: float
    seconds: float
    validation_recall: float | None = None
    """Mean over the validation users of the share of their targets among the softmax's best items."""
    validation_error: float | None = None
    """Standard error of that mean."""


@dataclass(frozen=True)
class Validation:
    """Held-out users, by whose lists the epochs of a phase are judged.

    Not by their loss: that of a softmax over many items with few events rises, as it grows too sure of itself, long before
    its lists get worse (docs/decisions.md).
    """

    batch: Batch
    """All of them; each rank judges its share."""
    k: int
    """Length of the lists."""
    filtered: bool
    """Whether the lists leave out the history."""


class Trainer:
    """Runs a :class:`Phase` over a :class:`BatchSource`.

    Args:
        model: updated in place.
        source: this rank's batches.
        phase, config, seed: what, how, and the root of all randomness.
        identity: of the samples and the path table; a checkpoint of another identity is ignored.
        checkpoints: (filesystem, folder) for resuming, or None.
        validation: decides which epoch is kept and when to stop early; without it all are run and the last is kept.
        report: called on rank 0 with each progress record (a JSON-able dict).
        after_checkpoint_file: called with the name of each file of a checkpoint once it is written.
        crash_at: test hook, the global step after which the loop raises, as a killed process would end.
    """

    def __init__(
        self,
        model: DeepRetrievalModel,
        source: BatchSource,
        phase: Phase,
        config: TrainingConfig,
        *,
        seed: int,
        identity: str = "",
        checkpoints: tuple[AbstractFileSystem, str] | None = None,
        validation: Validation | None = None,
        report: Callable[[dict[str, Any]], None] = lambda record: None,
        after_checkpoint_file: Callable[[str], None] = lambda name: None,
        crash_at: int | None = None,
    ) -> None:
        self.device = torch.device("cuda", _local_rank()) if torch.cuda.is_available() else torch.device("cpu")
        self.model = model.to(self.device)
        self.source, self.phase, self.config, self.seed = source, phase, config, seed
        self.identity, self.checkpoints, self.validation = identity, checkpoints, validation
        self.report, self.after_checkpoint_file, self.crash_at = report, after_checkpoint_file, crash_at
        self.turn = 0
        _choose_trainable(model, phase)
        self.optimizers = self._build_optimizers()
        self.peak_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers.values()]
        self.total_steps = max(1, phase.epochs * source.steps_per_epoch)
        self.wrapped: nn.Module = model
        if _world() > 1:
            # Buffers (pi, embedding rows) never change in a phase: sent once, not with every step.
            self.wrapped = DistributedDataParallel(
                model,
                device_ids=[self.device.index] if self.device.type == "cuda" else None,
                forward_sync_buffers=False,
            )
        self.autocast = self.device.type == "cuda" and config.mixed_precision

    def _build_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return Adam for what every step touches, and SparseAdam for item tables of which a step touches some rows."""
        model, config = self.model, self.config
        reranker = model.reranker
        tables = (model.encoder.item_embedding, reranker.output_embedding, reranker.output_bias)
        is_sparse = (
            reranker.samples_negatives
            and reranker.output_embedding.num_embeddings >= config.sparse_rows
            and not (self.device.type == "cuda" and _world() > 1)
        )
        for table in tables:
            table.sparse = is_sparse
        sparse = _trainable(tables) if is_sparse else []
        dense = [p for p in _trainable([model.encoder, reranker]) if not any(p is q for q in sparse)]
        optimizers: dict[str, torch.optim.Optimizer] = {
            "optimizer": torch.optim.AdamW(
                [
                    {"params": dense, "lr": config.learning_rate},
                    {
                        "params": _trainable([model.structure]),
                        "lr": config.structure_learning_rate,
                        "weight_decay": 0.0,
                    },
                ],
                weight_decay=config.weight_decay,
                fused=True,
            )
        }
        if sparse:
            optimizers["tables"] = torch.optim.SparseAdam(sparse, lr=config.learning_rate)
        return optimizers

    def run(self) -> list[EpochResult]:
        """Train to the end of the phase (or to early stop), from the newest checkpoint when there is one."""
        if self.phase.epochs == 0 or self.source.steps_per_epoch == 0:
            return []
        epoch, step, results, best, sums = self._resume()
        while epoch < self.phase.epochs and not self._stale(results):
            result = self._epoch(epoch, step, results, best, sums)
            results.append(result)
            if self.validation is not None and result in near_best(results):
                best = {key: value.clone() for key, value in self.model.state_dict().items()}
            self.report({"event": "epoch", **vars(result)})
            epoch, step, sums = epoch + 1, 0, torch.zeros_like(sums)
            self._save(epoch, step, results, best, sums)
        if best is not None:
            self.model.load_state_dict(best)
        self.model.eval()
        return results

    def _epoch(
        self,
        epoch: int,
        first_step: int,
        results: list[EpochResult],
        best: dict[str, Tensor] | None,
        sums: Tensor,
    ) -> EpochResult:
        started = reported = time.monotonic()
        sums = sums.clone()
        rows = 0
        step = first_step
        for batch in self.source.batches(epoch, first_step):
            sums += self._step(batch.to(self.device), epoch, step)
            rows += len(batch)
            step += 1
            if time.monotonic() - reported > SECONDS_BETWEEN_REPORTS:
                reported = time.monotonic()
                self.report(
                    {
                        "event": "progress",
                        "phase": self.phase.name,
                        "epoch": epoch,
                        "step": step,
                        "steps": self.source.steps_per_epoch,
                        "loss": float((sums[0] + sums[1]) / sums[2].clamp_min(1e-12)),
                        "rows_per_second": rows * _world() / (reported - started),
                    }
                )
            if step % self.config.checkpoint_every == 0 and step < self.source.steps_per_epoch:
                self._save(epoch, step, results, best, sums)
            if self.crash_at is not None and epoch * self.source.steps_per_epoch + step >= self.crash_at:
                raise InterruptedError(f"crash asked for at step {self.crash_at}")
        if step != self.source.steps_per_epoch:
            raise DeepRetrievalError(
                f"the reader gave {step} steps in epoch {epoch}, {self.source.steps_per_epoch} were announced"
            )
        _reduce(sums)
        seconds = time.monotonic() - started
        validation_loss, recall, error = self._validate() if self.validation else (None, None, None)
        return EpochResult(
            self.phase.name,
            epoch,
            float(sums[0] / sums[2]) if self.phase.uses_structure else None,
            float(sums[1] / sums[2]) if self.phase.uses_softmax else None,
            validation_loss,
            rows * _world() / seconds,
            seconds,
            recall,
            error,
        )

    def _step(self, batch: Batch | StateBatch, epoch: int, step: int) -> Tensor:
        self.wrapped.train()
        if self.phase.kind == "frozen":
            self.model.encoder.eval()
        global_step = epoch * self.source.steps_per_epoch + step
        torch.manual_seed((self.seed * 1_000_003 + global_step) * 4096 + _rank())
        for optimizer, peaks in zip(self.optimizers.values(), self.peak_rates, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * schedule(global_step, self.total_steps)
            optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.autocast):
            loss_structure, loss_softmax, weight = self.wrapped(
                batch, self.phase.uses_structure, self.phase.uses_softmax
            )
        sums = torch.stack([loss_structure.detach(), loss_softmax.detach(), weight]).double()
        total_weight = _reduce(sums[2].clone()).clamp_min(1e-12)
        # DDP averages gradients over ranks: scaled so that the average is the gradient of the global weighted mean.
        loss = (loss_structure + loss_softmax) * (_world() / total_weight.float())
        loss.backward()
        dense = [p for p in self.model.parameters() if p.grad is not None and not p.grad.is_sparse]
        nn.utils.clip_grad_norm_(dense, self.config.clip_norm)
        for optimizer in self.optimizers.values():
            optimizer.step()
        return sums

    @torch.no_grad()
    def _validate(self) -> tuple[float, float, float]:
        """Return the validation loss, the mean recall and its standard error, the same on all ranks; each judges its share."""
        assert self.validation is not None
        batch = self.validation.batch.share(_rank(), _world()).to(self.device)
        self.model.eval()
        torch.manual_seed(self.seed)
        sums = torch.zeros(5, dtype=torch.float64, device=self.device)
        if len(batch):
            loss_structure, loss_softmax, weight = self.model(batch, self.phase.uses_structure, self.phase.uses_softmax)
            recall_N = self.model.recall(batch, self.validation.k, filtered=self.validation.filtered).double()
            sums[:2] = torch.stack([loss_structure + loss_softmax, weight])
            sums[2:] = torch.stack([recall_N.sum(), recall_N.square().sum(), recall_N.new_tensor(len(recall_N))])
        loss, weights, recalls, squares, users = _reduce(sums).tolist()
        recall = recalls / max(users, 1)
        variance = max(squares / max(users, 1) - recall**2, 0.0)
        return loss / max(weights, 1e-12), recall, math.sqrt(variance / max(users, 1))

    def _stale(self, results: list[EpochResult]) -> bool:
        if self.validation is None or len(results) <= self.config.patience:
            return False
        near = near_best(results)
        return not any(result in near for result in results[-self.config.patience :])

    def _save(
        self, epoch: int, step: int, results: list[EpochResult], best: dict[str, Tensor] | None, sums: Tensor
    ) -> None:
        if self.checkpoints is None:
            return
        sums = _reduce(sums.clone())
        if _rank() != 0:
            return
        filesystem, folder = self.checkpoints
        files = {"model.safetensors": dict(self.model.state_dict())}
        for name, optimizer in self.optimizers.items():
            files[f"{name}.safetensors"] = checkpoint.optimizer_tensors(optimizer)
        if best is not None:
            files["best.safetensors"] = best
        manifest = {
            "epoch": epoch,
            "step": step,
            **self._run(),
            "results": [vars(result) for result in results],
            "sums": sums.tolist(),
        }
        # Two folders in turn: the older one stays whole while the newer is written.
        checkpoint.write_tensors(
            filesystem, f"{folder}/{self.turn}", files, manifest, after_file=self.after_checkpoint_file
        )
        self.turn = 1 - self.turn

    def _run(self) -> dict[str, Any]:
        """What a checkpoint must have in common with this training."""
        return {
            "seed": self.seed,
            "world": _world(),
            "identity": self.identity,
            "phase": vars(self.phase),
            "optimizers": list(self.optimizers),
        }

    def _resume(self) -> tuple[int, int, list[EpochResult], dict[str, Tensor] | None, Tensor]:
        sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        if self.checkpoints is None:
            return 0, 0, [], None, sums
        filesystem, folder = self.checkpoints
        same = self._run()
        found = [(m, turn) for turn in (0, 1) if (m := checkpoint.read_manifest(filesystem, f"{folder}/{turn}"))]
        usable = [(m, turn) for m, turn in found if all(m.get(key) == value for key, value in same.items())]
        for manifest, turn in sorted(usable, key=lambda pair: (pair[0]["epoch"], pair[0]["step"]), reverse=True):
            try:
                tensors = {
                    name: checkpoint.read_tensors(filesystem, f"{folder}/{turn}", name, manifest)
                    for name in manifest["sha256"]
                }
            except InputError as error:
                logger.warning("a checkpoint is left alone: %s", error)
                continue
            break
        else:
            return 0, 0, [], None, sums
        self.turn = 1 - turn
        self.model.load_state_dict(tensors["model.safetensors"])
        for name, optimizer in self.optimizers.items():
            checkpoint.restore_optimizer(optimizer, tensors[f"{name}.safetensors"])
        best = tensors.get("best.safetensors")
        if _world() > 1:
            dist.barrier()
        self.report(
            {"event": "resumed", "phase": self.phase.name, "epoch": manifest["epoch"], "step": manifest["step"]}
        )
        if _rank() == 0:
            sums += torch.tensor(manifest["sums"], dtype=torch.float64, device=self.device)
        return manifest["epoch"], manifest["step"], [EpochResult(**r) for r in manifest["results"]], best, sums


def near_best(results: Sequence[EpochResult]) -> list[EpochResult]:
    """Return the epochs whose validation recall is at most a standard error below the best.

    The last of them is preferred: its learning rate had fallen furthest, and a difference within the error is no reason to
    go back (the one-standard-error rule of Breiman et al., *Classification and Regression Trees*, 1984, section 3.4.3).
    """
    best = max(results, key=lambda result: result.validation_recall or 0.0)
    least = (best.validation_recall or 0.0) - (best.validation_error or 0.0)
    return [result for result in results if (result.validation_recall or 0.0) >= least]


def schedule(step: int, total_steps: int) -> float:
    """Share of the peak learning rate at a step: linear over the first 5 %, then a cosine down to 2 %."""
    warm = max(1, total_steps // 20)
    if step < warm:
        return (step + 1) / warm
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total_steps - warm)))


def _choose_trainable(model: DeepRetrievalModel, phase: Phase) -> None:
    for part, learns in (
        (model.encoder, phase.uses_softmax),
        (model.reranker, phase.uses_softmax),
        (model.structure, phase.uses_structure),
    ):
        part.requires_grad_(learns)


def _trainable(modules: Sequence[nn.Module]) -> list[nn.Parameter]:
    return [p for module in modules for p in module.parameters() if p.requires_grad]


def _world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _local_rank() -> int:
    return _rank() % max(1, torch.cuda.device_count())


def _reduce(tensor: Tensor) -> Tensor:
    if _world() > 1:
        dist.all_reduce(tensor)
    return tensor
