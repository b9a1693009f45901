"""What retention keeps, and that deleting the rest never touches it."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from dr_core.errors import InputError
from dr_core.learning.checkpoint import load_model, save_model
from pipelines.config.run import RunConfig
from pipelines.flows.retention import RELEASE_TABLES, kept_releases, maintain
from pipelines.storage.delta_reader import read_rows
from pipelines.storage.publish import promote, publish
from pipelines.storage.releases import Release, list_releases
from pipelines.storage.run_record import Run
from pipelines.storage.schemas import SCHEMAS
from pipelines.storage.workdir import Workdir, small_frame
from tests.made_up_release import RELEASE as MADE_UP

DAY_ONE = replace(MADE_UP, release_id="r-0", model_uri="models/r-0", K=4, num_items=6)
STATUSES = ("retired", "refused", "candidate", "deleted")


def day(number: int, **changes: object) -> Release:
    return replace(
        DAY_ONE,
        **{
            "release_id": f"r-{number}",
            "parent_release": f"r-{number - 1}" if number else None,
            "created_at": datetime(2024, 1, 2) + timedelta(days=number),
            **changes,
        },
    )


@st.composite
def histories(draw: st.DrawFn) -> list[Release]:
    """Releases of which at most one is live, in any order; the live one's parent may have been refused or deleted."""
    statuses = draw(st.lists(st.sampled_from(STATUSES), min_size=1, max_size=12))
    live = draw(st.none() | st.integers(0, len(statuses) - 1))
    rows = [day(number, status="live" if number == live else status) for number, status in enumerate(statuses)]
    return draw(st.permutations(rows))


@given(histories(), st.integers(0, 8))
def test_the_live_release_its_parent_and_the_newest_are_kept(rows: list[Release], keep: int) -> None:
    kept = kept_releases(rows, keep)
    names = {row.release_id for row in kept}
    live = next((row for row in rows if row.status == "live"), None)
    pinned = {live.release_id, live.parent_release} if live else set()
    standing = {row.release_id for row in rows if row.status != "deleted"}
    assert pinned & standing <= names <= standing, "nothing that is gone is kept, and what serves never goes"
    others = sorted(row.created_at for row in rows if row.release_id in standing - pinned)
    assert (
        sorted(row.created_at for row in kept if row.release_id not in pinned) == others[max(len(others) - keep, 0) :]
    )
    assert names <= {row.release_id for row in kept_releases(rows, keep + 1)}


def test_a_kept_release_is_untouched_by_deletion_and_vacuum(
    spark: SparkSession, make_model: Callable[..., object], tmp_path: Path
) -> None:
    workdir = Workdir(str(tmp_path))
    config = RunConfig.model_validate(
        {"name": "w", "dataset": {"format": "synthetic"}, "refresh": {"keep_releases": 1}}
    )
    for number in range(5):
        publish(spark, workdir, day(number))
        model = make_model(num_items=6, num_paths=1, seed=number)
        save_model(model, workdir.filesystem, workdir.path("models", f"r-{number}"))
    rows = [(f"r-{number}", item, 0, item % 3 + number, 0.5) for number in range(5) for item in range(6)]
    workdir.write(small_frame(spark, rows, SCHEMAS["item_paths"]), "item_paths")

    def state(name: str) -> tuple[list[str], list[np.ndarray]]:
        paths = sorted(map(str, read_rows(workdir.table("item_paths"), f"WHERE release_id = '{name}'")))
        parameters = load_model(workdir.filesystem, workdir.path("models", name)).state_dict().values()
        return paths, [value.numpy() for value in parameters]

    before = {name: state(name) for name in ("r-2", "r-3", "r-4")}
    done = maintain(spark, workdir, config, vacuum_hours=0.0)
    assert (done["kept"], done["deleted"]) == (["r-2", "r-3", "r-4"], ["r-1", "r-0"])
    assert done["models_removed"] == ["r-0", "r-1"]
    for name, (paths, parameters) in before.items():
        assert state(name)[0] == paths
        assert all(np.array_equal(new, old) for new, old in zip(state(name)[1], parameters, strict=True))
    assert versions(workdir) == set(before)
    folders = {path.name.removeprefix("release_id=") for path in (tmp_path / "tables" / "item_paths").glob("release_id=*")
               if any(path.glob("*.parquet"))}  # fmt: skip
    assert folders == set(before), "VACUUM removed the files"
    assert {row.status for row in list_releases(workdir) if row.release_id in ("r-0", "r-1")} == {"deleted"}
    with pytest.raises(InputError, match="deleted by maintenance"):
        promote(spark, workdir, "r-0")
    assert "item_paths" in RELEASE_TABLES


def write_versions(spark: SparkSession, workdir: Workdir, make_model: Callable[..., object], names: list[str]) -> None:
    """What rounds leave: a model each, the small files beside it, rows of a table."""
    for name in names:
        save_model(make_model(num_items=6, num_paths=1), workdir.filesystem, workdir.path("models", name))
        for file in ("item_paths.npy", "counts.npy"):
            workdir.write_array(np.arange(6), "models", name, file)
        workdir.write_array(np.arange(6), "models", name, "index", "path_ids.npy")
    rows = [(name, 0, 0, 1, 0.5) for name in names]
    workdir.write(small_frame(spark, rows, SCHEMAS["item_paths"]), "item_paths")


def config_without_spares() -> RunConfig:
    """Keep what serves alone."""
    config = RunConfig.model_validate({"name": "w", "dataset": {"format": "synthetic"}})
    return config.model_copy(update={"refresh": config.refresh.model_copy(update={"keep_releases": 0})})


def versions(workdir: Workdir) -> set[str]:
    return {row["release_id"] for row in read_rows(workdir.table("item_paths"))}


def test_what_measuring_reads_of_a_kept_run_stays(
    spark: SparkSession, make_model: Callable[..., object], tmp_path: Path
) -> None:
    """Mappings and counts of every round, and the samples; models and indexes of rounds go, and all of other runs."""
    workdir = Workdir(str(tmp_path))
    write_versions(spark, workdir, make_model, ["r-0", "r-1", "r-warm", "r-2", "q-0", "q-1"])
    workdir.write_text("rows", "tables", "samples", "part-0.parquet")
    first = day(1, release_id="q-1", status="retired", parent_release=None)
    for release in (first, day(2, release_id="r-2", parent_release=None)):
        publish(spark, workdir, release)
    for _ in range(2):
        done = maintain(spark, workdir, config_without_spares(), vacuum_hours=0.0)
        assert done["kept"] == ["r-2"]
    assert done["models_removed"] == done["models_reduced"] == [], "the second time nothing is left to do"
    assert workdir.names("models") == ["r-0", "r-1", "r-2", "r-warm"]
    for name in ("r-0", "r-1"):
        assert workdir.names("models", name) == ["counts.npy", "item_paths.npy"]
        np.testing.assert_array_equal(workdir.read_array("models", name, "item_paths.npy"), np.arange(6))
    for name in ("r-2", "r-warm"):
        load_model(workdir.filesystem, workdir.path("models", name))
    assert workdir.names("models", "r-2", "index") == ["path_ids.npy"]
    assert workdir.read_text("tables", "samples", "part-0.parquet") == "rows"
    for read in (
        lambda: workdir.read_array("models", "q-1", "item_paths.npy"),
        lambda: load_model(workdir.filesystem, workdir.path("models", "r-1")),
    ):
        with pytest.raises(InputError):
            read()


def test_versions_of_a_run_that_may_go_on_are_spared(
    spark: SparkSession, make_model: Callable[..., object], tmp_path: Path
) -> None:
    """Between two stages nobody holds the folder: a refresh's two versions, a day one's rounds, and the parent's."""
    workdir = Workdir(str(tmp_path))
    statuses = {"running": None, "failed": None, "stale": timedelta(hours=2), "refused": None}
    rounds = [f"{run}-{t}" for run in statuses for t in "01"]
    write_versions(spark, workdir, make_model, [*rounds, "p-1", "o-1", "l-1"])
    for run, age in statuses.items():
        record = Run(workdir, run, "hash")
        record.record |= {"status": "failed" if run == "stale" else run, "parent": "p-1" if run == "running" else None}
        record.record["stages"] = [{"name": "e_step", "result": {}}]
        record.save()
        if age:
            text = json.dumps(record.record | {"saved_at": (datetime.now(UTC) - age).isoformat()})
            workdir.write_text(text, "runs", f"{run}.json")
    for number, name in enumerate(("p-1", "o-1", "l-1")):
        publish(
            spark,
            workdir,
            day(number, release_id=name, status="live" if name == "l-1" else "retired", parent_release=None),
        )
    done = maintain(spark, workdir, config_without_spares(), vacuum_hours=0.0)
    spared = {"running-0", "running-1", "failed-0", "failed-1", "p-1", "l-1"}
    assert (done["kept"], done["deleted"]) == (["l-1", "p-1"], ["o-1"])
    assert set(workdir.names("models")) == spared == versions(workdir)
    for name in spared:
        load_model(workdir.filesystem, workdir.path("models", name))
    stages = {run: len(Run.load(workdir, run).record["stages"]) for run in statuses}
    assert stages == {"running": 1, "failed": 1, "stale": 0, "refused": 1}, "what lost its models is done anew"
