"""Where a refresh takes up a run that was begun before."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from pyspark.sql import SparkSession

from dr_core.errors import ConfigError
from pipelines.config.run import RunConfig
from pipelines.flows import refresh
from pipelines.flows.refresh import SAMPLES_OWNER
from pipelines.flows.refreshed_run import RefreshedRun
from pipelines.stages.ingest.interval import Interval
from pipelines.storage.publish import promote, publish
from pipelines.storage.run_record import Run
from pipelines.storage.workdir import Workdir
from tests.made_up_release import RELEASE as MADE_UP

FIRST = MADE_UP
CONFIG = RunConfig.model_validate({"name": "w", "dataset": {"format": "synthetic"}})
DAY = Interval.parse("2024-01-02", "2024-01-03")


def test_stages_done_before_count_as_long_as_nothing_they_rest_on_has_changed(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One folder, step by step: Delta commits are what this test spends its time on."""
    monkeypatch.setattr(refresh, "_refuse_other_structure", lambda run, live: None)
    workdir = Workdir(str(tmp_path))
    publish(spark, workdir, FIRST)

    def begun(config: RunConfig = CONFIG, interval: Interval = DAY, **changes: object) -> list[str]:
        """The stages that still count when a run of two stages, with a changed record, begins again."""
        stages = [{"name": name} for name in ("ingest", "samples")]
        record = {"status": "failed", "parent": "a-1", "interval": DAY.label, "config_hash": CONFIG.identity()}
        text = json.dumps({"run_id": "r", "stages": stages} | record | changes)
        workdir.write_text(text, "runs", "r.json")
        run = Run(workdir, "r", config.identity())
        refresh.begin(RefreshedRun(spark, config, workdir, run, 0, interval=interval.label))
        return [stage["name"] for stage in run.record["stages"]]

    workdir.write_text("r", "runs", SAMPLES_OWNER)
    assert begun() == ["ingest", "samples"]
    assert begun(status="refused") == []
    assert begun(CONFIG.model_copy(update={"seed": 7})) == []
    workdir.write_text("another", "runs", SAMPLES_OWNER)
    assert begun() == []
    assert begun(stages=[{"name": "ingest"}]) == ["ingest"]
    workdir.write_text("r", "runs", SAMPLES_OWNER)
    with pytest.raises(ConfigError, match="give this interval another --run-id"):
        begun(interval=Interval.parse("2024-01-03", "2024-01-04"))

    publish(spark, workdir, replace(FIRST, release_id="b-1", parent_release="a-1"))
    assert begun() == []
    promote(spark, workdir, "a-1")
    assert begun() == ["ingest", "samples"]


@pytest.mark.parametrize(
    ("paths", "nodes", "named"),
    [
        ({}, [512, 32], None),
        ({"nodes": [512, 32]}, [512, 32], None),
        ({"nodes": [512, 16]}, [512, 32], r"paths.nodes: .* says \[512, 16\], .* built with \[512, 32\]"),
        ({"num_nodes": 512}, [512, 32], r"paths.num_nodes: .* says 512, .* built with \[512, 32\]"),
        ({"nodes": [8, 4, 2]}, [512, 32], "paths.num_layers: .* says 3, .* built with 2"),
        ({"num_nodes": 10}, None, None),
        ({"nodes": [10, 10]}, None, None),
        ({"nodes": [10, 9]}, None, r"paths.nodes: .* built with \[10, 10\]"),
        ({"num_nodes": 9}, None, "paths.num_nodes: .* says 9, .* built with 10"),
    ],
)
def test_a_refresh_keeps_the_nodes_of_each_layer(
    paths: dict[str, object], nodes: list[int] | None, named: str | None, tmp_path: Path
) -> None:
    workdir = Workdir(str(tmp_path))
    config = RunConfig.model_validate(CONFIG.model_dump(mode="json") | {"paths": paths})
    encoder = config.encoder.model_dump(mode="json")
    workdir.write_text(json.dumps({"encoder": encoder}), "models", FIRST.release_id, "manifest.json")
    live = replace(FIRST, nodes=nodes, K=nodes[0] if nodes else 10)
    run = RefreshedRun(cast(SparkSession, None), config, workdir, Run(workdir, "r", config.identity()), 0)
    with nullcontext() if named is None else pytest.raises(ConfigError, match=named):
        refresh._refuse_other_structure(run, live)
