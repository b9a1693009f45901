"""What a sweep's report keeps when its points are measured on fewer seeds than the run."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipelines.config.load import load_config
from pipelines.evaluation.measurement import SWEEP_STAGE, sweep_rows
from pipelines.experiments.sweep import sweep
from pipelines.flows.day_one import days_of, seeds_run
from pipelines.storage.run_record import Run
from pipelines.storage.workdir import Workdir

CONFIG = str(Path(__file__).parents[3] / "conf" / "demo.yaml")


def test_a_point_is_the_mean_of_the_seeds_that_have_it(tmp_path: Path) -> None:
    measured = [{"nodes=9": 0.5, "nodes=16": 0.7}, {"nodes=9": 0.6}, {}]
    days = []
    for number, points in enumerate(measured):
        run = Run(Workdir(str(tmp_path / str(number))), "r", "hash")
        for name, overlap in points.items():
            run.stage(SWEEP_STAGE + name, lambda overlap=overlap: {"rows_in": 1, "rows_out": 1, "overlap": overlap})
        days.append(SimpleNamespace(run=run))
    rows = {row["value"]: row for row in sweep_rows(cast(Any, days))}
    assert (rows["9"]["seeds"], rows["9"]["overlap"]) == (2, pytest.approx(0.55))
    assert rows["9"]["overlap_sd"] == pytest.approx(0.1 / 2**0.5)
    assert (rows["16"]["seeds"], rows["16"]["overlap"]) == (1, 0.7)
    assert "overlap_sd" not in rows["16"]


def test_the_seeds_of_the_run_are_known_from_its_record(tmp_path: Path) -> None:
    config, workdir = load_config(CONFIG), Workdir(str(tmp_path))
    assert seeds_run(config, workdir, "logs", None) == 0
    first = days_of(cast(Any, None), config, workdir, "logs", None, 3)[0]
    first.run.record["seeds"] = 3
    first.run.finish("done", 0)
    assert seeds_run(config, workdir, "logs", None) == 3
    assert seeds_run(config, workdir, "other logs", None) == 0


@pytest.mark.parametrize(("asked", "reported"), [(1, 3), (3, 3), (4, 4)])
def test_a_sweep_reports_all_seeds_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int, reported: int
) -> None:
    class Begun(Exception):
        """Day one was asked for."""

    def begin(*_: Any, num_seeds: int, **__: Any) -> None:
        raise Begun(num_seeds)

    config = load_config(CONFIG)
    first = days_of(cast(Any, None), config, Workdir(str(tmp_path)), "logs", None, 1)[0]
    first.run.record["seeds"] = 3
    first.run.finish("done", 0)
    monkeypatch.setattr("pipelines.experiments.sweep.run_day_one", begin)
    with pytest.raises(Begun) as begun:
        sweep(config, str(tmp_path), logs="logs", studies=["beam"], num_seeds=asked)
    assert begun.value.args == (reported,)
