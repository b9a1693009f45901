"""What a sweep and a comparison report when they are measured on fewer seeds than the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from dr_core.errors import ConfigError
from pipelines.config.load import load_config, validate_config
from pipelines.config.run import RunConfig
from pipelines.evaluation.learned_run import LearnedRun
from pipelines.evaluation.recorded import SWEEP_STAGE, sweep_rows
from pipelines.experiments.session import seeds_to_report
from pipelines.experiments.studies import OVERRIDES, STUDIES, RunFacts, changed
from pipelines.experiments.sweep import studies_of
from pipelines.flows.day_one import Source, seed_run
from pipelines.storage.run_record import Run
from pipelines.storage.workdir import Workdir

CONFIG = load_config(Path(__file__).parents[3] / "conf" / "demo.yaml")


def runs_with(tmp_path: Path, measured: list[dict[str, float]]) -> list[LearnedRun]:
    runs = []
    for number, points in enumerate(measured):
        workdir = Workdir(str(tmp_path / str(number)))
        run = Run(workdir, "r", "hash")
        for name, overlap in points.items():
            run.stage(SWEEP_STAGE + name, lambda overlap=overlap: {"rows_in": 1, "rows_out": 1, "overlap": overlap})
        runs.append(LearnedRun(cast(Any, None), CONFIG, workdir, run, number))
    return runs


def test_a_point_is_the_mean_of_the_seeds_that_have_it(tmp_path: Path) -> None:
    runs = runs_with(tmp_path, [{"nodes=9": 0.5, "nodes=16": 0.7}, {"nodes=9": 0.6, "nodes=25": 0.9}, {}])
    rows = {row["value"]: row for row in sweep_rows(runs)}
    assert (rows["9"]["seeds"], rows["9"]["overlap"]) == (2, pytest.approx(0.55))
    assert rows["9"]["overlap_sd"] == pytest.approx(0.1 / 2**0.5)
    assert (rows["16"]["seeds"], rows["16"]["overlap"]) == (1, 0.7)
    assert "overlap_sd" not in rows["16"]
    assert (rows["25"]["seeds"], rows["25"]["overlap"]) == (1, 0.9)


def test_a_figure_that_a_seed_lacks_is_left_out(tmp_path: Path) -> None:
    (row,) = sweep_rows(runs_with(tmp_path, [{"beam=1": float("nan")}, {"beam=1": 0.5}]))
    assert "overlap" not in row
    assert row["seeds"] == 2


@pytest.mark.parametrize(("asked", "reported"), [(1, 3), (3, 3), (4, 4)])
def test_all_seeds_of_the_run_stay_in_the_report(tmp_path: Path, asked: int, reported: int) -> None:
    workdir, source = Workdir(str(tmp_path)), Source("logs")
    assert seeds_to_report(CONFIG, workdir, source, asked) == asked
    first = seed_run(None, CONFIG, workdir, source, 0)
    first.run.record["seeds"] = 3
    first.run.finish("done", 0)
    assert seeds_to_report(CONFIG, workdir, source, asked) == reported
    assert seeds_to_report(CONFIG, workdir, Source("other logs"), asked) == asked


def test_unknown_studies_are_named() -> None:
    assert studies_of([]) == list(STUDIES)
    assert studies_of(["nodes"]) == ["nodes"]
    with pytest.raises(ConfigError, match="--studies luck: not a study; choose from beam, nodes"):
        studies_of(["nodes", "luck"])


FACTS = RunFacts(
    rounds=2, final_epochs=3, kept_epochs=2, nodes=(20, 20), candidates=80, beam=8, alpha=0.5, refines=True
)


def varied(study: str, value: Any) -> tuple[RunConfig, int]:
    overrides, rounds = OVERRIDES[study](FACTS, value)
    return changed(CONFIG, overrides), rounds


def test_studies_choose_their_values_around_those_of_the_run() -> None:
    assert STUDIES["nodes"](FACTS) == [10, 15, 20, 30, 40]
    assert STUDIES["beam"](FACTS) == [2, 4, 8, 16, 32]


@pytest.mark.parametrize("paths", [{}, {"nodes": [40, 8]}, {"num_nodes": 20}])
def test_every_value_of_every_study_is_a_configuration(paths: dict[str, Any]) -> None:
    config = validate_config(CONFIG.model_dump(mode="json") | {"paths": paths}, "test")
    for study in OVERRIDES:
        for value in STUDIES[study](FACTS):
            changed(config, OVERRIDES[study](FACTS, value)[0])


def test_layers_of_different_sizes_are_varied_in_proportion() -> None:
    facts = replace(FACTS, nodes=(40, 8))
    assert STUDIES["nodes"](facts) == [20, 30, 40, 60, 80]
    shapes = [changed(CONFIG, OVERRIDES["nodes"](facts, value)[0]).paths.nodes for value in STUDIES["nodes"](facts)]
    assert shapes == [(20, 4), (30, 6), (40, 8), (60, 12), (80, 16)]
    assert changed(CONFIG, OVERRIDES["mean_path"](facts, 2)[0]).paths.nodes == (40, 8)
    three = changed(changed(CONFIG, {"paths.nodes": [40, 8]}), OVERRIDES["layers"](facts, 3)[0]).paths
    assert (three.nodes, three.num_nodes, three.num_layers) == (None, "auto", 3)


def test_fewer_rounds_train_as_long_as_more() -> None:
    def epochs(config: RunConfig, rounds: int) -> int:
        return rounds * FACTS.kept_epochs + config.em.final_epochs

    assert {epochs(*varied("rounds", rounds)) for rounds in (0, 1, 2, 4)} == {4 * 2 + 3}
    assert {epochs(*varied("random_start", rounds)) for rounds in (1, 2, 4, 8)} == {8 * 2 + 3}


def test_alpha_is_a_multiple_of_the_runs() -> None:
    config, rounds = varied("alpha", 10)
    assert (config.penalty.alpha, config.paths.nodes, config.assignment.m_step, rounds) == (
        5.0,
        (20, 20),
        "descent",
        2,
    )
    with pytest.raises(ConfigError, match="alpha"):
        OVERRIDES["alpha"](RunFacts(**{**vars(FACTS), "alpha": None}), 10)
