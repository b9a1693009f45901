"""What is measured beside a run is measured again when the run, or the way of measuring, is another."""

from pathlib import Path

import pytest

from pipelines.config.load import validate_config
from pipelines.experiments.session import measured_identity
from pipelines.flows.day_one import Source, seed_run
from pipelines.storage.workdir import Workdir


def identity(folder: Path, logs: str = "log.csv", **sections: dict[str, object]) -> str:
    config = validate_config({"name": "tiny", "dataset": {"format": "synthetic"}} | sections, "test")
    return measured_identity(seed_run(None, config, Workdir(str(folder)), Source(logs), 0))


@pytest.mark.parametrize(
    "sections",
    [
        {"serving": {"k": 3}},
        {"serving": {"filter_history": False}},
        {"serving": {"beam": 3}},
        {"evaluation": {"k": [7]}},
        {"evaluation": {"curve_shares": [0.5]}},
        {"dataset": {"format": "synthetic", "columns": {"time": "when"}}},
        {"em": {"final_epochs": 1}},
    ],
)
def test_another_run_or_measure_is_measured_again(tmp_path: Path, sections: dict[str, dict[str, object]]) -> None:
    assert identity(tmp_path, **sections) != identity(tmp_path)


def test_another_drawing_is_not(tmp_path: Path) -> None:
    assert identity(tmp_path, "other.csv") != identity(tmp_path)
    assert identity(tmp_path, evaluation={"bootstrap": 200, "controls": False}) == identity(tmp_path)
