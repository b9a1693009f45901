"""What ``dr doctor`` sees, and what it says when something is missing."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from dr_core.errors import ConfigError
from pipelines.cli import doctor
from pipelines.config.load import load_config, validate_config
from pipelines.config.run import RunConfig
from pipelines.spark.environment import java_major

WORLD = "name: w\ndataset: {format: synthetic, synthetic: {num_items: 400}}\nbudget: {candidates: 40, beam: 4}\n"


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "w.yaml"
    file.write_text(WORLD)
    return str(file)


TWO_PATHS = ["paths.paths_per_item=2", "structure.normaliser=layers"]


def world(**more: object) -> RunConfig:
    return validate_config({"name": "w", "dataset": {"format": "parquet"}, **more}, "test")


def test_a_machine_that_passes_the_tests_is_healthy(config: str, spark: SparkSession) -> None:
    checks = {check.name: check for check in doctor.examine(config, overrides=["training.num_processes=1"])}
    assert {"python", "java", "pyarrow", "disk", "cores", "memory", "device", "spark", "structure"} <= set(checks)
    assert [check for check in checks.values() if not check.ok and check.name not in ("disk", "memory")] == []
    assert "local[2]" in checks["spark"].found
    assert spark.range(1).count() == 1, "a session that was there before stays"


def test_the_structure_is_explained_line_by_line(config: str) -> None:
    lines = doctor.check_structure(load_config(config, TWO_PATHS), None).found.splitlines()
    assert lines[0] == "K=13, D=2, J=2 for 400 items"
    assert lines[1].startswith("budget: 40 candidates with a beam of 4")
    assert lines[-1].startswith("alpha starts from 0.006 x mean events an item")
    assert doctor.check_structure(load_config(config, TWO_PATHS), 4000).found.startswith("K=40")


def test_layers_of_different_sizes_are_named() -> None:
    lines = doctor.check_structure(world(paths={"nodes": [16, 4]}), 400).found.splitlines()
    assert lines[0] == "16 x 4 nodes, J=1 for 400 items"
    assert "16 x 4 nodes: as configured" in lines


@pytest.mark.parametrize("cost", [1, 200])
def test_a_number_of_paths_that_a_run_will_measure_is_an_estimate(config: str, cost: int) -> None:
    found = doctor.check_structure(load_config(config, [f"budget.candidate_cost={cost}"]), 50_000).found
    assert f"a candidate costs {cost} nodes" in found
    assert "not measured" in found
    assert "an estimate: after its warm-up a run measures" in found
    given = doctor.check_structure(load_config(config, ["paths.nodes=[40, 16]"]), 50_000).found
    assert "estimate" not in given


def test_a_recall_in_the_place_of_candidates_is_explained(config: str) -> None:
    load = ["budget.candidates=null", "budget.recall=0.9"]
    assert "90 % of the softmax's best 10 items" in doctor.check_structure(load_config(config, load), 50_000).found
    with pytest.raises(ConfigError, match="candidates and recall both say"):
        load_config(config, ["budget.recall=0.9"])


def test_without_a_number_of_items_the_structure_asks_for_it() -> None:
    check = doctor.check_structure(world(), None)
    assert check.ok
    assert "--items V" in check.found


def test_a_structure_with_more_paths_than_an_int64_holds_is_not_ok() -> None:
    check = doctor.check_structure(world(paths={"num_nodes": 1000, "num_layers": 8}), 100)
    assert not check.ok
    assert "paths.num_layers" in check.mend


@pytest.mark.parametrize(
    ("line", "major"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_392"', 8),
        ('openjdk version "21" 2023-09-19', 21),
        ("nothing of the kind", None),
    ],
)
def test_java_versions_are_told_apart(line: str, major: int | None) -> None:
    assert java_major(line) == major


def test_without_java_spark_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    checks = {check.name: check for check in doctor.examine()}
    assert not checks["java"].ok
    assert "install a Java 17" in checks["java"].mend
    assert not checks["spark"].ok


def test_a_session_that_does_not_start_is_a_finding_not_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **settings: object) -> None:
        raise ConfigError("Spark did not start")

    monkeypatch.setattr("pipelines.spark.session.build_session", fail)
    monkeypatch.setattr("pipelines.spark.session.delta_jars", list)
    check = doctor.check_spark(None)
    assert (check.ok, check.found) == (False, "ConfigError: Spark did not start")
    assert "conf/spark/local.conf" in check.mend


def test_more_ranks_than_cores_are_not_ok() -> None:
    check = doctor.check_cores(world(training={"num_processes": 10_000}))
    assert not check.ok
    assert check.mend.startswith("--set training.num_processes=")


def test_a_wrong_configuration_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        doctor.examine(str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match="--config"):
        doctor.examine(None, 100)
