"""Train the same tiny model in one process or in several; started by ``test_trainer.py``.

Usage: ``python two_ranks.py FOLDER RANK WORLD dense|sparse``. Every rank writes ``rank<r>.pt`` (parameters), ``rank<r>.json``
(losses of each epoch) and the same of a training that was killed and resumed, ``resumed<r>``. All worlds see the same
rows a step: a rank takes its share of them.
"""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import torch
import torch.distributed as dist

from dr_core.learning.trainer import Phase, Trainer, TrainingConfig, Validation
from dr_core.model.encoder import EncoderConfig
from dr_core.model.objective import Batch, DeepRetrievalModel
from dr_core.model.reranker import RerankerConfig
from dr_core.model.structure_config import StructureConfig
from dr_core.paths.space import PathSpace

NUM_ITEMS, STEPS, ROWS, EPOCHS = 40, 5, 24, 3
CLIP_NORM = 0.4  # clips some steps and not others, so that the scale of the gradient matters


class ShardedSource:
    """Steps of the same rows in every world; ranks get unequal shares of them, of unequal weights."""

    steps_per_epoch = STEPS

    def __init__(self, rank: int, world: int) -> None:
        bounds = np.r_[0, ROWS // 3, ROWS] if world == 2 else np.r_[0, ROWS]
        self.share = slice(int(bounds[rank]), int(bounds[rank + 1]))

    def batches(self, epoch: int, first_step: int) -> Iterator[Batch]:
        for step in range(first_step, STEPS):
            whole = rows(epoch * STEPS + step)
            yield Batch(*(value if value is None else value[self.share] for value in vars(whole).values()))


def rows(seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    history = rng.integers(0, NUM_ITEMS, (ROWS, 4))
    targets = (history[:, -1:, None] + [1, 2]) % NUM_ITEMS
    weights = rng.uniform(0.2, 3.0, targets.shape).astype(np.float32)
    positions = np.full((ROWS, 1), 3)
    return Batch(*(torch.from_numpy(array) for array in (history, positions, targets, weights)))


def main(folder: Path, rank: int, world: int, tables: str = "dense") -> None:
    """Train as one rank of ``world`` and write what came of it."""
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    try:
        train(ShardedSource(rank, world), folder / f"rank{rank}", tables)
        checkpoints = (fsspec.filesystem("file"), str(folder / "checkpoints"))
        with contextlib.suppress(InterruptedError):
            train(ShardedSource(rank, world), folder / "killed", tables, checkpoints=checkpoints, crash_at=9)
        train(ShardedSource(rank, world), folder / f"resumed{rank}", tables, checkpoints=checkpoints)
    finally:
        if world > 1:
            dist.destroy_process_group()


def train(source: ShardedSource, name: Path, tables: str, **more: Any) -> None:
    """Train the model from its start and write its parameters, losses and validation recall."""
    torch.manual_seed(0)
    model = DeepRetrievalModel(
        EncoderConfig(dim=8, dropout=0.0),
        StructureConfig(hidden=8, path_dim=4),
        RerankerConfig() if tables == "dense" else RerankerConfig(loss="sampled", num_negatives=8),
        PathSpace.even(4, 2),
        np.ones(NUM_ITEMS),
    )
    model.set_item_paths(np.random.default_rng(0).permuted(np.tile(np.arange(16), (NUM_ITEMS, 1)), axis=1)[:, :2])
    config = TrainingConfig(
        learning_rate=0.02, structure_learning_rate=0.02, checkpoint_every=2, clip_norm=CLIP_NORM, sparse_rows=1
    )
    phase = Phase("joint", "joint", EPOCHS)
    users = rows(999) if tables == "dense" else rows(999).share(0, ROWS)  # one user: the second rank has none
    results = Trainer(model, source, phase, config, seed=0, validation=Validation(users, 3, False), **more).run()
    torch.save(dict(model.state_dict()), name.with_suffix(".pt"))
    figures = [
        [r.loss_structure, r.loss_softmax, r.validation_loss, r.validation_recall, r.validation_error] for r in results
    ]
    name.with_suffix(".json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
