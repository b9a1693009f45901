"""The warm-up knows nothing of paths."""

import numpy as np
import pytest
import torch

from dr_core.learning.config import LearningConfig
from dr_core.learning.warm_up import new_model, path_free_space, with_paths
from dr_core.paths.space import PathSpace


@pytest.mark.parametrize("normaliser", ["global", "layers"])
@pytest.mark.parametrize("num_layers", [2, 3])
def test_paths_are_added_to_what_was_learned_without_them(normaliser: str, num_layers: int) -> None:
    config = LearningConfig.model_validate(
        {"encoder": {"dim": 8}, "structure": {"normaliser": normaliser}, "paths": {"num_layers": num_layers}, "seed": 4}
    )
    counts, space = np.arange(30.0), PathSpace.even(5, num_layers)
    warm = new_model(config, path_free_space(config), counts)
    with torch.no_grad():
        for parameter in warm.parameters():
            parameter += 1.0
    model, fresh = with_paths(config, warm, space, counts), new_model(config, space, counts)
    assert model.space == space
    for part, source in (("encoder", warm), ("reranker", warm), ("structure", fresh)):
        wanted = getattr(source, part).state_dict()
        found = getattr(model, part).state_dict()
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
