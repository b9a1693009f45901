"""JSON without NaN, at any depth."""

import json
from typing import Any

import numpy as np
import pytest

from pipelines.storage.json_text import to_json
from pipelines.storage.run_record import Run
from pipelines.storage.workdir import Workdir


def refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is not JSON")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), None),
        ([1.5, float("inf"), (np.float32("nan"), np.int64(3))], [1.5, None, [None, 3]]),
        ({"a": {"b": -np.inf, "c": np.float64(0.25)}, "d": np.bool_(True)}, {"a": {"b": None, "c": 0.25}, "d": True}),
        ("é – NaN", "é – NaN"),
    ],
)
def test_what_is_not_finite_becomes_null(value: Any, expected: Any) -> None:
    assert json.loads(to_json(value), parse_constant=refuse) == expected


def test_what_is_not_json_at_all_is_refused() -> None:
    with pytest.raises(TypeError):
        to_json({"a": object()})


def test_a_stage_whose_figure_is_not_defined_leaves_a_record_that_is_json(tmp_path: Any) -> None:
    run = Run(Workdir(str(tmp_path)), "r", "hash")
    assert run.stage("sweep_beam=1", lambda: {"rows_in": 0, "rows_out": 1, "overlap": float("nan")})["overlap"] is None
    text = (tmp_path / "runs" / "r.json").read_text()
    assert json.loads(text, parse_constant=refuse)["stages"][0]["result"]["overlap"] is None
