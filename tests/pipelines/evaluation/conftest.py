"""A small structure over an encoder that was never trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dr_core.evaluation.evaluator import EvaluationUsers
from dr_core.learning.budget import keep_structure
from dr_core.learning.states import States
from dr_core.model.encoder import EncoderConfig
from dr_core.model.objective import DeepRetrievalModel
from dr_core.model.reranker import RerankerConfig
from dr_core.model.structure_config import StructureConfig
from dr_core.paths.kmeans_tree import random_paths
from dr_core.paths.space import PathSpace
from pipelines.config.load import load_config
from pipelines.evaluation.controls import Controls

NUM_ITEMS, SPACE = 30, PathSpace.even(4, 2)
WORLDS = sorted((Path(__file__).parents[3] / "conf").glob("*.yaml"))


@pytest.fixture
def controls_of_every_world() -> list[Controls]:
    """What every configuration in conf/ would train beside a run."""
    torch.manual_seed(0)
    model = DeepRetrievalModel(
        EncoderConfig(dim=8, embedding_rows=NUM_ITEMS), StructureConfig(hidden=16, path_dim=4), RerankerConfig(), SPACE,
        np.ones(NUM_ITEMS),
    )  # fmt: skip
    states = States(torch.randn(5, 8), torch.zeros(5, 1, dtype=torch.int64), torch.ones(5, 1))
    configs = [load_config(world) for world in WORLDS]
    return [
        Controls(
            config, model, states, keep_structure(config, NUM_ITEMS, config.paths.paths_per_item, SPACE, 10.0), None,
            random_paths(NUM_ITEMS, config.paths.paths_per_item, SPACE, 0),
            EvaluationUsers([], [], []), seed=0,
        )
        for config in configs
    ]  # fmt: skip
