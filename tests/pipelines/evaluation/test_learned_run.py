"""What a record says of a run's structure."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from dr_core.errors import DeepRetrievalError
from dr_core.learning.budget import choose_structure
from dr_core.paths.length import CostGrowth
from dr_core.paths.space import PathSpace
from pipelines.config.load import validate_config
from pipelines.config.run import RunConfig
from pipelines.evaluation.learned_run import LearnedRun
from pipelines.flows.refreshed_run import RefreshedRun
from pipelines.storage.json_text import to_json
from pipelines.storage.run_record import Run
from pipelines.storage.workdir import Workdir
from tests.made_up_release import RELEASE

NUM_ITEMS = 40_000
GROWTH = CostGrowth(1000.0, 400.0, 300.0, 0.3, 0.8, (500, 2000))


def config_of(**budget: object) -> RunConfig:
    return validate_config({"name": "w", "dataset": {"format": "synthetic"}, "budget": budget}, "test")


def run_with(folder: Path, config: RunConfig, chosen: dict[str, Any] | None) -> LearnedRun:
    run = Run(Workdir(str(folder)), "r", "hash")
    run.stage("preprocess", lambda: {"catalogue_items": NUM_ITEMS})
    if chosen is not None:
        run.stage("choose", lambda: json.loads(to_json(chosen)))
    return LearnedRun(cast(Any, None), config, run.workdir, run, 0)


def test_a_run_has_no_paths_before_they_are_chosen(tmp_path: Path) -> None:
    with pytest.raises(DeepRetrievalError, match="stage choose of r has not run"):
        _ = run_with(tmp_path, config_of(), None).space


def test_what_was_chosen_and_measured_is_read_back(tmp_path: Path) -> None:
    config = config_of(recall=0.9)
    choice = choose_structure(config, NUM_ITEMS, 1, GROWTH)
    run = run_with(tmp_path, config, {**choice.as_dict(), "growth": vars(GROWTH)})
    assert run.choice == choice
    assert run.growth == GROWTH


def test_a_record_of_k_and_d_alone_is_read_as_even_layers(tmp_path: Path) -> None:
    older = {"K": 21, "D": 3, "items_per_visited_path": 9.5, "reasons": ["K=21: as configured"]}
    run = run_with(tmp_path, config_of(candidates=70), older)
    assert run.space == PathSpace.even(21, 3)
    assert (run.choice.candidates, run.choice.items_per_visited_path) == (70, 9.5)
    assert run.growth is None


@pytest.mark.parametrize("refreshes_between", [0, 2])
def test_a_refresh_keeps_the_paths_and_the_candidates_that_day_one_chose(
    tmp_path: Path, refreshes_between: int
) -> None:
    config, workdir = config_of(recall=0.9), Workdir(str(tmp_path))
    chosen = choose_structure(config, NUM_ITEMS, 1, GROWTH)
    base = run_with(tmp_path, config, chosen.as_dict()).version_id(2)
    for number in range(refreshes_between):
        between = Run(workdir, f"refresh{number}", "hash")
        between.record |= {"parent": base}
        between.save()
        base = f"refresh{number}-1"
    run = Run(workdir, "today", "hash")
    run.record |= {"parent": base}
    run.stage("ingest", lambda: {"catalogue_items": NUM_ITEMS + 5000})
    refreshed = RefreshedRun(cast(Any, None), config, workdir, run, 0)
    live = replace(RELEASE, release_id=base, nodes=list(chosen.space.nodes), K=chosen.space.nodes[0])
    vars(refreshed)["parent_release"] = live  # as the table of releases would say
    assert refreshed.choice.space == chosen.space
    assert refreshed.choice.candidates == chosen.candidates
    assert refreshed.choice.num_items == NUM_ITEMS + 5000
