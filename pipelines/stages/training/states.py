"""A sample of the user states that a samples table holds. Legend: N states, E user dimension."""

from __future__ import annotations

import torch
from torch import Tensor

from dr_core.learning.start import SPREAD, spread
from dr_core.model.objective import DeepRetrievalModel, batch_from_arrays
from pipelines.stages.blocks import encode_batch
from pipelines.stages.training.petastorm import read_files
from pipelines.storage.workdir import Workdir


def sample_states(workdir: Workdir, samples: str, model: DeepRetrievalModel, num_states: int) -> Tensor:
    """Return up to ``num_states`` user states [N, E] of the samples, read file by file in their order (that of a hash)."""
    states: list[Tensor] = []
    for columns in read_files(workdir.filesystem, workdir.table(samples)):
        states.append(encode_batch(model, batch_from_arrays(columns))[0])
        if sum(len(part) for part in states) >= SPREAD * num_states:
            break
    return spread(torch.cat(states), num_states)
