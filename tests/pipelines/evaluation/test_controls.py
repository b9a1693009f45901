"""The variants that are trained beside a run, whatever its own M-step is."""

import numpy as np
import pytest

from dr_core.evaluation.evaluator import EvaluationUsers
from pipelines.evaluation.controls import Controls


@pytest.mark.parametrize("m_step", ["both", "refinement"])
def test_several_paths_an_item_take_the_m_step_that_runs_for_them(
    controls_of_every_world: list[Controls], m_step: str
) -> None:
    """Whatever the run asks for, the variant of two paths has the one that runs for them: every item keeps a path."""
    controls = next(each for each in controls_of_every_world if each.config.name == "demo")
    asked = controls.config.assignment.model_copy(update={"m_step": m_step})
    controls.config = controls.config.model_copy(update={"assignment": asked})
    history = np.arange(5)
    controls.validation = EvaluationUsers(["u"], [history], [history])
    variant = controls.other_paths(2)
    assert variant.name == "deep_retrieval_j2"
    assert variant.path_VJ.shape == (controls.num_items, 2)
    assert (variant.path_VJ[:, 0] >= 0).all()
    assert (variant.path_VJ[:, 0] != variant.path_VJ[:, 1]).all()
