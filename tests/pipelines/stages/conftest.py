"""A work folder in the middle of an EM round: samples, a model, and the mapping it was trained on."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from dr_core.learning.checkpoint import save_model
from dr_core.model.objective import DeepRetrievalModel
from pipelines.stages.structure.scores import FrozenModel
from pipelines.storage.workdir import Workdir

NUM_ITEMS, NUM_NODES, NUM_PATHS = 30, 5, 2


@dataclass(frozen=True)
class World:
    """Everything a stage reads, and the same in memory for its oracle."""

    workdir: Workdir
    columns: dict[str, np.ndarray]
    model: DeepRetrievalModel
    path_VJ: np.ndarray
    frozen: FrozenModel


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory,
    make_model: Callable[..., DeepRetrievalModel],
    write_samples: Callable[..., dict[str, np.ndarray]],
) -> World:
    workdir = Workdir(str(tmp_path_factory.mktemp("world")))
    columns = write_samples(workdir.table("samples"), num_rows=64, num_items=NUM_ITEMS)
    model = make_model(NUM_ITEMS, NUM_NODES, 2, num_paths=NUM_PATHS)
    save_model(model, workdir.filesystem, workdir.path("models", "m"))
    path_VJ = model.placement.path_VJ.numpy()
    workdir.write_array(path_VJ, "models", "m", "item_paths.npy")
    return World(workdir, columns, model, path_VJ, FrozenModel.of(workdir, "m"))
